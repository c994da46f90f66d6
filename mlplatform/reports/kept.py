"""Keeps what a gate says where it outlives the run: TFX removes the outputs of a node that failed."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from mlplatform.home import local_path
from mlplatform.reports.page import write_page

INDEX_FILE = "index.html"
_RUN_FILE, _VERDICT_FILE, _REPORT_FILE = "run.json", "verdict.json", "report.html"
_TIME = "%Y%m%dT%H%M%S%fZ"
_NAME = re.compile(r"(?P<gate>[^.].*)-(?P<at>\d{8}T\d{12}Z)")


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
) -> Path:
    """Let a gate write its report into a folder of its own below `reports_dir`, and list it in `index.html`.

    The folder `<gate>-<UTC time>` appears in one step, when all of it is written; names sort by time.

    Args:
        reports_dir: Folder of all reports; made if it is not there.
        gate: Name of the component.
        write: Writes the files into the folder that it is given.
        run: The run that the gate is in, for the index; empty where it is not known.

    Returns:
        The folder.

    Raises:
        RemotePathError: `reports_dir` is not a local folder.
    """
    name = f"{gate}-{datetime.now(timezone.utc).strftime(_TIME)}"
    folder = local_path(reports_dir, "reports_dir")
    partial = folder / f".{name}"
    partial.mkdir(parents=True)
    try:
        write(partial)
        if run:
            (partial / _RUN_FILE).write_text(json.dumps({"run": run}), "utf-8")
        kept = partial.rename(partial.with_name(name))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    write_index(folder)
    return kept


def write_index(reports_dir: Path) -> Path:
    """Write `index.html`, a list of all reports below a folder, and return its path."""
    listed: list[KeptReport] | None = None
    # Gates of several runs may keep reports at once. Who writes last may have looked first: each looks again
    # after it wrote, so that the last page that is written lists every report.
    while (found := kept_reports(reports_dir)) != listed:
        listed = found
        write_page(reports_dir / INDEX_FILE, "index_page.html", reports=found)
    return reports_dir / INDEX_FILE


def kept_reports(reports_dir: Path) -> list[KeptReport]:
    """Return the reports below a folder, the newest first."""
    names = [(match["at"], match["gate"], path) for path in reports_dir.iterdir()
             if (match := _NAME.fullmatch(path.name)) and path.is_dir()]  # fmt: skip
    return [_read(path, gate, at) for at, gate, path in sorted(names, reverse=True)]


def _read(folder: Path, gate: str, at: str) -> KeptReport:
    accepted, run = _fact(folder / _VERDICT_FILE, "accepted"), _fact(folder / _RUN_FILE, "run")
    return KeptReport(
        at=f"{datetime.strptime(at, _TIME):%Y-%m-%d %H:%M:%S}",
        gate=gate,
        is_accepted=accepted if isinstance(accepted, bool) else None,
        run=run if isinstance(run, str) else "",
        page=f"{folder.name}/{_REPORT_FILE}" if (folder / _REPORT_FILE).is_file() else "",
    )


def _fact(file: Path, name: str) -> object:
    """Return a value of a JSON object; None where there is none: one bad file must not hide the others."""
    try:
        facts = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return facts.get(name) if isinstance(facts, dict) else None
