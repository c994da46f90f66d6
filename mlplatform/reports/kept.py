"""Keeps what a gate says where it outlives the run: TFX removes the outputs of a node that failed."""

import os
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from mlplatform.home import local_path


def keep_report(reports_dir: str | os.PathLike[str], gate: str, write: Callable[[Path], object]) -> Path:
    """Let a gate write its report into a folder of its own below `reports_dir`.

    The folder `<gate>-<UTC time>` appears in one step, when all of it is written; names sort by time.

    Args:
        reports_dir: Folder of all reports; made if it is not there.
        gate: Name of the component.
        write: Writes the files into the folder that it is given.

    Returns:
        The folder.

    Raises:
        RemotePathError: `reports_dir` is no local folder.
    """
    name = f"{gate}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S%fZ}"
    partial = local_path(reports_dir, "reports_dir") / f".{name}"
    partial.mkdir(parents=True)
    try:
        write(partial)
        return partial.rename(partial.with_name(name))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
