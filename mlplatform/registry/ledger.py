"""The ledger: what happened, one immutable file per event, without a server.

    <stream>/00000001.json       an event, created exclusively: of two writers, one gets the number
    <stream>/00000016.all.json   the events 1 to 16 once more, so that a reader needs one request for them
    index/                       what streams hold, compacted; see `mlplatform.registry.index`

A stream is `models/NAME`, `runs/RUN_ID` or `datasets/NAME`. Nothing is ever changed, and there are no locks:
who decides by what happened before reads the stream, decides, and writes the next number; where somebody else
was quicker, all that is done again. A file that holds no event is skipped and reported once: it must not keep
the rest from working. What a later release adds, kinds of events and facts of them, is kept.
"""

import contextlib
import functools
import json
import logging
import math
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from mlplatform.registry import index
from mlplatform.registry.errors import LedgerAccessError
from mlplatform.registry.event import Draft, Event
from mlplatform.storage import ASIDE, EARLIER_ASIDE, Storage, open_storage
from mlplatform.storage.errors import CorruptStoreError

log = logging.getLogger(__name__)

Decision = Callable[[list[Event]], Draft | None]

_EVENT = re.compile("([0-9]{8})[.]json")
_ALL = re.compile("([0-9]{8})[.]all[.]json")
_LAST_NUMBER = 99_999_999
_EVENTS_PER_PACK = 16  # so reading a stream takes a listing, the events up to then, and 15 more files at most
_STREAMS_IN_MEMORY = 1000
_STREAMS_BEHIND = 4  # more that the index lacks are worth a compaction
_STALE_S = 24 * 3600  # age of a file that a killed writer left
_STREAM = re.compile("[a-z]+/.+", re.DOTALL)


