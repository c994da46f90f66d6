"""The pages about runs: all of them, one, a node of it, a log, and several beside each other."""

import os
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from mlplatform.orchestration.local.ledger_runs import KeptRun
from mlplatform.orchestration.local.records import (
    RUNNER_LOG,
    NodeNotFoundError,
    NoLogError,
    RunFolder,
    RunState,
)
from mlplatform.orchestration.local.run_document import run_document
from mlplatform.ui.approval_pages import answer_about
from mlplatform.ui.index import PAGE, RunFilter
from mlplatform.ui.site import BadQueryError, Data, PageNotFoundError, Request, Site

MOST_COMPARED = 8
_LOG_BYTES = 65_536  # of the end of a log
_SEARCHED_BYTES = 16 << 20
_FOUND_LINES = 500
_COLUMN = ("run_id", "pipeline", "state", "started_at", "wall_s")


def runs(site: Site, request: Request) -> Data:
    """All runs, filtered, the newest first, a page at a time."""
    state = request.get("state")
    if state and state not in get_args(RunState):
        raise BadQueryError("state", state, f"one of {', '.join(get_args(RunState))}")
    wanted = RunFilter(
        words=request.get("q")[:200], pipeline=request.get("pipeline"), state=state, tag=request.get("tag")
    )
    site.index.refresh()
    found = site.index.page(wanted, before=request.get("before"), count=PAGE + 1)
    counts = site.index.counts(wanted)
    return {
        "filter": {"q": wanted.words, "pipeline": wanted.pipeline, "state": state, "tag": wanted.tag},
        "counts": counts,
        "total": sum(counts.values()),
        **site.index.choices(),
        "runs": found[:PAGE],
        "next": found[PAGE - 1]["run_id"] if len(found) > PAGE else "",
        "is_live": any(run["state"] == "running" for run in found),
    }


def run(site: Site, request: Request) -> Data:
    """One run: what failed first, then figures, data, nodes, gates, and what it was made with."""
    site.index.refresh()
    run_id = request.names["run"]
    found = site.run(run_id)
    summary = site.index.summary(run_id) or {}
    document = run_document(site.home, found, previous=site.index.previous(summary))
    document["is_live"] = document["state"] == "running"
    document["approvals"] = [
        asdict(each) | {"answer": answer_about(site.approvals.answers(each.model), each.digest)}
        for each in site.approvals.of_run(run_id)
    ]
    return document


def node(site: Site, request: Request) -> Data:
    """One node of a run: why it ran, part by part of its cache key, and what it took and gave."""
    found, name = _node(site, request)
    document = run_document(site.home, found)
    about = next(each for each in document["nodes"] if each["id"] == name)
    cache = about["cache"]
    parts = {k: v for k, v in cache.get("parts", {}).items() if not k.startswith("library ")}
    return {
        "run_id": found.run_id,
        "pipeline": document["pipeline"],
        "node": about,
        "parts": parts,
        "libraries": len(cache.get("parts", {})) - len(parts),
        "verdicts": [each for each in document["verdicts"] if each.get("node") == name],
        "log": _log(found, name, lines=30),
        "is_live": document["state"] == "running" and about["state"] in ("waiting", "running"),
    }


def log(site: Site, request: Request) -> Data:
    """The log of a node: its end, or the lines that hold a text."""
    name = request.names["node"]
    if name == RUNNER_LOG:
        found = site.run(request.names["run"])
    else:
        found, name = _node(site, request)
    words, follows = request.get("q")[:200], request.get("follow") == "1"
    record = found.read()
    data = {
        "run_id": found.run_id,
        "node": name,
        "nodes": [RUNNER_LOG, *(each.id for each in record.nodes)],
        "q": words,
        "is_live": follows and record.state == "running",
        "is_running": record.state == "running",
    }
    return data | (_search(found, name, words) if words else _log(found, name))


def log_file(site: Site, request: Request) -> bytes:
    """The whole log of a node, up to 16 MiB of its end."""
    if request.names["node"] == RUNNER_LOG:
        found, name = site.run(request.names["run"]), RUNNER_LOG
    else:
        found, name = _node(site, request)
    data, _ = _end_of_log(found, name, _SEARCHED_BYTES)
    if data is None:
        raise PageNotFoundError(f"log of {name}")
    return data


