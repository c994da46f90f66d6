"""The canonical form of a record: what its identity is taken from.

A plain tf.Example (see `walk`) with distinct keys: its map entries, unchanged, in the order of their keys'
bytes. Any other record: its bytes as they are. The form has the same size as the record, so frames keep their
places.
"""

import numpy as np
import numpy.typing as npt

from mlplatform.datasets import native
from mlplatform.datasets.tfrecord import FOOTER_BYTES, HEADER_BYTES, SLACK_BYTES, Bytes, Int64s, UInt64s
from mlplatform.datasets.walk import LANES, Bools, MapEntry, Walk, is_before, walk

_SLOT_BITS = 12
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def canonical_window(buffer: Bytes, starts: Int64s, ends: Int64s, chosen: Int64s | None = None) -> Bytes:
    """Return a buffer in which every (chosen) record has its canonical form, at the same place.

    Args:
        buffer: uint8; whole frames that follow each other, with `SLACK_BYTES` behind them; not modified.
        starts: int64, shape (records,): where payloads begin.
        ends: int64, shape (records,): where they end.
        chosen: int64, ascending: the records that matter; all where None. Others may or may not be changed.

    Returns:
        `buffer` itself where all records are canonical already, else a new one. Payload checksums are those
        of the records as they came.
    """
    if native.is_built():
        return native.canonical_window(
            buffer, *((starts, ends) if chosen is None else (starts[chosen], ends[chosen]))
        )
    if chosen is not None and chosen.size * 8 < starts.size:
        return _each(buffer, starts, ends, chosen)
    result = buffer
    for lane in range(0, starts.size, LANES):
        first, last = starts[lane : lane + LANES], ends[lane : lane + LANES]
        walked = walk(buffer, first, last)
        unsorted = np.flatnonzero(_is_unsorted(walked))
        if not unsorted.size:
            continue
        if result is buffer:
            result = buffer.copy()
        low, high = int(first[0]) - HEADER_BYTES, int(last[-1]) + FOOTER_BYTES
        ranks = _ranks(walked)
        if ranks is None:  # too many different keys to rank side by side
            _replace(result, buffer, first[unsorted], last[unsorted])
        else:
            result[low:high] = _reordered(buffer, first, last, walked, ranks)
    return result


def _each(buffer: Bytes, starts: Int64s, ends: Int64s, chosen: Int64s) -> Bytes:
    """Bring a few records that lie apart into canonical form."""
    starts, ends = starts[chosen], ends[chosen]
    unsorted = np.flatnonzero(_is_unsorted(walk(buffer, starts, ends)))
    if not unsorted.size:
        return buffer
    result = buffer.copy()
    _replace(result, buffer, starts[unsorted], ends[unsorted])
    return result


def _is_unsorted(walked: Walk) -> Bools:
    """Return which records are plain and have keys out of order (or twice)."""
    is_sorted = np.ones(walked.is_plain.size, np.bool_)
    for left, right in zip(walked.entries, walked.entries[1:]):  # noqa: B905 - pairs of neighbours
        is_sorted &= ~right.is_there | is_before(left, right)
    return walked.is_plain & ~is_sorted


def _replace(result: Bytes, buffer: Bytes, starts: Int64s, ends: Int64s) -> None:
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        result[start:end] = np.frombuffer(canonical_record(buffer[start:end].tobytes()), np.uint8)


def canonical_record(record: bytes) -> bytes:
    """Return the canonical form of one record; the same function as `canonical_window`.

    Used where few records are unsorted.
    """
    if not record:
        return record
    padded = np.zeros(len(record) + SLACK_BYTES, np.uint8)
    padded[: len(record)] = np.frombuffer(record, np.uint8)
    walked = walk(padded, np.zeros(1, np.int64), np.full(1, len(record), np.int64))
    if not walked.is_plain[0]:
        return record
    bounds = [int(entry.start[0]) for entry in walked.entries] + [len(record)]
    keyed = []
    for entry, start, end in zip(walked.entries, bounds[:-1], bounds[1:], strict=True):
        keyed.append((entry.keys(np.zeros(1, np.int64))[0], record[start:end]))
    if len({key for key, _ in keyed}) < len(keyed):
        return record
    return record[: bounds[0]] + b"".join(entry for _, entry in sorted(keyed))