class Ledger:
    """A ledger at one place. Threads may share it; what was read once is kept, as events never change.

    Args:
        place: Its folder, as a path or URL, or the storage of that.
    """

    def __init__(self, place: str | os.PathLike[str] | Storage) -> None:
        self.storage: Storage = open_storage(place) if isinstance(place, (str, os.PathLike)) else place
        self._known: dict[str, dict[int, Event | None]] = {}  # by stream and number; None: not an event
        self._id = uuid.uuid4().hex
        self._marked: dict[tuple[str, str], float] = {}  # when a writer marked a stream, monotonic time
        self._index_files: dict[str, dict[bytes, bytes]] = {}  # those that `overview` read last
        self._using_index = threading.Lock()
        self._writing = threading.RLock()  # between a mark and its event, no compaction removes the mark

    @property
    def url(self) -> str:
        """Where it lies."""
        return self.storage.url

    def append(self, stream: str, kind: str, *, run: str = "", **facts: object) -> Event:
        """Write an event; when this returns, it has happened.

        Args:
            stream: The stream, such as `runs/RUN_ID`.
            kind: What happened.
            run: Id of the run that it belongs to; a stream of a run names it by itself.
            facts: Everything else, as JSON can hold it.

        Raises:
            LedgerAccessError: The stream cannot be written.
        """
        draft = Draft(kind, run or (stream[len("runs/") :] if stream.startswith("runs/") else ""), facts)
        last = max(self._known.get(stream, {}), default=0)
        while True:
            # A number that is free above the last known one is the next: numbers are given without gaps.
            last = last or self._last(stream)
            if event := self._create(stream, last + 1, draft):
                return event
            last = 0

    def decide(self, stream: str, decision: Decision) -> Event | None:
        """Write the event that follows from those before it, as if nobody else wrote meanwhile.

        Args:
            stream: The stream.
            decision: Takes the events so far and returns what is to be written; None for nothing. Called
                again whenever another writer was quicker. What it raises ends this call, and nothing is
                written.

        Returns:
            The event; None where nothing was to be written.

        Raises:
            LedgerAccessError: The stream cannot be read or written.
        """
        while True:
            events = self.events(stream)
            draft = decision(events)
            if draft is None:
                return None
            if event := self._create(stream, max(self._known.get(stream, {}), default=0) + 1, draft):
                return event

    def events(self, stream: str) -> list[Event]:
        """Return the events of a stream, oldest first; none where it is new.

        Raises:
            LedgerAccessError: It cannot be read.
        """
        return self._read(stream, self._names(_folder(stream)))

    def all_events(self, kind: str) -> dict[str, list[Event]]:
        """Return the events of all streams of a kind: one recursive listing, and what is not known yet.

        For kinds of few events that are read again and again, such as `models`; for runs see `overview`.

        Raises:
            LedgerAccessError: They cannot be read.
        """
        self._names(kind)
        if not any(stream.startswith(f"{kind}/") for stream in self._known):
            indexed = self._indexed(kind)
            self._index_files = {}  # what was needed of them is known now
            for stream, events in indexed.items():
                self._known_of(stream).update({event.number: event for event in events})
        names: dict[str, list[str]] = {}
        for path in self.storage.paths(kind):
            folder, separator, name = path.partition("/")
            if separator and folder != EARLIER_ASIDE and not folder.startswith("."):
                names.setdefault(f"{kind}/{unquote(folder)}", []).append(name)
        return {stream: self._read(stream, found) for stream, found in sorted(names.items())}

    def overview(self, kind: str, containing: str = "") -> dict[str, list[Event]]:
        """Return the events of all streams of a kind but those of nodes and reports, with few requests.

        Reads the index, and the streams that were added to since; where those are many, they are added to the
        index, if it can be written.

        Args:
            kind: `runs`, `models` or `datasets`.
            containing: Only streams whose events contain this text.

        Raises:
            LedgerAccessError: The ledger cannot be read.
        """
        self._names(kind)
        marked = {mark.stream for mark in index.read_marks(self.storage)}  # before the index: none is missed
        found = self._indexed(kind, containing)
        behind = 0
        for stream in sorted(stream for stream in marked if stream.startswith(f"{kind}/")):
            events = [event for event in self.events(stream) if index.is_indexed(event)]
            if any(containing in json.dumps(event.as_json(), ensure_ascii=False) for event in events):
                behind += found.get(stream) != events
                found[stream] = events
        if behind > _STREAMS_BEHIND:
            with contextlib.suppress(Exception):  # such as a storage that may only be read
                self.compact()
        return dict(sorted(found.items()))

    def _indexed(self, kind: str, containing: str = "") -> dict[str, list[Event]]:
        with self._using_index:
            return index.read_index(self.storage, kind, containing, read=self._index_files)

    def compact(self) -> None:
        """Add what was written since to the index, so that `overview` takes few requests.

        To be called at the end of what wrote much, such as a run. Others may write and compact meanwhile.

        Raises:
            StoreAccessError: The ledger cannot be read or written.
        """
        with self._writing:
            now, marks = time.time(), index.read_marks(self.storage)
            streams = {}
            for stream in {mark.stream for mark in marks if _STREAM.fullmatch(mark.stream)}:
                with contextlib.suppress(LedgerAccessError):  # it is not held, and stays marked
                    streams[stream] = self.events(stream)
            if streams and index.write_index(self.storage, streams):
                mine = [mark for mark in marks if mark.is_needless(self._writer, now)]
                index.remove_marks(self.storage, [mark for mark in mine if mark.stream in streams])
                self._marked.clear()
            self._remove_litter()

    def _remove_litter(self) -> None:
        """Remove what killed writers left where files are written aside first."""
        for kind in self.storage.names("") if self.storage.local("") is not None else ():
            for folder in (f"{kind}/{ASIDE}", f"{kind}/{EARLIER_ASIDE}"):
                for name in self.storage.names(folder):
                    with contextlib.suppress(OSError):  # another one removes it, or its writer is done
                        if self.storage.age_s(f"{folder}/{name}") > _STALE_S:
                            (Path(self.url) / folder / name).unlink()

    def _read(self, stream: str, names: Sequence[str]) -> list[Event]:
        numbers = sorted(int(found[1]) for name in names if (found := _EVENT.fullmatch(name)))
        known = self._known_of(stream)
        packed = max((int(found[1]) for name in names if (found := _ALL.fullmatch(name))), default=0)
        if sum(number not in known for number in numbers if number <= packed) > 1:
            self._take_pack(stream, packed)
        missing = [number for number in numbers if number not in known]
        for number, data in zip(missing, self._contents(stream, missing), strict=True):
            event = Event.parsed(stream, number, data) if data is not None else None
            if event is None:
                _report_damage(f"{self.url}/{_path(stream, number)}")
            known[number] = event
        return [event for number in numbers if (event := known[number]) is not None]

    def streams(self, kind: str) -> list[str]:
        """Return the names of all streams of a kind (`models`, `runs`, `datasets`), sorted."""
        names = [name for name in self._names(kind) if name != EARLIER_ASIDE and not name.startswith(".")]
        return sorted(f"{kind}/{unquote(name)}" for name in names)

    def _known_of(self, stream: str) -> dict[int, Event | None]:
        if len(self._known) >= _STREAMS_IN_MEMORY and stream not in self._known:
            self._known.clear()
        return self._known.setdefault(stream, {})

    def _last(self, stream: str) -> int:
        """Return the highest number that is taken."""
        names = self._names(_folder(stream))
        return max((int(found[1]) for name in names if (found := _EVENT.fullmatch(name))), default=0)

    def _create(self, stream: str, number: int, draft: Draft) -> Event | None:
        """Write a draft as the event with a number; None where another one has it."""
        event, path = Event.of(stream, number, draft), _path(stream, number)
        if number > _LAST_NUMBER:
            taken = f"{self.url}/{_path(stream, _LAST_NUMBER)}"
            raise LedgerAccessError(taken, "no number is left after it: it is not one of this ledger's files")
        data = json.dumps(event.as_json()).encode()
        try:
            with self._writing:
                self._mark(stream)
                is_ours = self.storage.create(path, data) or self._is_ours(path, data)
                self._mark(stream)  # once more, where all that took long
        except (FileExistsError, NotADirectoryError, PermissionError, IsADirectoryError) as error:
            raise LedgerAccessError(f"{self.url}/{path}", error.strerror or str(error)) from error
        if not is_ours:
            return None
        event = Event.parsed(stream, number, data) or event  # as its readers see it
        self._known_of(stream)[number] = event
        if number % _EVENTS_PER_PACK == 0:
            self.pack(stream)
        return event

    def _mark(self, stream: str) -> None:
        now, key = time.monotonic(), (self._writer, stream)
        if now - self._marked.get(key, -math.inf) > index.MARK_EVERY_S:
            index.write_mark(self.storage, stream, self._writer)
            self._marked[key] = now

    @property
    def _writer(self) -> str:
        """What tells this writer from others, a copy of it in a forked process included."""
        return f"{self._id}-{os.getpid()}"

    def _is_ours(self, path: str, data: bytes) -> bool:
        """What was refused as taken is what this call wrote: its first answer was lost on the way."""
        try:
            return self.storage.read(path) == data
        except (OSError, CorruptStoreError):
            return False

    def pack(self, stream: str) -> None:
        """Write the events of a stream once more as one file, which saves its readers requests.

        Nothing depends on it: where it fails, the events are read one by one.
        """
        try:
            events = self.events(stream)
            last = max(event.number for event in events)
            held = {str(event.number): event.as_json() for event in events}
            self.storage.put(f"{_folder(stream)}/{last:08}.all.json", json.dumps(held).encode())
        except Exception as error:  # noqa: BLE001 - the event that was written before stays written
            log.info("%s: %s is not compacted: %s", self.url, stream, error)

    def _take_pack(self, stream: str, packed: int) -> None:
        path = f"{_folder(stream)}/{packed:08}.all.json"
        known = self._known_of(stream)
        try:
            found = json.loads(self.storage.read(path).decode("utf-8"))
            for number in range(1, packed + 1):
                event = Event.from_json(stream, number, found.get(str(number)))
                if event is not None:
                    known.setdefault(number, event)
        except (OSError, ValueError, RecursionError, AttributeError, CorruptStoreError):
            _report_damage(f"{self.url}/{path}")

    def _names(self, folder: str) -> Sequence[str]:
        """Return the names in a folder; none where there is none.

        Raises:
            LedgerAccessError: It cannot be listed, or is not a folder.
        """
        try:
            names = self.storage.names(folder)
        except OSError as error:
            raise LedgerAccessError(f"{self.url}/{folder}", error.strerror or str(error)) from error
        if not names and (place := self.storage.local(folder)) is not None:
            _check_is_folder(place)
        return names

    def _contents(self, stream: str, numbers: Sequence[int]) -> list[bytes | None]:
        """Return what the files of events hold; None for what is not a file."""
        paths = [_path(stream, number) for number in numbers]
        try:
            return list(self.storage.read_all(paths))
        except (OSError, CorruptStoreError):
            return [self._content(path) for path in paths]

    def _content(self, path: str) -> bytes | None:
        try:
            return self.storage.read(path)
        except PermissionError as error:
            raise LedgerAccessError(f"{self.url}/{path}", error.strerror or str(error)) from error
        except (OSError, CorruptStoreError):
            return None


def _folder(stream: str) -> str:
    """Return a stream's folder: any name, such as a run's id that another runner made, is one folder."""
    kind, _, name = stream.partition("/")
    quoted = quote(name, safe=" :+=@,")
    if quoted.startswith(".") or quoted == EARLIER_ASIDE:  # hidden, or where killed writers left files
        quoted = f"%{ord(quoted[0]):02X}{quoted[1:]}"
    return f"{kind}/{quoted}"


def _path(stream: str, number: int) -> str:
    return f"{_folder(stream)}/{number:08}.json"


def _check_is_folder(place: Path) -> None:
    for path in (place, *place.parents[:2]):  # the stream, its kind, the ledger itself
        if os.path.lexists(path) and not path.is_dir():
            raise LedgerAccessError(str(path), "it is not a folder")


@functools.lru_cache(maxsize=1024)  # a server reads the ledger each second: once is enough
def _report_damage(file: str) -> None:
    log.warning("%s is damaged and skipped: it does not hold an event", file)
