"""The page of a lineage graph: the graph, and beside it the same as a list."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mlplatform.reports.graphs import Box, draw_graph
from mlplatform.reports.page import write_page

Document = Mapping[str, Any]  # nodes [{id, kind, name, ...}], edges [{from, to, how}]


def write_lineage_page(path: Path, about: str, document: Document) -> Path:
    """Write a self-contained page.

    Args:
        path: The HTML file.
        about: Id of the node that was asked for.
        document: What `mlplatform lineage --json` prints.
    """
    return write_page(
        path,
        "lineage_page.html",
        about=about,
        graph=lineage_graph(about, document, lambda _: ""),
        rows=lineage_rows(document),
    )


def lineage_graph(about: str, document: Document, link: Callable[[Mapping[str, Any]], str]) -> Markup:
    """Draw a lineage graph.

    Args:
        about: Id of the node that was asked for.
        document: What `mlplatform lineage --json` prints.
        link: Returns where a node's box leads; empty for nowhere.
    """
    boxes = [
        Box(n["id"], n["name"], note_of(n), "here" if n["id"] == about else _tone(n), link(n))
        for n in document["nodes"]
    ]
    return draw_graph(boxes, [(e["from"], e["to"]) for e in document["edges"]], label=f"Lineage of {about}")


def lineage_rows(document: Document) -> list[dict[str, Any]]:
    """Return a row for each edge: `source` and `target` as nodes, and `how`."""
    nodes = {node["id"]: node for node in document["nodes"]}
    return [
        {"source": nodes[edge["from"]], "target": nodes[edge["to"]], "how": edge["how"]}
        for edge in document["edges"]
    ]


def note_of(node: Mapping[str, Any]) -> str:
    """Return what is worth saying of a node in a few letters."""
    if node["kind"] == "model":
        marks: Sequence[str] = [*node.get("labels", ()), *(["withdrawn"] if node.get("is_withdrawn") else [])]
        return f"model {', '.join(marks)}"
    if node["kind"] == "dataset" and node.get("records"):
        return f"dataset, {sum(node['records'].values()):,} records"
    if node["kind"] == "run":
        return f"run {node.get('pipeline', '')} {node.get('state', '')}"
    return str(node["kind"])


def _tone(node: Mapping[str, Any]) -> str:
    if node.get("state") in ("failed", "interrupted") or node.get("is_withdrawn"):
        return "bad"
    return "warn" if node.get("is_dirty") else ""