def compare(site: Site, request: Request) -> Data:
    """Several runs side by side: what differs first, each of their figures, data and times."""
    site.index.refresh()
    chosen = list(dict.fromkeys(request.all("run")))
    if len(chosen) > MOST_COMPARED:
        raise BadQueryError("run", f"{len(chosen)} runs", f"at most {MOST_COMPARED}")
    documents = [run_document(site.home, site.run(run_id)) for run_id in sorted(chosen)]
    rows = {
        "figures": _beside([d["metrics"] for d in documents]),
        "arguments": _beside([_flat(d["arguments"]) for d in documents]),
        "code": _beside([_flat(d["code"]) for d in documents]),
        "data": _beside(
            [{e["dataset"].partition("@")[0]: e["dataset"] for e in d["datasets"]} for d in documents]
        ),
        "versions": _beside([d["versions"] for d in documents]),
        "states": _beside([{n["id"]: n["state"] for n in d["nodes"]} for d in documents]),
        "seconds": _beside([{n["id"]: round(n["seconds"], 2) for n in d["nodes"]} for d in documents]),
    }
    for row in rows["figures"]:
        row["intervals"] = [d["intervals"].get(row["name"]) for d in documents]
    return {
        "runs": [{name: d[name] for name in _COLUMN} for d in documents],
        "differences": {name: [r for r in found if r["differs"]] for name, found in rows.items()},
        "same": {name: sum(not r["differs"] for r in found) for name, found in rows.items()},
        "figures": rows["figures"],
    }


def _node(site: Site, request: Request) -> tuple[KeptRun, str]:
    found = site.run(request.names["run"])
    try:
        return found, found.read().node(request.names["node"]).id
    except NodeNotFoundError as error:
        raise PageNotFoundError(f"node {error.node[:80]!r} in run {found.run_id}") from None


def _beside(columns: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [{"name": name, "values": [column.get(name) for column in columns]} for name in names]
    return [row | {"differs": any(v != row["values"][0] for v in row["values"])} for row in rows]


def _flat(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        flat: dict[str, str] = {}
        for key, inner in value.items():
            flat |= _flat(inner, f"{name}.{key}" if name else str(key))
        return flat
    return {name: "" if value is None else str(value)}


def _log(found: KeptRun, name: str, lines: int = 0) -> Data:
    data, size = _end_of_log(found, name, _LOG_BYTES)
    if data is None:
        return {"lines": None, "size": 0, "is_cut": False, "found": None}
    text = data.decode("utf-8", errors="replace").splitlines()
    is_cut = size > len(data)
    return {"lines": text[1 if is_cut else 0 :][-lines:], "size": size, "is_cut": is_cut, "found": None}


def _search(found: KeptRun, name: str, words: str) -> Data:
    data, size = _end_of_log(found, name, _SEARCHED_BYTES)
    if data is None:
        return {"lines": None, "size": 0, "is_cut": False, "found": 0}
    wanted = words.lower()
    lines = [
        f"{number}: {line}"
        for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), 1)
        if wanted in line.lower()
    ]
    return {"lines": lines[:_FOUND_LINES], "size": size, "is_cut": size > len(data), "found": len(lines)}


def _end_of_log(found: KeptRun, name: str, most: int) -> tuple[bytes | None, int]:
    """Return the end of a log and the size of all of it; None where it has none."""
    if isinstance(found, RunFolder):
        return _end_of_file(found.log(name), most)
    try:
        data = found.read_log(name).encode()
    except NoLogError:
        return None, 0
    return data[-most:], len(data)


def _end_of_file(path: Path, most: int) -> tuple[bytes | None, int]:
    """Read the end of a file; one that is a link, or in a linked folder, could be any file at all."""
    if path.parent.is_symlink() or path.parent.parent.is_symlink():
        return None, 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None, 0
    with open(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            return None, 0
        file.seek(max(0, facts.st_size - most))
        return file.read(most), facts.st_size
