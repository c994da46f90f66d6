"""Writes the new packs of a commit: record file first, index after it."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mlplatform.datasets.copies import Copies
from mlplatform.datasets.errors import SourceChangedError
from mlplatform.datasets.examples_folder import Shard, open_file, stamp
from mlplatform.datasets.format.manifest import PackFacts
from mlplatform.datasets.format.pack import PackIndex, index_path, records_path
from mlplatform.datasets.format.tfrecord import FOOTER_BYTES, FRAME_BYTES, HEADER_BYTES, Int64s
from mlplatform.datasets.placement import NewPack, ShardPart
from mlplatform.datasets.scan import read_rows
from mlplatform.progress import Task, track
from mlplatform.storage import Storage, naming

_GZIP_LEVEL = 2  # of isal's 0 to 3: about zlib's level 1 in size, at ten times its speed
_WRITERS = 4
_READ_BYTES = 8 << 20  # of a run of neighbours, however long


def write_packs(
    storage: Storage, dataset: str, packs: Sequence[NewPack], copies: Copies | None = None
) -> list[PackFacts]:
    """Write packs, some at a time. What a failure leaves behind is not seen by anyone, and found by `gc`.

    Args:
        storage: The store.
        dataset: The dataset.
        packs: What to write.
        copies: Shards that were copied while they were read.

    Raises:
        SourceChangedError: A shard changed since it was scanned.
    """
    if not packs:
        return []
    total = sum(len(part.rows) for pack in packs for part in pack.parts)
    with track("write new records", total) as bar, ThreadPoolExecutor(_WRITERS) as writers:
        return list(writers.map(lambda pack: _write(storage, dataset, pack, copies, bar), packs))


def check_unchanged(shards: Iterable[Shard]) -> None:
    """Check that the shards are still the files that were scanned. Raises SourceChangedError."""
    for shard in shards:
        try:
            is_same = stamp(shard.path) == shard.stamp
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise SourceChangedError(shard.path)


def _write(storage: Storage, dataset: str, pack: NewPack, copies: Copies | None, bar: Task) -> PackFacts:
    first = pack.parts[0]
    copy = copies.take(first.shard) if copies and pack.is_whole else None
    partial = copy or storage.aside(dataset)
    try:
        with naming(partial):
            if pack.is_whole:
                if copy is None:
                    _copy(first.shard, partial)
                file_sha256 = first.file_sha256
                bar.advance(len(first.rows))
            else:
                file_sha256 = _write_frames(pack, partial, bar)
        check_unchanged([part.shard for part in pack.parts])
        return put_pack(storage, dataset, partial, PackIndex(pack.ids, pack.sizes, pack.is_gzip, file_sha256))
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


def _copy(shard: Shard, partial: Path) -> None:
    if shard.is_local:
        shutil.copyfile(shard.path, partial)
        return
    with open_file(shard.path) as source, open(partial, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _write_frames(pack: NewPack, partial: Path, bar: Task) -> bytes:
    """Write chosen frames; returns the SHA-256 of a gzip file, 32 zero bytes for a plain one."""
    pieces = (piece for part in pack.parts for piece in _frames(part, bar))
    if pack.is_gzip:
        return write_gzip(pieces, partial)
    with open(partial, "wb") as file:
        file.writelines(pieces)
    return bytes(32)


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


def _frames(part: ShardPart, bar: Task) -> Iterator[bytes | memoryview]:
    """Yield the frames of some rows of a shard, neighbours together."""
    if part.shard.is_gzip or not part.shard.is_local:
        for window, chosen in read_rows(part.shard, part.rows):
            begins = window.starts[chosen] - HEADER_BYTES
            ends = window.ends[chosen] + FOOTER_BYTES
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                yield window.buffer.data[begin:end]
            bar.advance(chosen.size)
        return
    ends = part.offsets + part.sizes + FRAME_BYTES
    is_apart = part.offsets[1:] != ends[:-1]
    begins, behind = part.offsets[np.append(True, is_apart)], ends[np.append(is_apart, True)]
    with naming(part.shard.path), open(part.shard.path, "rb") as file:
        number = file.fileno()
        for begin, end in zip(begins.tolist(), behind.tolist(), strict=True):
            for at in range(begin, end, _READ_BYTES):
                yield os.pread(number, min(_READ_BYTES, end - at), at)
    bar.advance(ends.size)


def runs(rows: Int64s) -> Iterator[tuple[int, int]]:
    """Yield the runs of neighbours in ascending rows, as (first, behind the last)."""
    if rows.size:
        breaks = np.flatnonzero(np.diff(rows) != 1)
        begins = rows[np.append(0, breaks + 1)]
        ends = rows[np.append(breaks, rows.size - 1)] + 1
        yield from zip(begins.tolist(), ends.tolist(), strict=True)