def _ranks(walked: Walk) -> npt.NDArray[np.uint16] | None:
    """Rank the keys by their bytes: uint16, shape (records, entries), missing entries last.

    Returns None where the keys are too many or do not spread over the table.
    """
    words = max(len(entry.key_words) for entry in walked.entries)
    is_there = np.stack([entry.is_there for entry in walked.entries], axis=1)
    keys = [
        np.stack([_column(entry, index) for entry in walked.entries], axis=1)[is_there]
        for index in range(words)
    ]
    sizes = np.stack([entry.key_size for entry in walked.entries], axis=1)[is_there].astype(np.uint64)
    for multiplier in _MULTIPLIERS:
        mixed = sizes
        for key in keys:
            mixed = (mixed ^ key) * np.uint64(multiplier)
            mixed ^= mixed >> np.uint64(29)
        slots = ((mixed * np.uint64(multiplier)) >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
        holder = np.full(1 << _SLOT_BITS, -1, np.int64)
        holder[slots] = np.arange(slots.size)
        shown = holder[slots]
        if np.array_equal(sizes[shown], sizes) and all(np.array_equal(key[shown], key) for key in keys):
            break
    else:
        return None
    used = np.flatnonzero(holder >= 0)
    named = holder[used]
    order = np.lexsort((sizes[named], *(key[named] for key in reversed(keys))))
    rank = np.zeros(1 << _SLOT_BITS, np.uint16)
    rank[used[order]] = np.arange(used.size, dtype=np.uint16)
    ranks = np.full(is_there.shape, 1 << _SLOT_BITS, np.uint16)
    ranks[is_there] = rank[slots]
    return ranks


def _column(entry: MapEntry, index: int) -> UInt64s:
    if index < len(entry.key_words):
        return entry.key_words[index]
    return np.zeros(entry.key_size.size, np.uint64)


def _reordered(
    buffer: Bytes, starts: Int64s, ends: Int64s, walked: Walk, ranks: npt.NDArray[np.uint16]
) -> Bytes:
    """Return the frames of these records with their entries in the order of `ranks`."""
    from mlplatform.arrow import pa

    count = ranks.shape[1]
    # Sorted with their places in the low bits: much quicker than asking for the places.
    ranked = np.sort(ranks.astype(np.int64) * count + np.arange(count), axis=1)
    in_order, order = np.divmod(ranked, count)
    repeats = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] < 1 << _SLOT_BITS)
    stays = ~walked.is_plain | repeats.any(axis=1)
    order[stays] = np.arange(order.shape[1])

    # Pieces of a record: what comes before its entries, the entries, the payload's checksum.
    count = order.shape[1] + 2
    pieces = np.empty((starts.size, count), np.int64)
    pieces[:, 0] = starts - HEADER_BYTES
    pieces[:, 1:-1] = np.stack([entry.start for entry in walked.entries], axis=1)
    pieces[:, -1] = ends
    pieces[~walked.is_plain, 1:-1] = ends[~walked.is_plain, None]
    offsets = np.append(pieces.ravel(), ends[-1] + FOOTER_BYTES)
    places = np.empty((starts.size, count), np.int64)
    places[:, 0] = 0
    places[:, 1:-1] = order + 1
    places[:, -1] = count - 1
    places += (np.arange(starts.size) * count)[:, None]
    array = pa.Array.from_buffers(
        pa.large_binary(), offsets.size - 1, [None, pa.py_buffer(offsets), pa.py_buffer(buffer)]
    )
    taken = array.take(pa.array(places.ravel()))
    _, ends_buffer, data = taken.buffers()
    begin = int(np.frombuffer(ends_buffer, np.int64)[taken.offset])
    return np.frombuffer(data, np.uint8)[begin : begin + int(offsets[-1] - offsets[0])]
