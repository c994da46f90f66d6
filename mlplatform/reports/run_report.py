"""The page of any run: cause of a failure first, graph, times, cache reasons, figures, data, links."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mlplatform.reports.graphs import Bar, Box, draw_graph, draw_timeline
from mlplatform.reports.page import write_page

TONES = {
    "done": "good", "cached": "good", "failed": "bad", "running": "warn", "interrupted": "bad",
    "cancelled": "warn", "unreadable": "bad",
}  # fmt: skip


def write_run_report(path: Path, document: Mapping[str, Any]) -> Path:
    """Write the page of a run.

    Args:
        path: The HTML file.
        document: What `run_document` returns, or `exported_run`.
    """
    return write_page(path, "run_report.html", **report_context(document))


def report_context(
    document: Mapping[str, Any], node_links: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what a template needs to show a run.

    Args:
        document: What `run_document` returns, or `exported_run`.
        node_links: Where the boxes of nodes lead; None: to the rows below.
    """
    nodes = document["nodes"]
    links = node_links if node_links is not None else {n["id"]: f"#node-{n['id']}" for n in nodes}
    return {
        "run": document,
        "tones": TONES,
        "graph": node_graph(nodes, links),
        "timeline": node_timeline(nodes),
        "figures": figures_beside(document["metrics"], (document["previous"] or {}).get("metrics", {})),
        "logs": document.get("logs", {}),
        "report_links": {},
    }


def node_graph(nodes: Sequence[Mapping[str, Any]], links: Mapping[str, str]) -> Markup:
    """Draw the nodes of a run and what they wait for."""
    boxes = [
        Box(n["id"], n["id"], _box_note(n), TONES.get(n["state"], ""), links.get(n["id"], "")) for n in nodes
    ]
    edges = [(before, n["id"]) for n in nodes for before in n["upstream"]]
    return draw_graph(boxes, edges, label="The nodes of this run")


def node_timeline(nodes: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw when the nodes of a run ran."""
    bars = [
        Bar(n["id"], n["offset_s"], n["seconds"], _bar_tone(n["state"])) for n in nodes if n["started_at"]
    ]
    return draw_timeline(bars, label="When the nodes ran, from the start of the run") if bars else Markup()


def figures_beside(now: Mapping[str, float], before: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return figures with those of an earlier run beside: `name`, `now`, `before`, `change`."""
    return [
        {
            "name": name,
            "now": value,
            "before": before.get(name),
            "change": value - before[name] if name in before else None,
        }
        for name, value in now.items()
    ]


def _box_note(node: Mapping[str, Any]) -> str:
    return f"{node['state']}, {node['seconds']:.1f} s" if node["seconds"] else str(node["state"])


def _bar_tone(state: str) -> str:
    return {"failed": "bad", "cached": "soft"}.get(state, "good")
