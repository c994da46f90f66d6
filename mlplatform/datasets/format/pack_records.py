"""Reads records out of packs: all of them, a window at a time, or chosen ones."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlplatform.datasets.errors import CorruptRecordsError
from mlplatform.datasets.examples_folder import uncompressed
from mlplatform.datasets.format.manifest import PackFacts
from mlplatform.datasets.format.pack import read_index, records_path
from mlplatform.datasets.format.tfrecord import (
    FOOTER_BYTES,
    FRAME_BYTES,
    HEADER_BYTES,
    SLACK_BYTES,
    Bytes,
    Int64s,
    Window,
)
from mlplatform.datasets.write_packs import runs
from mlplatform.storage import Storage
from mlplatform.storage.errors import CorruptStoreError

_WINDOW_BYTES = 16 << 20  # of one request, where the store is remote
_BATCH_BYTES = 64 << 20
_GAP_BYTES = 64 << 10  # over a network, reading a gap of this size costs less than another request


@dataclass(frozen=True)
class Batch:
    """Some records of a pack.

    Attributes:
        rows: int64, their places in the pack, ascending.
        buffer: uint8, their payloads, with `SLACK_BYTES` behind the last.
        starts, ends: int64, where each payload lies in `buffer`.
    """

    rows: Int64s
    buffer: Bytes
    starts: Int64s
    ends: Int64s

    def payloads(self) -> list[bytes]:
        """Return the payloads."""
        data = self.buffer.data
        return [bytes(data[a:b]) for a, b in zip(self.starts.tolist(), self.ends.tolist(), strict=True)]


def check_size(storage: Storage, dataset: str, pack: PackFacts) -> None:
    """Check that a pack's record file has the size that was written; not for a gzip file that records were
    erased from, which has another.

    Raises:
        CorruptStoreError: It is missing, cut short or too long.
    """
    path = records_path(dataset, pack)
    try:
        size = storage.size(path)
    except FileNotFoundError as error:
        raise CorruptStoreError(f"{storage.url}/{path}", "it is missing") from error
    if size != pack.stored_bytes:
        problem = f"it has {size:,} bytes, not the {pack.stored_bytes:,} that were written"
        raise CorruptStoreError(f"{storage.url}/{path}", problem)


def pack_windows(storage: Storage, dataset: str, pack: PackFacts) -> Iterator[Window]:
    """Read all records of a pack, from where its index says that they are.

    Raises:
        CorruptStoreError: A file is missing, or has not the size of its records. Checksums are for `verify`.
    """
    if not pack.is_gzip:
        check_size(storage, dataset, pack)
    bounds = read_index(storage, dataset, pack).frames()
    path = records_path(dataset, pack)
    name = f"{storage.url}/{path}"
    buffer = np.zeros(SLACK_BYTES, np.uint8)
    try:
        with storage.open(path) as file, uncompressed(file, pack.is_gzip, name) as stream:
            for first, last in cut(bounds):
                frames = bounds[first:last] - bounds[first]
                size = int(bounds[last] - bounds[first])
                if buffer.size < size + SLACK_BYTES:
                    buffer = np.zeros(size + SLACK_BYTES, np.uint8)
                filled = 0
                while filled < size and (got := stream.readinto(buffer.data[filled:size])):
                    filled += got
                if filled < size:
                    raise CorruptStoreError(name, "it ends before its records do")
                sizes = np.diff(bounds[first : last + 1]) - FRAME_BYTES
                yield Window(buffer, frames + HEADER_BYTES, sizes, int(bounds[first]))
            if stream.readinto(bytearray(1)):
                raise CorruptStoreError(name, "it goes on after its records")
    except FileNotFoundError as error:
        raise CorruptStoreError(name, "it is missing") from error
    except CorruptRecordsError as error:
        raise CorruptStoreError(name, error.problem) from error


def cut(bounds: Int64s) -> Iterator[tuple[int, int]]:
    """Yield the first record and the one behind the last of windows of about `_WINDOW_BYTES`."""
    first = 0
    while first < bounds.size - 1:
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + _WINDOW_BYTES, "right")) - 1)
        yield first, last
        first = last


def read_batches(storage: Storage, dataset: str, pack: PackFacts, rows: Int64s) -> Iterator[Batch]:
    """Read chosen records of a pack, about 64 MiB at a time.

    Args:
        storage: The store's files.
        dataset: The dataset's name.
        pack: The pack.
        rows: int64, ascending places in the pack.

    Raises:
        CorruptStoreError: The file is missing, or has not the size of its records.
    """
    if not rows.size:
        return
    if pack.is_gzip or rows.size == pack.records:
        before = 0
        for window in pack_windows(storage, dataset, pack):
            first, last = np.searchsorted(rows, (before, before + window.starts.size))
            if last > first:
                chosen = rows[first:last] - before
                yield Batch(rows[first:last], window.buffer, window.starts[chosen], window.ends[chosen])
            before += window.starts.size
        return
    check_size(storage, dataset, pack)
    bounds = read_index(storage, dataset, pack).frames()
    filled = np.cumsum(bounds[rows + 1] - bounds[rows])
    begin = 0
    while begin < rows.size:
        done = filled[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(filled, done + _BATCH_BYTES, "right")))
        yield _read(storage, records_path(dataset, pack), rows[begin:end], bounds)
        begin = end


def _read(storage: Storage, path: str, rows: Int64s, bounds: Int64s) -> Batch:
    spans = [(int(bounds[first]), int(bounds[behind])) for first, behind in runs(rows)]
    local = storage.local(path)
    if local is not None:
        with open(local, "rb") as file:
            pieces = [os.pread(file.fileno(), end - begin, begin) for begin, end in spans]
    else:
        pieces = _read_remote(storage, path, spans)
    data = b"".join(pieces)
    buffer = np.zeros(len(data) + SLACK_BYTES, np.uint8)
    buffer[: len(data)] = np.frombuffer(data, np.uint8)
    sizes = bounds[rows + 1] - bounds[rows] - FRAME_BYTES
    ends = np.cumsum(sizes + FRAME_BYTES) - FOOTER_BYTES
    return Batch(rows, buffer, ends - sizes, ends)


def _read_remote(storage: Storage, path: str, spans: list[tuple[int, int]]) -> list[bytes]:
    """Read spans with few requests: neighbours with small gaps come together."""
    pieces: list[bytes] = []
    group: list[tuple[int, int]] = []
    for span in [*spans, (1 << 62, 1 << 62)]:
        if group and span[0] - group[-1][1] > _GAP_BYTES:
            low = group[0][0]
            data = storage.read(path, low, group[-1][1])
            pieces += [data[begin - low : end - low] for begin, end in group]
            group = []
        group.append(span)
    return pieces
