"""The features of many tf.Examples as columns, decoded side by side."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplatform.datasets.format.features import decode
from mlplatform.datasets.format.tfrecord import Bytes, Int64s, word64
from mlplatform.datasets.format.walk import LANES, Bools, has_key, walk
from mlplatform.datasets.format.walk import _varint as varints

if TYPE_CHECKING:
    from mlplatform.arrow import pa

_KINDS = {0x0A: "bytes", 0x12: "float32", 0x1A: "int64"}  # by the tag of a Feature's one field


@dataclass(frozen=True)
class FeatureValues:
    """The values of one kind of a feature.

    Attributes:
        records: int64: the records that have them, ascending.
        lists: Each record's values.
    """

    records: Int64s
    lists: "pa.ListArray"


@dataclass(frozen=True)
class Column:
    """A feature of some records.

    Attributes:
        parts: The values by kind: `bytes`, `float32`, `int64`; kinds that no record has are left out.
        is_empty: bool, shape (records,): the record has the feature, with no value of any kind.
    """

    parts: dict[str, FeatureValues]
    is_empty: Bools

    def array(self, kind: "pa.DataType") -> "pa.Array":
        """Return the column as an Arrow array of a type that all its values fit; null where it is missing."""
        from mlplatform.arrow import pa

        is_list = pa.types.is_list(kind)
        empty = np.flatnonzero(self.is_empty)
        pieces = [pa.array([[]] * empty.size if is_list else [], kind)]
        places = [empty]
        for part in self.parts.values():
            lists = part.lists.cast(kind) if is_list else part.lists.values.cast(kind)
            pieces.append(lists)
            places.append(part.records)
        index = np.full(self.is_empty.size, -1, np.int64)
        index[np.concatenate(places)] = np.arange(sum(place.size for place in places))
        return pa.concat_arrays(pieces).take(pa.array(index, mask=index < 0))


def columns(buffer: Bytes, starts: Int64s, ends: Int64s) -> tuple[dict[str, Column], Bools]:
    """Decode all features of some records.

    Args:
        buffer: uint8 with slack behind the last record.
        starts, ends: int64, shape (records,): where the records lie.

    Returns:
        The columns by name, and bool, shape (records,): the record is a plain tf.Example; others have no
        features here.
    """
    spans: dict[bytes, tuple[Int64s, Int64s]] = {}
    is_plain = np.zeros(starts.size, np.bool_)
    for lane in range(0, starts.size, LANES):
        walked = walk(buffer, starts[lane : lane + LANES], ends[lane : lane + LANES])
        is_plain[lane : lane + LANES] = walked.is_plain
        for entry in walked.entries:
            rest = entry.is_there & walked.is_plain
            while rest.any():
                key = entry.keys(np.flatnonzero(rest)[:1])[0]
                if key not in spans:
                    spans[key] = np.zeros(starts.size, np.int64), np.full(starts.size, -1, np.int64)
                is_it = has_key(entry, key) & rest
                spans[key][0][lane : lane + LANES][is_it] = entry.value[is_it]
                spans[key][1][lane : lane + LANES][is_it] = entry.value_size[is_it]
                rest &= ~is_it
    found = {
        key.decode("utf-8", "backslashreplace"): _column(buffer, begins, sizes)
        for key, (begins, sizes) in spans.items()
    }
    return found, is_plain


def _column(buffer: Bytes, begins: Int64s, sizes: Int64s) -> Column:
    from mlplatform.arrow import pa

    tags = np.where(sizes > 0, buffer[begins], 0)
    is_known = np.isin(tags, list(_KINDS))
    starts, ends = _only_field(buffer, begins, sizes)
    is_quick = is_known & (starts >= 0)
    is_quick &= (tags != 0x12) | ((ends - starts) % 4 == 0)
    is_quick &= (tags != 0x1A) | (ends == starts) | (buffer[np.maximum(ends - 1, 0)] < 0x80)
    parts = {}
    for tag, kind in _KINDS.items():
        quick = np.flatnonzero(is_quick & (tags == tag))
        slow = np.flatnonzero(is_known & ~is_quick & (tags == tag))
        if not quick.size and not slow.size:
            continue
        lists = _lists(kind, buffer, starts[quick], ends[quick])
        records = quick
        if slow.size:
            data = buffer.data
            spans = zip(begins[slow].tolist(), sizes[slow].tolist(), strict=True)
            values = [decode(bytes(data[begin : begin + size])) for begin, size in spans]
            lists = pa.concat_arrays([lists, pa.array(values, lists.type)])
            records = np.concatenate([quick, slow])
            order = np.argsort(records)
            lists, records = lists.take(pa.array(order)), records[order]
        parts[kind] = FeatureValues(records, lists)
    return Column(parts, (sizes >= 0) & ~is_known)


def _only_field(buffer: Bytes, begins: Int64s, sizes: Int64s) -> tuple[Int64s, Int64s]:
    """Return where the content of a value list lies that is one field: a single string, packed numbers.

    The start is -1 where it is anything else.
    """
    words = word64(buffer)
    end = begins + np.maximum(sizes, 0)
    size, width = varints(words[np.minimum(begins + 1, words.size - 1)])
    inner = begins + 1 + width
    fits = (sizes > 0) & (width > 0) & (inner + size == end) & (inner < end)
    inner = np.where(fits, inner, 0)
    size, width = varints(words[np.minimum(inner + 1, words.size - 1)])
    start = inner + 1 + width
    fits &= (buffer[inner] == 0x0A) & (width > 0) & (start + size == end)
    return np.where(fits, start, -1), np.where(fits, end, -1)


def _lists(kind: str, buffer: Bytes, starts: Int64s, ends: Int64s) -> "pa.ListArray":
    """Make a list per record of the strings, packed floats or packed integers at `buffer[starts:ends]`."""
    from mlplatform.arrow import pa

    sizes = ends - starts
    firsts = np.cumsum(sizes) - sizes
    data = buffer[np.repeat(starts - firsts, sizes) + np.arange(int(sizes.sum()))]
    if kind == "bytes":
        bounds = np.append(firsts, data.size).astype(np.int32)
        values: Any = pa.Array.from_buffers(
            pa.binary(), starts.size, [None, pa.py_buffer(bounds), pa.py_buffer(data)]
        )
        counts = np.ones(starts.size, np.int64)
    elif kind == "float32":
        values, counts = pa.array(data.view("<f4")), sizes // 4
    else:
        is_last = data < 0x80
        lasts = np.flatnonzero(is_last)
        begins = np.concatenate([np.zeros(min(1, lasts.size), np.int64), lasts[:-1] + 1])
        shifts = 7 * (np.arange(data.size) - np.repeat(begins, np.diff(lasts, prepend=-1)))
        bits = (data & 0x7F).astype(np.uint64) << np.minimum(shifts, 63).astype(np.uint64)
        numbers = np.add.reduceat(bits, begins) if begins.size else np.zeros(0, np.uint64)
        values = pa.array(numbers.view(np.int64))
        counts = np.diff(np.concatenate([[0], np.cumsum(is_last)])[np.append(firsts, data.size)])
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32()), values)
