"""Reads the shards of a commit: every record's id and size, every checksum checked. Nothing is written."""

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.copies import Copies
from mlplatform.datasets.examples_folder import Shard, open_records
from mlplatform.datasets.format.hashing import Ids, check_payloads, record_ids
from mlplatform.datasets.format.tfrecord import FRAME_BYTES, Int64s, Window, read_windows
from mlplatform.machine import usable_threads
from mlplatform.progress import track

_WINDOWS_A_STEP = 16  # each step wakes the thread that shows the progress


@dataclass(frozen=True)
class ShardScan:
    """What a shard holds.

    Attributes:
        shard: The file.
        ids: Record ids, in file order.
        sizes: uint32, shape (records,): payload bytes.
        file_sha256: SHA-256 of the file where it is gzip-compressed, 32 zero bytes where it is plain.
    """

    shard: Shard
    ids: Ids
    sizes: npt.NDArray[np.uint32]
    file_sha256: bytes

    def offsets(self) -> Int64s:
        """Return where the records' frames begin in the uncompressed file: int64, shape (records,)."""
        frames = self.sizes.astype(np.int64) + FRAME_BYTES
        offsets: Int64s = np.cumsum(frames) - frames
        return offsets


def scan_shards(shards: Sequence[Shard], workers: int = 0, copies: Copies | None = None) -> list[ShardScan]:
    """Read shards side by side in threads, the largest first.

    Args:
        shards: The files.
        workers: Shards that are read at a time; 0 takes one per usable processor.
        copies: Where to copy them, while they are read.

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
                for step in scan_shard(shards[place], copies):
                    if is_over.is_set():
                        return
                    steps.put((place, step - before if isinstance(step, int) else step))
                    before = step if isinstance(step, int) else before
            except Exception as error:  # noqa: BLE001 - handed to the caller, which raises it
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


def scan_shard(shard: Shard, copies: Copies | None = None) -> Iterator[int | ShardScan]:
    """Read a shard; yields the records read so far, again and again, and its scan last.

    Raises:
        CorruptRecordsError: The file is damaged or cut short.
    """
    parts, sizes = [Ids.none()], [np.zeros(0, np.uint32)]
    records = 0
    with copies.of(shard) if copies else nullcontext() as copy, open_records(shard, copy) as stream:
        for number, window in enumerate(read_windows(stream, shard.path), 1):
            check_payloads(window, shard.path)
            parts.append(record_ids(window.buffer, window.starts, window.ends))
            sizes.append(window.sizes.astype(np.uint32))
            records += window.starts.size
            if number % _WINDOWS_A_STEP == 0:
                yield records
        yield records
        file_sha256 = stream.digest() if shard.is_gzip else bytes(32)
    yield ShardScan(shard, Ids.join(parts), np.concatenate(sizes), file_sha256)


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
