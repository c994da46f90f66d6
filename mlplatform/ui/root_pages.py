"""The pages about all of a root: what is going on, what gates refused, lineage, disk, and reports."""

from collections.abc import Sequence
from datetime import date, datetime, timezone
from pathlib import Path

from mlplatform.registry.lineage_graph import LineageGraph
from mlplatform.reports.kept import kept_reports
from mlplatform.storage.urls import is_local
from mlplatform.ui.approval_pages import waiting_rows
from mlplatform.ui.index import RunFilter
from mlplatform.ui.lineage import NothingNamedError
from mlplatform.ui.lineage import lineage as find_lineage
from mlplatform.ui.model_pages import report_row, serving_now
from mlplatform.ui.site import Data, PageNotFoundError, Request, Site

_MOST_NODES = 80  # drawn in one graph
_RECENT = 8


def home(site: Site, request: Request) -> Data:
    """What serves, what runs, and what gates refused last."""
    del request
    site.index.refresh()
    reports = kept_reports(site.home.reports)
    reasons = site.refusals()
    live = site.index.page(RunFilter(state="running"))
    return {
        "root": site.home.root,
        "models": serving_now(site),
        "datasets": site.datasets.names(),
        "running": live,
        "waiting": waiting_rows(site),
        "newest": site.index.page(RunFilter(), count=_RECENT),
        "counts": site.index.counts(RunFilter()),
        "refused": [
            report_row(r) | {"reasons": reasons.get((r.run, r.gate), [])}
            for r in reports
            if r.is_accepted is False
        ][:_RECENT],
        "is_live": bool(live),
    }


def gates(site: Site, request: Request) -> Data:
    """What the gates decided, the newest first; why, in each one's report."""
    decision = request.choice("decision", ("all", "refused", "accepted"))
    wanted = {"refused": (False,), "accepted": (True,), "all": (True, False, None)}[decision]
    reports = [report for report in kept_reports(site.home.reports) if report.is_accepted in wanted]
    reasons = site.refusals()
    rows = [report_row(r) | {"reasons": reasons.get((r.run, r.gate), [])} for r in reports]
    return {
        "decision": decision,
        "waiting": waiting_rows(site),
        "waivers": open_waivers(site.waivers(), datetime.now(timezone.utc).date()),
        "reports": rows[:200],
        "left_out": max(0, len(rows) - 200),
    }


def open_waivers(waivers: Sequence[Data], day: date) -> list[Data]:
    """Return the waivers that count on a day as rows, those that end first at the top.

    Args:
        waivers: As `Site.waivers` has them.
        day: The day, in UTC.
    """
    about = ("kind", "feature", "split", "threshold", "class_name", "slice")  # of data, and of models
    names = ("pipeline", "node", "run", *about, "by", "why")
    rows: list[Data] = []
    for each in waivers:
        try:
            until = date.fromisoformat(str(each.get("until")))
        except ValueError:  # a damaged one
            continue
        facts: Data = {name: str(each.get(name, "")) for name in names}
        facts |= {"is_used": each.get("is_used") is True, "until": until.isoformat()}
        rows.append(facts | {"days_left": (until - day).days})
    return sorted((row for row in rows if row["days_left"] >= 0), key=lambda row: row["days_left"])


def lineage(site: Site, request: Request) -> Data:
    """What something was made from, and what was made from it."""
    what, hops = request.get("what")[:300], request.number("hops", 2)
    direction = request.choice("direction", ("both", "up", "down"))
    asked: Data = {"what": what, "direction": direction, "hops": hops, "about": ""}
    if not what:
        return asked | {"nodes": [], "edges": [], "left_out": 0}
    try:
        named, part = find_lineage(site.home, what, direction, hops=hops or None, graph=site.graph())  # type: ignore[arg-type]
    except NothingNamedError as error:
        raise PageNotFoundError(f"{error.looked_for} named {what!r}") from error
    left_out = max(0, len(part.nodes) - _MOST_NODES)
    return asked | {"about": named.id, **_cut(part).as_json(), "left_out": left_out}


def _cut(part: LineageGraph) -> LineageGraph:
    if len(part.nodes) <= _MOST_NODES:
        return part
    kept = set(list(part.nodes)[:_MOST_NODES])
    fewer = LineageGraph()
    for name in kept:
        fewer.add(part.nodes[name])
    for edge in part.edges:
        if {edge.source, edge.target} <= kept:
            fewer.link(part.nodes[edge.source], part.nodes[edge.target], edge.how)
    return fewer


def disk(site: Site, request: Request) -> Data:
    """How large the parts of the root are, and what `mlplatform gc` would remove, once that is known."""
    del request
    found = site.disk.last()
    nothing: Data = {"parts": [], "gc": {}, "measured_at": ""}
    return {"root": site.home.root, "is_live": found is None, **(found or nothing)}


def report_file(site: Site, request: Request) -> bytes:
    """The page of a report that is listed."""
    wanted = request.names["run"] + "/" + request.names["gate"] + "/report.html"
    pages = {report.page for report in kept_reports(site.home.reports) if report.page}
    if wanted not in pages:
        raise PageNotFoundError("report")
    if not is_local(site.home.root):
        from mlplatform.storage import open_storage

        return open_storage(site.home.reports).read(wanted)
    place = Path(site.home.reports)
    file = place / wanted
    if not file.resolve().is_relative_to(place.resolve()):  # through a link
        raise PageNotFoundError("report")
    return file.read_bytes()
