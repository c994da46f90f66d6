"""Runs of which people may still have to be notified: a file each, so that no kill loses a notice.

The file is there before the run is, and is removed when people were notified or nothing was to be said. What
is left of a run whose process was killed is found by the next run in the root.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlplatform.home import Home
from mlplatform.orchestration.local.records import RunFolder

_FOLDER = "notices"


class OwedNotices:
    """The files of a root, on this machine."""

    def __init__(self, home: Home) -> None:
        self._folder, self._runs = home.machine / _FOLDER, home.runs

    def add(self, run_id: str) -> None:
        """Note that people may have to be notified of a run."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / run_id).touch()

    def remove(self, run_id: str) -> None:
        """Note that it is done."""
        (self._folder / run_id).unlink(missing_ok=True)

    def left(self) -> Iterator[RunFolder]:
        """Yield the runs whose process ended before it was done, each held against whoever else looks."""
        for file in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            folder = RunFolder(self._runs / file.name)
            if folder.is_live():
                continue
            with _held(file) as is_held:
                if is_held:
                    yield folder


@contextmanager
def _held(file: Path) -> Iterator[bool]:
    """Hold a file; False where another process does, or removed it."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield os.fstat(descriptor).st_nlink > 0
    finally:
        os.close(descriptor)
