"""The index of a ledger: what its streams hold, so that a question about all runs needs few requests.

    index/00000001-00000020.jsonl   one stream a line, as the compactions 1 to 20 found it; written once
    index/open/<stream>~<s>~<id>    a writer may have added to a stream since second <s>

A writer marks a stream before it adds to it, so what the index lacks is only in marked streams: a reader
takes the index and reads those. A compaction writes what marked streams hold, merges files so that few are
left, and removes the marks that it has made needless: its own writer's, and others' after an hour. (A writer
marks anew after half an hour, so an older mark announces no event that is still to come; clocks must agree to
half an hour.)

Events of nodes and reports are left out: they are most of all, and of interest with their run alone.
"""

import json
import logging
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from mlplatform.registry.event import Event
from mlplatform.storage import Storage
from mlplatform.storage.errors import CorruptStoreError

log = logging.getLogger(__name__)

MARK_EVERY_S = 1800.0
_MARK_LASTS_S = 2 * MARK_EVERY_S
_OPEN = "index/open"
_FILE = re.compile("([0-9]{8})-([0-9]{8})[.]jsonl")
_GROWTH = 4  # a file is merged with a new one that is more than a quarter of it: of N, about log5(N) are left
_TRIES = 5
_BEFORE_NAME, _AFTER_NAME = b'{"stream": "', b'", "events": ['  # of a line, as json.dumps writes it


def is_indexed(event: Event) -> bool:
    """Return whether the index holds an event."""
    return not event.kind.startswith("node.") and event.kind != "report"


@dataclass(frozen=True, order=True)
class _Span:
    """The compactions whose streams a file holds."""

    last: int
    first: int

    @property
    def path(self) -> str:
        return f"index/{self.first:08}-{self.last:08}.jsonl"

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    def holds(self, other: "_Span") -> bool:
        return self != other and self.first <= other.first and other.last <= self.last


@dataclass(frozen=True)
class Mark:
    """That a writer may have added to a stream."""

    name: str
    stream: str
    since: float
    writer: str

    def is_needless(self, writer: str, now: float) -> bool:
        """Return whether all that it announced is in streams that were read after `now`."""
        return self.writer == writer or now - self.since > _MARK_LASTS_S


def write_mark(storage: Storage, stream: str, writer: str) -> None:
    """Announce that a writer may add to a stream within the next half hour."""
    path = f"{_OPEN}/{quote(stream, safe='')}~{int(time.time())}~{writer}"
    if (place := storage.local(path)) is None:
        storage.put(path, b"")
    else:  # a name alone: file systems make it last with the event that comes after it
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def read_marks(storage: Storage) -> list[Mark]:
    """Return the marks that there are."""
    found = []
    for name in storage.names(_OPEN):
        parts = name.split("~")
        if len(parts) == 3 and parts[1].isdecimal() and parts[1].isascii():
            found.append(Mark(name, unquote(parts[0]), float(parts[1][:15]), parts[2]))
    return found


def remove_marks(storage: Storage, marks: Iterable[Mark]) -> None:
    """Remove marks that are needless."""
    for mark in marks:
        storage.delete(f"{_OPEN}/{mark.name}")


def read_index(
    storage: Storage, kind: str, containing: str = "", *, read: dict[str, dict[bytes, bytes]]
) -> dict[str, list[Event]]:
    """Return the indexed events of all streams of a kind, as the last compactions found them.

    Args:
        storage: The ledger's files.
        kind: The first part of the streams' names.
        containing: Only streams whose text in the index contains this.
        read: The lines of the index's files by path and stream, as far as they were read before; afterwards
            those that count now.
    """
    wanted, found = json.dumps(containing)[1:-1].encode(), {}
    start = _BEFORE_NAME + f"{kind}/".encode()
    for line in _lines(storage, read).values():
        if line.startswith(start) and wanted in line:
            parsed = json.loads(line)
            stream = parsed["stream"]
            events = [Event.from_json(stream, number, event) for number, event in parsed["events"]]
            found[stream] = [event for event in events if event is not None]
    return found


def write_index(storage: Storage, streams: Mapping[str, list[Event]]) -> bool:
    """Write what streams hold now; False where another process wrote just then, and nothing was written."""
    spans = _spans(storage)
    live = _live(spans)
    last = max((span.last for span in spans), default=0) + 1
    new, merged = _Span(last, last), []
    while live and live[-1].count <= _GROWTH * new.count:
        merged.append(live.pop())
        new = _Span(last, merged[-1].first)
    lines: dict[bytes, bytes] = {}
    for span in reversed(merged):
        lines.update(_by_stream(storage.read(span.path)))
    for stream, events in streams.items():
        held = [[event.number, event.as_json()] for event in events if is_indexed(event)]
        if held:
            lines.update(_by_stream(json.dumps({"stream": stream, "events": held}).encode()))
    if not storage.create(new.path, b"".join(line + b"\n" for line in lines.values())):
        return False
    for span in spans:  # those that were superseded before: nobody begins to read them any more
        if any(other.holds(span) for other in spans):
            storage.delete(span.path)
    return True


def _spans(storage: Storage) -> list[_Span]:
    found = (_FILE.fullmatch(name) for name in storage.names("index"))
    return sorted(_Span(int(match[2]), int(match[1])) for match in found if match)


def _live(spans: list[_Span]) -> list[_Span]:
    return [span for span in spans if not any(other.holds(span) for other in spans)]


def _lines(storage: Storage, read: dict[str, dict[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the line of each stream, the newest of several."""
    for _ in range(_TRIES):
        live = [span.path for span in _live(_spans(storage))]
        missing = [path for path in live if path not in read]
        try:
            read.update(zip(missing, map(_by_stream, storage.read_all(missing)), strict=True))
        except FileNotFoundError:  # merged into another one meanwhile
            continue
        for path in read.keys() - set(live):
            del read[path]
        found: dict[bytes, bytes] = {}
        for path in live:
            found.update(read[path])
        return found
    raise CorruptStoreError(f"{storage.url}/index", "its files disappear while they are read")


def _by_stream(data: bytes) -> dict[bytes, bytes]:
    """Return the lines of a file by the name of their stream, unparsed; others are skipped."""
    found = {}
    for line in data.split(b"\n"):
        end = line.find(_AFTER_NAME)
        if end > 0 and line.startswith(_BEFORE_NAME) and line.endswith(b"]}"):
            found[line[len(_BEFORE_NAME) : end]] = line
    return found
