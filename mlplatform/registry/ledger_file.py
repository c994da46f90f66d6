"""A model's ledger: what happened to its versions, one JSON object a line, oldest first.

One writer at a time, held by a lock on the file, appends whole lines; nothing is ever changed. Readers need
no lock. A line that is not an event is skipped and reported: it must not keep the rest from working.
"""

import fcntl
import functools
import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from mlplatform.machine import user_name
from mlplatform.registry.errors import LedgerAccessError

log = logging.getLogger(__name__)

LEDGER_FILE = "ledger.jsonl"
PUSH, CONFIRM, PROMOTE, ROLLBACK, REMOVE = "push", "confirm", "promote", "rollback", "remove"
MAX_VERSION = (1 << 63) - 1  # a model server's version numbers have 64 bits

Event = Mapping[str, object]


def parse_event(line: bytes) -> dict[str, object] | None:
    """Return the event that a line holds; None where it holds none.

    What a later release adds, kinds of events and facts of them, is kept as it is.
    """
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _is_event(found) else None


def _is_event(found: dict[str, object]) -> bool:
    versions, labels = found.get("versions", []), found.get("labels", {})
    return (
        _is_version(found.get("version"))
        and isinstance(found.get("event"), str)
        and all(isinstance(found.get(fact, ""), str) for fact in ("at", "by", "why", "digest", "label"))
        and isinstance(versions, list)
        and all(map(_is_version, versions))
        and isinstance(labels, dict)
        and all(version is None or _is_version(version) for version in labels.values())
        and (found["event"] != PROMOTE or bool(found.get("label")))
        and (found["event"] != PUSH or bool(found.get("digest")))
    )


def _is_version(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_VERSION


def versions_of(event: Event) -> tuple[int, ...]:
    """Return the versions that an event is about."""
    found = event.get("versions") or [event["version"]]
    assert isinstance(found, list)
    return tuple(found)


@dataclass(frozen=True)
class Ledger:
    """The ledger in one file.

    Attributes:
        path: The file; there is none before the first event.
    """

    path: Path

    def events(self) -> list[dict[str, object]]:
        """Return every event, oldest first; what is none is logged once and skipped.

        Raises:
            LedgerAccessError: The file cannot be read as a whole.
        """
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise LedgerAccessError(self.path, "it is not a file")
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LedgerAccessError(self.path, error.strerror or str(error)) from error
        found = []
        for number, line in enumerate(lines, start=1):
            event = parse_event(line) if line.strip() else None
            if event is not None:
                found.append(event)
            elif line.strip() and number < len(lines):  # the last line is cut while it is being written
                _report_damage(self.path, number, line[:80])
        return found

    @contextmanager
    def writer(self) -> Iterator["Writer"]:
        """Hold the ledger against other writers; a killed one releases it by itself.

        Raises:
            LedgerAccessError: It cannot be written.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            reason = "it is not a file" if self.path.is_dir() else error.strerror or str(error)
            raise LedgerAccessError(self.path, reason) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LedgerAccessError(self.path, "it is not a file")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Writer(descriptor)
        finally:
            os.close(descriptor)


@functools.lru_cache(maxsize=1024)  # a server reads the ledger each second: once is enough
def _report_damage(path: Path, number: int, start: bytes) -> None:
    log.warning("%s: line %d is damaged and skipped: %r", path, number, start.decode("utf-8", "replace"))


@dataclass(frozen=True)
class Writer:
    """Appends to a ledger that is held."""

    descriptor: int

    def append(self, event: str, **facts: object) -> None:
        """Write one event; when this returns, it has happened, whatever fails afterwards.

        Raises:
            OSError: It could not be written; the ledger is as it was.
        """
        line = {"event": event, "at": timestamp(), "by": user_name(), **facts}
        self._complete_last_line()
        size = os.fstat(self.descriptor).st_size
        left = memoryview(json.dumps(line).encode() + b"\n")
        try:
            while left:  # a disk that fills up takes a part of it
                left = left[os.write(self.descriptor, left) :]
            os.fsync(self.descriptor)
        except OSError:
            os.ftruncate(self.descriptor, size)
            raise

    def _complete_last_line(self) -> None:
        """Cut off what a killed writer left of a line, which never counted."""
        size = os.fstat(self.descriptor).st_size
        if not size or os.pread(self.descriptor, 1, size - 1) == b"\n":
            return
        whole, newline, last = os.pread(self.descriptor, size, 0).rpartition(b"\n")
        if parse_event(last) is not None:
            os.write(self.descriptor, b"\n")  # an event that somebody's editor left without its end
        else:
            os.ftruncate(self.descriptor, len(whole) + len(newline))


def timestamp() -> str:
    """Return the time now, ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def texts(value: object) -> Sequence[str] | None:
    """Return a list of texts as it was written; None where it is something else."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    return None
