"""The pages about models: all of them, one with its history, and the card of one version."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlplatform.registry import ModelVersion
from mlplatform.registry.model_events import (
    CONFIRM,
    PROMOTE,
    PUSH,
    ROLLBACK,
    ModelEvent,
    texts,
    versions_of,
)
from mlplatform.reports.kept import KeptReport, kept_reports
from mlplatform.ui.approval_pages import answer_about
from mlplatform.ui.site import Data, PageNotFoundError, Request, Site

_SHOWN = ("event", "version", "versions", "at", "by", "run", "why", "label", "labels", "servers", "dataset")


def models(site: Site, request: Request) -> Data:
    """All models: what serves now, under which labels, since when, from what data."""
    del request
    return {"models": serving_now(site)}


def serving_now(site: Site) -> list[dict[str, Any]]:
    """Return a row for each model: its newest version that serves, and its labels."""
    rows = []
    for name, versions in site.models.all_versions().items():
        serving = [version for version in versions if not version.is_withdrawn]
        newest = version_row(serving[-1]) if serving else None
        if newest is not None:
            newest["approval"] = answer_about(site.approvals.answers(name), newest["digest"])
        rows.append(
            {
                "model": name,
                "newest": newest,
                "labels": {label: each.version for each in versions for label in each.labels},
                "versions": len(versions),
            }
        )
    return rows


def model(site: Site, request: Request) -> Data:
    """One model: its versions, their figures over time, and everything that happened to it."""
    name = site.model(request)
    versions = [version_row(each) for each in site.models.versions(name)]
    figures = list(dict.fromkeys(figure for row in versions for figure in row["metrics"]))
    return {
        "model": name,
        "place": site.models.base_path(name),
        "versions": list(reversed(versions)),
        "servers": _servers(site, name),
        "figures": [
            {
                "name": figure,
                "points": [
                    (row["version"], row["metrics"][figure]) for row in versions if figure in row["metrics"]
                ],
            }
            for figure in figures
        ],
        "history": [_event(event) for event in reversed(site.models.ledger(name))],
    }


def _servers(site: Site, name: str) -> list[dict[str, Any]]:
    """Return what each server serves: by its own word where it is asked, and by the ledger's."""
    versions = site.models.versions(name)
    newest = next((v.version for v in reversed(versions) if not v.is_withdrawn), None)
    events = site.models.ledger(name)
    rows: list[dict[str, Any]] = []
    for served in site.servers.served(name):
        now = served.available[0] if served.available else None
        states = {str(number): state for number, state in sorted(served.versions.items())}
        of_server = {"says": "server", "states": states, "problem": served.problem}
        rows.append({"server": served.server, "version": now, "since": _since(events, now), **of_server})
    confirmed = {
        str(server): e for e in events if e["event"] == CONFIRM for server in texts(e.get("servers")) or ()
    }
    for server, event in confirmed.items():
        of_ledger = {"says": "ledger", "states": {}, "problem": ""}
        rows.append(
            {"server": server, "version": event["version"], "since": event.get("at", ""), **of_ledger}
        )
    return [row | {"agrees": row["version"] == newest} for row in rows]


def _since(events: Sequence[ModelEvent], version: int | None) -> str:
    """Return since when a version is the newest: its push, or the roll-back of those above it."""
    times = [
        str(event.get("at", ""))
        for event in events
        if version is not None
        and (
            (event["event"] in (PUSH, PROMOTE) and event["version"] == version)
            or (event["event"] == ROLLBACK and min(versions_of(event)) > version)
        )
    ]
    return max(times, default="")


def version(site: Site, request: Request) -> Data:
    """The card of a version: figures, data, code, gates with their reports, labels, history, lineage."""
    name, wanted = site.model(request), request.names["version"]
    found = next((v for v in site.models.versions(name) if wanted in (str(v.version), *v.labels)), None)
    if found is None:
        raise PageNotFoundError(f"version {wanted[:80]!r} of model {name}")
    row = version_row(found)
    part = site.graph().around(f"model:{name}@{found.version}", "up")
    reports = [r for r in kept_reports(site.home.reports) if r.run and r.run == row["run"]]
    return {
        "model": name,
        **row,
        "place": found.url,
        "approval": answer_about(site.approvals.answers(name), row["digest"]),
        "events": [_event(event) for event in found.events],
        "datasets": [n.as_json() for n in part.nodes.values() if n.kind == "dataset"],
        "code": [n.as_json() for n in part.nodes.values() if n.kind == "code"],
        "gates": [report_row(report) for report in reports],
    }


def version_row(found: ModelVersion) -> dict[str, Any]:
    """Return what is known of a version in one row."""
    push: Mapping[str, Any] = asdict(found.push) if found.push else {}
    kept = ("pushed_at", "pushed_by", "why", "run", "dataset", "digest", "servers", "metrics", "source")
    return {
        "version": found.version,
        "labels": list(found.labels),
        "is_withdrawn": found.is_withdrawn,
        **{name: push.get(name, {} if name == "metrics" else "") for name in kept},
    }


def report_row(report: KeptReport) -> dict[str, Any]:
    """Return a gate's report in one row."""
    return asdict(report)


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in _SHOWN if event.get(name) not in (None, "", [], {})}
