"""Everything that is known of a run as one JSON document, for pages to show and for people to keep."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from urllib.parse import quote

from mlplatform.datasets import DatasetStore
from mlplatform.errors import MlplatformError
from mlplatform.home import Home
from mlplatform.orchestration.local.comparing import compare_runs
from mlplatform.orchestration.local.ledger_runs import KeptRun, LedgerRun, all_runs, summary_of
from mlplatform.orchestration.local.records import NoLogError, RunRecord, run_folders
from mlplatform.orchestration.local.run_metrics import run_intervals, run_metrics
from mlplatform.registry import events
from mlplatform.registry.event import Event
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.model_events import PUSH
from mlplatform.registry.model_ledger import ModelLedger
from mlplatform.registry.run_marks import notes_of, tags_of
from mlplatform.reports.page import render
from mlplatform.reports.run_report import report_context
from mlplatform.storage import open_storage
from mlplatform.storage.urls import is_local, join

FORMAT = "mlplatform run 1"
RUN_PAGE = "run.html"
_LOG_CHARACTERS = 65_536  # of each node's log, its end
_RUNS_LOOKED_AT = 50  # for one to compare with


def run_document(home: Home, run: KeptRun, *, previous: KeptRun | None = None) -> dict[str, Any]:
    """Return what is known of a run.

    Args:
        home: The root.
        run: The run.
        previous: The run whose figures stand beside this one's; None where there is none.

    Returns:
        What `json.dumps` takes: `format`, `run_id`, `pipeline`, `state`, `started_at`, `wall_s`, `reference`,
        `arguments`, `options`, `versions`, `code`, `metrics`, `intervals`, `nodes`, `datasets`,
        `verdicts`, `models`, `tags`, `notes` and `previous`.

    Raises:
        LedgerAccessError: The ledger cannot be read.
    """
    record = run.read()
    happened = Ledger(home.ledger).events(events.run_stream(run.run_id))
    started = next((e.facts for e in happened if e.kind == events.RUN_STARTED), {})
    datasets = _datasets(happened)
    return {
        "format": FORMAT,
        **{name: value for name, value in asdict(record).items() if name != "nodes"},
        "code": _code(started.get("code")),
        "metrics": _metrics(record, happened),
        "intervals": {name: list(ends) for name, ends in run_intervals(record).items()},
        "nodes": [_node(run, record, node) for node in asdict(record)["nodes"]],
        "datasets": datasets,
        "verdicts": [_verdict(e) for e in happened if e.kind == events.VERDICT],
        "models": _models(home, run.run_id),
        "tags": tags_of(happened),
        "notes": [{"at": e.at, "by": e.by, "note": e.get("note")} for e in notes_of(happened)],
        "previous": _previous(home, run, previous, datasets) if previous is not None else None,
    }


def exported_run(home: Home, run: KeptRun) -> dict[str, Any]:
    """Return what is known of a run with its events and the ends of its logs, to be kept for good.

    Raises:
        LedgerAccessError: The ledger cannot be read.
    """
    document = run_document(home, run, previous=previous_run(run, all_runs(home)))
    document["events"] = [e.as_json() for e in Ledger(home.ledger).events(events.run_stream(run.run_id))]
    document["logs"] = {node["id"]: log for node in document["nodes"] if (log := _log(run, node["id"]))}
    return document


def write_run_page(home: Home, run: KeptRun) -> str:
    """Write the page of a run among the reports, `<reports>/<run>/run.html`; return its place.

    Raises:
        LedgerAccessError: The ledger cannot be read.
        StoreAccessError: The page cannot be written.
    """
    earlier = run_folders(home) if is_local(home.root) else all_runs(home)
    document = run_document(home, run, previous=previous_run(run, earlier))
    links = {path: f"{node}/report.html" for path, node in _reports(home, document)}
    page = render("run_report.html", **report_context(document) | {"report_links": links})
    storage, place = open_storage(home.reports), f"{quote(run.run_id, safe='')}/{RUN_PAGE}"
    storage.put(place, page.encode())
    return join(storage.url, place)


def _reports(home: Home, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the place of each gate's report that lies beside the run's page, and the name of its folder."""
    beside = join(home.reports, document["run_id"]) + "/"
    for verdict in document["verdicts"]:
        path = str(verdict.get("path", ""))
        if path.startswith(beside) and path.endswith("/report.html"):
            yield path, quote(path.removeprefix(beside).removesuffix("/report.html"), safe="")


def previous_run(run: KeptRun, earlier: Iterable[KeptRun]) -> KeptRun | None:
    """Return the newest run of the same pipeline before a run that ended well; None where there is none.

    Args:
        run: The run.
        earlier: Runs, the newest first; later ones are passed by.
    """
    pipeline = run.read().pipeline
    earlier = (each for each in earlier if each.run_id < run.run_id)
    for count, each in enumerate(earlier):
        if count == _RUNS_LOOKED_AT:
            break
        found = summary_of(each) if isinstance(each, LedgerRun) else each.read()
        if found.pipeline == pipeline and found.state == "done":
            return each
    return None


