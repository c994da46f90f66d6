"""Writes the new packs of a commit: record file first, index after it."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mlplatform.datasets.errors import SourceChangedError
from mlplatform.datasets.examples_folder import stamp
from mlplatform.datasets.manifest import PackFacts
from mlplatform.datasets.pack import PackIndex, index_path, records_path
from mlplatform.datasets.placement import NewPack
from mlplatform.datasets.scan import ShardScan, read_rows
from mlplatform.datasets.storage import Storage
from mlplatform.datasets.tfrecord import FOOTER_BYTES, FRAME_BYTES, HEADER_BYTES, Int64s
from mlplatform.progress import track

_GZIP_LEVEL = 2  # of isal's 0 to 3: about zlib's level 1 in size, at ten times its speed
_WRITERS = 4


def write_packs(storage: Storage, dataset: str, packs: Sequence[NewPack]) -> list[PackFacts]:
    """Write packs, some at a time. What a failure leaves behind is not seen by anyone, and found by `gc`.

    Raises:
        SourceChangedError: A shard changed since it was scanned.
    """
    if not packs:
        return []
    with track("write new packs", len(packs), "packs") as bar, ThreadPoolExecutor(_WRITERS) as writers:
        facts = []
        for fact in writers.map(lambda pack: _write(storage, dataset, pack), packs):
            facts.append(fact)
            bar.advance()
        return facts


def check_unchanged(scans: Sequence[ShardScan]) -> None:
    """Check that the shards are still the files that were scanned. Raises SourceChangedError."""
    for scan in scans:
        try:
            is_same = stamp(scan.shard.path) == scan.shard.stamp
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise SourceChangedError(scan.shard.path)


def _write(storage: Storage, dataset: str, pack: NewPack) -> PackFacts:
    partial = storage.aside(dataset)
    try:
        if pack.is_whole:
            file_sha256 = pack.parts[0][0].file_sha256
            _copy(pack.parts[0][0], partial)
        else:
            file_sha256 = _write_frames(pack, partial)
        check_unchanged([scan for scan, _ in pack.parts])
        index = PackIndex(pack.ids, pack.sizes, pack.is_gzip, file_sha256)
        return put_pack(storage, dataset, partial, index)
    finally:
        partial.unlink(missing_ok=True)


def put_pack(storage: Storage, dataset: str, partial: Path, index: PackIndex) -> PackFacts:
    """Move a finished record file into the store and write its index."""
    data = index.to_bytes()
    facts = PackFacts(
        index.name, len(index.ids), partial.stat().st_size, index.is_gzip, hashlib.sha256(data).hexdigest()
    )
    partial.chmod(0o444)
    storage.put_file(records_path(dataset, facts), partial)
    storage.put(index_path(dataset, facts.name), data)
    return facts


def _copy(scan: ShardScan, partial: Path) -> None:
    if scan.shard.is_local:
        shutil.copyfile(scan.shard.path, partial)
        return
    import fsspec

    with fsspec.open(scan.shard.path, "rb") as source, open(partial, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _write_frames(pack: NewPack, partial: Path) -> bytes:
    """Write chosen frames; returns the SHA-256 of a gzip file, 32 zero bytes for a plain one."""
    if not pack.is_gzip:
        with open(partial, "wb") as file:
            for scan, rows in pack.parts:
                for piece in _frames(scan, rows):
                    file.write(piece)
        return bytes(32)
    return write_gzip((piece for scan, rows in pack.parts for piece in _frames(scan, rows)), partial)


def write_gzip(pieces: Iterator[bytes | memoryview], partial: Path) -> bytes:
    """Write a gzip file, the same bytes for the same pieces; return its SHA-256."""
    from isal import igzip

    with open(partial, "wb") as raw, igzip.IGzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as file:
        for piece in pieces:
            file.write(piece)
    digest = hashlib.sha256()
    with open(partial, "rb") as written:
        while data := written.read(1 << 20):
            digest.update(data)
    return digest.digest()


def _frames(scan: ShardScan, rows: Int64s) -> Iterator[bytes | memoryview]:
    """Yield the frames of some rows of a shard, neighbours together."""
    if scan.shard.is_gzip or not scan.shard.is_local:
        for window, chosen in read_rows(scan.shard, rows):
            begins = window.starts[chosen] - HEADER_BYTES
            ends = window.ends[chosen] + FOOTER_BYTES
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                yield window.buffer.data[begin:end]
        return
    bounds = np.zeros(scan.sizes.size + 1, np.int64)
    np.cumsum(scan.sizes.astype(np.int64) + FRAME_BYTES, out=bounds[1:])
    with open(scan.shard.path, "rb") as file:
        for begin, end in runs(rows):
            yield os.pread(file.fileno(), int(bounds[end] - bounds[begin]), int(bounds[begin]))


def runs(rows: Int64s) -> Iterator[tuple[int, int]]:
    """Yield the runs of neighbours in ascending rows, as (first, behind the last)."""
    if rows.size:
        breaks = np.flatnonzero(np.diff(rows) != 1)
        begins = rows[np.append(0, breaks + 1)]
        ends = rows[np.append(breaks, rows.size - 1)] + 1
        yield from zip(begins.tolist(), ends.tolist(), strict=True)
