"""The canonical form of a record: what its identity is taken from.

A plain tf.Example (see `walk`) with distinct keys: its map entries, unchanged, in the order of their keys'
bytes. Any other record: its bytes as they are. The form has the same size as the record, so frames keep their
places.
"""

import numpy as np

from mlplatform.datasets.format.tfrecord import Bytes, Int64s
from mlplatform.datasets.format.walk import LANES, Bools, Walk, is_before, walk


def canonical_window(buffer: Bytes, starts: Int64s, ends: Int64s) -> Bytes:
    """Return a buffer in which every record has its canonical form, at the same place.

    The C library does the same, record by record as it hashes them.

    Args:
        buffer: uint8; whole frames that follow each other, with `SLACK_BYTES` behind them; not modified.
        starts: int64, shape (records,): where payloads begin.
        ends: int64, shape (records,): where they end.

    Returns:
        `buffer` itself where all records are canonical already, else a new one. Payload checksums are those
        of the records as they came.
    """
    result = buffer
    for lane in range(0, starts.size, LANES):
        first, last = starts[lane : lane + LANES], ends[lane : lane + LANES]
        unsorted = np.flatnonzero(_is_unsorted(walk(buffer, first, last)))
        if unsorted.size and result is buffer:
            result = buffer.copy()
        for start, end in zip(first[unsorted].tolist(), last[unsorted].tolist(), strict=True):
            result[start:end] = np.frombuffer(canonical_record(buffer[start:end].tobytes()), np.uint8)
    return result


def _is_unsorted(walked: Walk) -> Bools:
    """Return which records are plain and have keys out of order (or twice)."""
    is_sorted = np.ones(walked.is_plain.size, np.bool_)
    for left, right in zip(walked.entries, walked.entries[1:]):  # noqa: B905 - pairs of neighbours
        is_sorted &= ~right.is_there | is_before(left, right)
    return walked.is_plain & ~is_sorted


def canonical_record(record: bytes) -> bytes:
    """Return the canonical form of one record; the same function as `canonical_window`."""
    entries = _entries(record)
    if entries is None or len({key for key, _ in entries}) < len(entries):
        return record
    entries.sort()
    head = len(record) - sum(len(entry) for _, entry in entries)
    return record[:head] + b"".join(entry for _, entry in entries)


def _entries(record: bytes) -> list[tuple[bytes, bytes]] | None:
    """Return the keys and map entries of a plain tf.Example, None where the record is none."""
    entries: list[tuple[bytes, bytes]] = []
    at, end = _field(record, 0, 0x0A)
    if not record or end != len(record):
        return None
    while at < len(record):
        key, behind = _field(record, at, 0x0A)
        value, value_end = -1, -1
        if 0 <= behind <= len(record) and key < behind and record[key] == 0x0A:
            value = key + 2 + record[key + 1] if key + 1 < behind and record[key + 1] < 128 else -1
        if 0 <= value < behind:
            _, value_end = _field(record, value, 0x12)
        if value_end != behind or behind < 0:
            return None
        entries.append((record[key + 2 : value], record[at:behind]))
        at = behind
    return entries


def _field(data: bytes, at: int, tag: int) -> tuple[int, int]:
    """Return where a length-delimited field's content begins and ends, (-1, -1) where it is none."""
    if at >= len(data) or data[at] != tag:
        return -1, -1
    size = 0
    for place, byte in enumerate(data[at + 1 : at + 6]):
        size |= (byte & 127) << 7 * place
        if byte < 128:
            begin = at + 2 + place
            return begin, begin + size
    return -1, -1
