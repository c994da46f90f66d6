"""Reads the shards of a commit: every record's id and size, every checksum checked. Nothing is written."""

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.examples_folder import Shard, open_records
from mlplatform.datasets.format.canonical import canonical_window
from mlplatform.datasets.format.hashing import Ids, check_payloads, record_ids
from mlplatform.datasets.format.known import KnownIds
from mlplatform.datasets.format.tfrecord import FRAME_BYTES, Bytes, Int64s, Window, read_windows
from mlplatform.machine import usable_threads
from mlplatform.progress import track

_PROBED = 256  # records of a window


@dataclass(frozen=True)
class ShardScan:
    """What a shard holds.

    Attributes:
        shard: The file.
        ids: Record ids, in file order.
        sizes: uint32, shape (records,): payload bytes.
        places: int64, shape (records,): each record's place in the known ids, -1 where it is not known.
        file_sha256: SHA-256 of the file where it is gzip-compressed, 32 zero bytes where it is plain.
    """

    shard: Shard
    ids: Ids
    sizes: npt.NDArray[np.uint32]
    places: Int64s
    file_sha256: bytes

    def offsets(self) -> Int64s:
        """Return where the records' frames begin in the uncompressed file: int64, shape (records,)."""
        frames = self.sizes.astype(np.int64) + FRAME_BYTES
        offsets: Int64s = np.cumsum(frames) - frames
        return offsets


def scan_shards(shards: Sequence[Shard], known: KnownIds, workers: int = 0) -> list[ShardScan]:
    """Read shards side by side in threads, the largest first.

    Args:
        shards: The files.
        known: Ids that the dataset has.
        workers: Shards that are read at a time; 0 takes one per usable processor.

    Returns:
        One scan per shard, in their order.

    Raises:
        CorruptRecordsError: A file is damaged or cut short.
    """
    waiting = deque(sorted(range(len(shards)), key=lambda place: -shards[place].size))
    steps: queue.SimpleQueue[tuple[int, int | ShardScan | Exception]] = queue.SimpleQueue()
    is_over = threading.Event()

    def scan() -> None:
        while not is_over.is_set():
            try:
                place = waiting.popleft()
            except IndexError:
                return
            before = 0
            try:
                for step in scan_shard(shards[place], known):
                    if is_over.is_set():
                        return
                    steps.put((place, step - before if isinstance(step, int) else step))
                    before = step if isinstance(step, int) else before
            except Exception as error:  # noqa: BLE001 - told to the caller, which raises it
                steps.put((place, error))
                return

    scans: dict[int, ShardScan] = {}
    with track("read records") as bar:
        for _ in range(min(workers or usable_threads(), len(shards))):
            threading.Thread(target=scan, daemon=True).start()  # a read that hangs holds up no Ctrl-C
        try:
            while len(scans) < len(shards):
                place, step = steps.get()
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, ShardScan):
                    scans[place] = step
                else:
                    bar.advance(step)
        finally:
            is_over.set()  # where one failed, the others stop
    return [scans[place] for place in range(len(shards))]


def scan_shard(shard: Shard, known: KnownIds) -> Iterator[int | ShardScan]:
    """Read a shard; yields the records read so far, again and again, and its scan last.

    Ids that `known` has spare the canonical form: an id of the store is the hash of a canonical form, so
    bytes that hash to it are canonical. Where most of the first records of a window are not known as they
    are, the whole window is brought into canonical form first.

    Raises:
        CorruptRecordsError: The file is damaged or cut short.
    """
    parts, places, sizes = [Ids.none()], [np.zeros(0, np.int64)], [np.zeros(0, np.uint32)]
    records = 0
    with open_records(shard) as stream:
        for window in read_windows(stream, shard.path):
            check_payloads(window, shard.path)
            ids, found = _ids(window, known)
            parts.append(ids)
            places.append(found)
            sizes.append(window.sizes.astype(np.uint32))
            records += window.starts.size
            yield records
        file_sha256 = stream.digest() if shard.is_gzip else bytes(32)
    yield ShardScan(shard, Ids.join(parts), np.concatenate(sizes), np.concatenate(places), file_sha256)


def read_rows(shard: Shard, rows: Int64s) -> Iterator[tuple[Window, Int64s]]:
    """Read a shard again, for some of its records: yields windows, each with the chosen records in it.

    Args:
        shard: The file.
        rows: int64, ascending positions in the file.
    """
    before = 0
    with open_records(shard) as stream:
        for window in read_windows(stream, shard.path):
            first, last = np.searchsorted(rows, (before, before + window.starts.size))
            if last > first:
                yield window, rows[first:last] - before
            before += window.starts.size


def _ids(window: Window, known: KnownIds) -> tuple[Ids, Int64s]:
    """Return the records' ids and their places in the known ones."""
    buffer, starts, ends = window.buffer, window.starts, window.ends
    if not _are_known(known, buffer, starts[:_PROBED], ends[:_PROBED]):
        ids = record_ids(canonical_window(buffer, starts, ends), starts, ends)
        return ids, known.places(ids)
    ids = record_ids(buffer, starts, ends)
    places = known.places(ids)
    misses = np.flatnonzero(places < 0)
    if misses.size:
        canonical = canonical_window(buffer, starts, ends, misses)
        if canonical is not buffer:
            found = record_ids(canonical, starts[misses], ends[misses])
            ids.high[misses], ids.low[misses] = found.high, found.low
            places[misses] = known.places(found)
    return ids, places


def _are_known(known: KnownIds, buffer: Bytes, starts: Int64s, ends: Int64s) -> bool:
    """Return whether most of these records are known as they are."""
    if not len(known):
        return False
    return np.count_nonzero(known.places(record_ids(buffer, starts, ends)) >= 0) * 2 > starts.size
