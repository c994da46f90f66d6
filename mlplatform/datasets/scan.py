"""Reads the shards of a commit: every record's id and size, every checksum checked. Nothing is written."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.canonical import canonical_window
from mlplatform.datasets.examples_folder import Shard, open_records
from mlplatform.datasets.hashing import Ids, check_payloads, record_ids
from mlplatform.datasets.known import KnownIds
from mlplatform.datasets.tfrecord import FRAME_BYTES, Int64s, Window, read_windows
from mlplatform.progress import track

_INLINE_BELOW_BYTES = 64 << 20  # less than this is read sooner than a worker has started


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


def scan_shard(shard: Shard, known: KnownIds | None = None) -> Iterator[int | ShardScan]:
    """Read a shard; yields the records read so far, again and again, and its scan last.

    Ids that `known` has spare the canonical form: an id of the store is the hash of a canonical form, so
    bytes that hash to it are canonical. Where most of a window is not known as it is, the following windows
    are brought into canonical form first.

    Raises:
        CorruptRecordsError: The file is damaged or cut short.
    """
    ids, sizes, records = [], [], 0
    is_raw_first = known is not None and len(known) > 0
    with open_records(shard) as stream:
        for window in read_windows(stream, shard.path):
            check_payloads(window, shard.path)
            if is_raw_first and known is not None:
                found, misses = _raw_first(window, known)
                is_raw_first = misses * 2 < window.starts.size
            else:
                found = _canonical_ids(window, window.starts, window.ends)
            ids.append(found)
            sizes.append(window.sizes.astype(np.uint32))
            records += window.starts.size
            yield records
        file_sha256 = stream.digest() if shard.is_gzip else bytes(32)
    yield ShardScan(
        shard, Ids.join(ids), np.concatenate(sizes) if sizes else np.zeros(0, np.uint32), file_sha256
    )


def scan_shards(shards: Sequence[Shard], known: KnownIds | None = None, workers: int = 0) -> list[ShardScan]:
    """Read all shards, in processes of their own where that is quicker.

    Args:
        shards: What to read.
        known: Ids that the dataset has.
        workers: Processes; 0 takes one per usable processor.

    Returns:
        One scan per shard, in the order given.

    Raises:
        CorruptRecordsError: A file is damaged or cut short.
    """
    from mlplatform.datasets.scan_workers import ScanWorkers

    processes = min(workers or len(os.sched_getaffinity(0)), len(shards))
    local_bytes = sum(shard.size for shard in shards if shard.is_local)
    is_shared = (
        processes > 1 and local_bytes >= _INLINE_BELOW_BYTES and all(shard.is_local for shard in shards)
    )
    with track("read records") as bar:
        if is_shared:
            with ScanWorkers(processes, known) as pool:
                return pool.scan(shards, bar.advance)
        scans = []
        for shard in shards:
            before = 0
            for step in scan_shard(shard, known):
                if isinstance(step, ShardScan):
                    scans.append(step)
                else:
                    bar.advance(step - before)
                    before = step
        return scans


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


def _raw_first(window: Window, known: KnownIds) -> tuple[Ids, int]:
    ids = record_ids(window.buffer, window.starts, window.ends)
    misses = np.flatnonzero(known.places(ids) < 0)
    if misses.size:
        starts, ends = window.starts, window.ends
        canonical = canonical_window(window.buffer, starts, ends, misses)
        if canonical is not window.buffer:
            found = record_ids(canonical, starts[misses], ends[misses])
            high, low = ids.high.copy(), ids.low.copy()
            high[misses], low[misses] = found.high, found.low
            ids = Ids(high, low)
    return ids, int(misses.size)


def _canonical_ids(window: Window, starts: Int64s, ends: Int64s) -> Ids:
    return record_ids(canonical_window(window.buffer, starts, ends), starts, ends)