def _verdict(event: Event) -> dict[str, Any]:
    reasons = event.get("reasons")
    return {
        **{name: str(event.get(name) or "") for name in ("node", "gate", "path")},
        "at": event.at,
        "is_accepted": event.get("is_accepted") is True,
        "reasons": [str(reason) for reason in reasons] if isinstance(reasons, list) else [],
    }


def _code(found: object) -> dict[str, Any]:
    """Return the commit, empty where it is not known, and whether files differed from it."""
    facts = found if isinstance(found, Mapping) else {}
    return {"commit": str(facts.get("commit") or ""), "is_dirty": facts.get("is_dirty")}


def _log(run: KeptRun, node: str) -> str:
    try:
        return run.read_log(node)[-_LOG_CHARACTERS:]
    except NoLogError:
        return ""


def _metrics(record: RunRecord, happened: Sequence[Event]) -> dict[str, float]:
    """Return the run's figures, also where its artifacts are deleted or on another machine."""
    noted = next((e.get("metrics") for e in reversed(happened) if e.kind == events.RUN_FINISHED), None)
    return run_metrics(record) or (dict(noted) if isinstance(noted, Mapping) else {})


def _node(run: KeptRun, record: RunRecord, node: dict[str, Any]) -> dict[str, Any]:
    details = run.read_details(node["id"])
    about = asdict(details) if details is not None else {}
    kept = ("decision", "key", "compared_with", "changes", "parts", "doubts")
    return {
        **node,
        "offset_s": _seconds_between(record.started_at, node["started_at"]),
        "cache": {name: about[name] for name in kept if name in about},
    }


def _seconds_between(start: str, end: str) -> float:
    try:
        return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
    except (ValueError, TypeError):  # it never started; or another tool wrote other times
        return 0.0


def _datasets(happened: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the dataset versions that a run used, each once, with the records of every split."""
    found: dict[str, dict[str, Any]] = {}
    for event in happened:
        name, splits = event.get("dataset"), event.get("splits")
        if event.kind == events.DATASET_USED and isinstance(name, str):
            known = found.setdefault(name, {"dataset": name, "digest": "", "splits": {}, "nodes": []})
            known["digest"] = str(event.get("digest") or known["digest"])
            known["splits"] |= splits if isinstance(splits, Mapping) else {}
            known["nodes"].append(str(event.get("node", "")))
    return list(found.values())


def _models(home: Home, run: str) -> list[dict[str, Any]]:
    """Return the model versions that a run pushed."""
    ledger = ModelLedger(home.models)
    return [
        {"model": model, "version": event["version"], "digest": event.get("digest", ""), "at": event["at"]}
        for model in ledger.names()
        for event in ledger.events(model)
        if event["event"] == PUSH and event.get("run") == run
    ]


def _previous(home: Home, run: KeptRun, previous: KeptRun, datasets: list[dict[str, Any]]) -> dict[str, Any]:
    record = previous.read()
    happened = Ledger(home.ledger).events(events.run_stream(previous.run_id))
    compared = asdict(compare_runs(previous, run))
    return {
        "run_id": record.run_id,
        "started_at": record.started_at,
        "wall_s": record.wall_s,
        "metrics": _metrics(record, happened),
        "changes": {name: compared[name] for name in ("arguments", "versions", "nodes")},
        "data": _data_changes(home, _datasets(happened), datasets),
    }


def _data_changes(
    home: Home, before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return, for each dataset of both runs, its two versions and the records that came and went between."""
    earlier = {each["dataset"].partition("@")[0]: each for each in before}
    changes = []
    for each in now:
        dataset, _, version = each["dataset"].partition("@")
        if dataset not in earlier:
            continue
        old = earlier[dataset]["dataset"].partition("@")[2]
        change = {"dataset": dataset, "before": old, "now": version}
        change |= {"splits_before": earlier[dataset]["splits"], "splits_now": each["splits"]}
        changes.append(change | _came_and_went(home, dataset, old, version))
    return changes


def _came_and_went(home: Home, dataset: str, old: str, new: str) -> dict[str, int]:
    """Return the records that the versions after `old`, up to `new`, added and removed."""
    try:
        versions = {each.version: each for each in DatasetStore(home.datasets).log(dataset)}
        first, last = versions[old].number, versions[new].number
    except (MlplatformError, KeyError):  # the store is elsewhere, or was begun anew
        return {}
    between = [each for each in versions.values() if first < each.number <= last]
    return {"added": sum(v.added for v in between), "removed": sum(v.removed for v in between)}
