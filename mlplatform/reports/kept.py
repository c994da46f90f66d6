"""Keeps what a gate says where it outlives the run: TFX removes the outputs of a node that failed.

A report is a folder of files, `<reports>/<run>/<node>/`, and its facts, `<reports>/<run>/<node>.json`, which
are created exclusively before it: of two nodes with one name, the second is `<node>-2`. It counts once its
files are there. `index.html` lists all reports.
"""

import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from operator import itemgetter
from pathlib import Path
from typing import Any

from mlplatform.reports.page import render
from mlplatform.storage import Storage, open_storage
from mlplatform.storage.urls import join

INDEX_FILE = "index.html"
_VERDICT_FILE, _REPORT_FILE = "verdict.json", "report.html"
_TIME = "%Y%m%dT%H%M%S%fZ"
_FACTS = re.compile(r"(?P<folder>[^/]+/[^/]+)\.json")
# Reports of before there were folders of runs: <gate>-<time>/, with the run's id in a file.
_OLD = re.compile(r"(?P<gate>[^./][^/]*)-(?P<at>\d{8}T\d{12}Z)")
_OLD_RUN_FILE = "run.json"


_Known = dict[str, "tuple[str, KeptReport]"]  # by folder, with the exact time


@dataclass(frozen=True)
class KeptReport:
    """One report of a folder of reports.

    Attributes:
        at: When it was kept, UTC, to the second.
        gate: The component.
        is_accepted: Its decision; None where its verdict cannot be read.
        run: The run; empty where it is not known.
        page: The page, relative to the folder of all reports; empty where it has none.
    """

    at: str
    gate: str
    is_accepted: bool | None
    run: str
    page: str


def keep_report(
    reports_dir: str | os.PathLike[str], gate: str, write: Callable[[Path], object], *, run: str = ""
) -> str:
    """Let a gate write its report into a folder of its own below `reports_dir`, and list it in `index.html`.

    The folder appears when all of it is written.

    Args:
        reports_dir: Folder of all reports, a local path or a URL; made if it is not there.
        gate: Name of the node.
        write: Writes the files into the local folder that it is given.
        run: The run that the gate is in; empty where it is not known, and the time stands in for it.

    Returns:
        The report's folder, a local path or a URL.
    """
    storage = open_storage(reports_dir)
    at = datetime.now(timezone.utc).strftime(_TIME)
    with tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch:
        made = Path(scratch)
        write(made)
        facts = {"run": run, "gate": gate, "at": at, "accepted": _accepted(_local(made / _VERDICT_FILE))}
        folder = _claim(storage, _folder_name(run) or at, _folder_name(gate), json.dumps(facts).encode())
        storage.put_tree(folder, made, last=(_REPORT_FILE,))
    write_index(storage)
    return join(storage.url, folder)


def write_index(storage: Storage) -> None:
    """Write `index.html`, a list of all reports of a storage of reports."""
    known: _Known = {}
    listed: list[str] | None = None
    # Gates of several runs may keep reports at once. Who writes last may have looked first: each looks again
    # after it wrote, so that the last page that is written lists every report.
    while (found := _paths(storage)) != listed:
        listed = found
        page = render("index_page.html", reports=_reports(storage, found, known))
        storage.put(INDEX_FILE, page.encode())


def kept_reports(reports_dir: str | os.PathLike[str]) -> list[KeptReport]:
    """Return the reports of a folder of reports, a local path or a URL, the newest first."""
    storage = open_storage(reports_dir)
    return _reports(storage, _paths(storage), {})


def _paths(storage: Storage) -> list[str]:
    return [path for path in storage.paths("") if path != INDEX_FILE]


def _claim(storage: Storage, run: str, gate: str, facts: bytes) -> str:
    """Return a folder for a report that no other report has."""
    for number in itertools.count(1):
        folder = f"{run}/{gate}" if number == 1 else f"{run}/{gate}-{number}"
        if storage.create(f"{folder}.json", facts):
            return folder
    raise AssertionError("unreachable")


def _folder_name(name: str) -> str:
    """Return a name as one of a folder, in a page's links and on every storage."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".")


def _reports(storage: Storage, paths: Sequence[str], known: _Known) -> list[KeptReport]:
    """Return the reports whose files are among `paths`, the newest first; `known` are those read before."""
    there = set(paths)
    folders = {path.rpartition("/")[0] for path in paths}
    new = [match["folder"] for path in paths if (match := _FACTS.fullmatch(path))]
    unread = [folder for folder in new if folder in folders and folder not in known]
    for folder, facts in zip(unread, _read_all(storage, [f"{one}.json" for one in unread]), strict=True):
        known[folder] = _listed(facts, folder, there)
    for folder in folders:
        match = _OLD.fullmatch(folder)
        if match and folder not in known:
            verdict, run = _read_all(storage, [f"{folder}/{_VERDICT_FILE}", f"{folder}/{_OLD_RUN_FILE}"])
            facts = {**match.groupdict(), **run, "accepted": _accepted(verdict)}
            known[folder] = _listed(facts, folder, there)
    return [report for _, report in sorted(known.values(), key=itemgetter(0), reverse=True)]


def _listed(facts: Mapping[str, Any], folder: str, there: Container[str]) -> tuple[str, KeptReport]:
    """Return a report with its exact time, as far as its facts can be read: one must not hide the others."""
    at, accepted, page = str(facts.get("at", "")), facts.get("accepted"), f"{folder}/{_REPORT_FILE}"
    is_time = _OLD.fullmatch(f"x-{at}")
    return at, KeptReport(
        at=f"{datetime.strptime(at, _TIME):%Y-%m-%d %H:%M:%S}" if is_time else "",
        gate=str(facts.get("gate", folder)),
        is_accepted=accepted if isinstance(accepted, bool) else None,
        run=str(facts.get("run", "")),
        page=page if page in there else "",
    )


def _accepted(verdict: Mapping[str, Any]) -> bool | None:
    accepted = verdict.get("accepted")
    return accepted if isinstance(accepted, bool) else None


def _read_all(storage: Storage, paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return JSON objects; an empty one for each that is missing or cannot be read."""
    try:
        return [_parsed(data) for data in storage.read_all(paths)]
    except FileNotFoundError:
        return [_read_all(storage, [path])[0] for path in paths] if len(paths) > 1 else [{}]


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(data)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _local(file: Path) -> dict[str, Any]:
    return _parsed(file.read_bytes()) if file.is_file() else {}
