"""Features of many tf.Examples at once: where a feature's value lies, and what single values say."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from mlplatform.datasets.format import native
from mlplatform.datasets.format.tfrecord import SLACK_BYTES, Bytes, Int64s, UInt64s, word64
from mlplatform.datasets.format.walk import LANES, Bools, has_key, walk

_MIX = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)


def feature_spans(
    buffer: Bytes, starts: Int64s, ends: Int64s, names: Sequence[str]
) -> list[tuple[Int64s, Int64s]]:
    """Find features in records.

    Args:
        buffer: uint8 with slack behind the last record.
        starts, ends: int64, shape (records,): where the records lie.
        names: Feature names.

    Returns:
        Per name: int64 begins and sizes of the serialized `Feature`s, shape (records,); the size is -1 where
        a record does not have the feature, has it without a value (as TFX's CsvExampleGen writes an empty
        cell), or is no plain tf.Example.
    """
    if native.is_built():
        spans = [native.find_feature(buffer, starts, ends, name.encode()) for name in names]
    else:
        spans = _walked_spans(buffer, starts, ends, names)
    for begin, size in spans:
        is_empty_list = (size == 2) & (buffer[np.minimum(begin + 1, buffer.size - 1)] == 0)
        size[(size == 0) | is_empty_list] = -1
    return spans


def _walked_spans(
    buffer: Bytes, starts: Int64s, ends: Int64s, names: Sequence[str]
) -> list[tuple[Int64s, Int64s]]:
    spans = [(np.zeros(starts.size, np.int64), np.full(starts.size, -1, np.int64)) for _ in names]
    for lane in range(0, starts.size, LANES):
        walked = walk(buffer, starts[lane : lane + LANES], ends[lane : lane + LANES])
        for name, (begin, size) in zip(names, spans, strict=True):
            key = name.encode()
            for entry in walked.entries:
                is_it = has_key(entry, key) & walked.is_plain
                begin[lane : lane + LANES][is_it] = entry.value[is_it]
                size[lane : lane + LANES][is_it] = entry.value_size[is_it]
    return spans


def feature_values(
    buffer: Bytes, starts: Int64s, ends: Int64s, names: Sequence[str]
) -> list[tuple[bytes, ...] | None]:
    """Return the serialized `Feature`s of each record; None where one is missing, or without a value."""
    data, columns = buffer.data, []
    for begins, sizes in feature_spans(buffer, starts, ends, names):
        columns.append(
            [
                bytes(data[a : a + n]) if n >= 0 else None
                for a, n in zip(begins.tolist(), sizes.tolist(), strict=True)
            ]
        )
    return [None if None in row else row for row in zip(*columns, strict=True)]


def hash_values(buffer: Bytes, starts: Int64s, ends: Int64s, names: Sequence[str]) -> UInt64s:
    """Hash the values of some features: uint64, shape (records,), 0 where one is missing or without a value.

    Quick and not secure: equal values have equal hashes; who finds equal hashes compares the values.
    """
    return hash_spans(buffer, feature_spans(buffer, starts, ends, names), starts.size)


def hash_spans(buffer: Bytes, spans: Sequence[tuple[Int64s, Int64s]], records: int) -> UInt64s:
    """Hash bytes of `buffer`, with slack behind them, at the begins and sizes of `feature_spans`."""
    words = word64(buffer)
    mixed = np.full(records, 1, np.uint64)
    is_there: Bools = np.ones(records, np.bool_)
    for begins, sizes in spans:
        is_there &= sizes >= 0
        mixed = _mix(mixed ^ np.maximum(sizes, 0).astype(np.uint64))
        on, offset = np.arange(records), 0
        while (on := on[sizes[on] > offset]).size:
            word = words[begins[on] + offset] & _LOW[np.minimum(sizes[on] - offset, 8)]
            mixed[on] = _mix(mixed[on] ^ word)
            offset += 8
    return np.where(is_there, np.maximum(mixed, 1), np.uint64(0))


def show(feature: bytes | None) -> str:
    """Return a serialized `Feature`'s values as text, joined by commas; long ones are cut."""
    if feature is None:
        return ""
    texts = []
    for value in decode(feature):
        text = (
            value.decode("utf-8", "backslashreplace")
            if isinstance(value, bytes)
            else f"{value:g}"
            if isinstance(value, float)
            else str(value)
        )
        texts.append(text if len(text) <= 200 else text[:197] + "...")
    return ",".join(texts[:20])


def decode(feature: bytes) -> list[bytes] | list[float] | list[int]:
    """Return the values of a serialized `Feature`; none where it is empty or damaged."""
    try:
        return _decode(feature)
    except (IndexError, struct.error):
        return []


def candidates(text: str) -> list[bytes]:
    """Return the serialized `Feature`s that a key written as text may stand for: a string, an integer."""
    data = text.encode()
    found = [_field(0x0A, _field(0x0A, data))]
    try:
        number = int(text)
    except ValueError:
        return found
    if -(2**63) <= number < 2**63:
        value = _varint(number % 2**64)
        found += [_field(0x1A, _field(0x0A, value)), _field(0x1A, b"\x08" + value)]  # packed, and not
    return found


def holds_text(record: bytes, text: bytes) -> list[str]:
    """Return the features that hold a text, or a path that ends in it, as one of their values."""
    return [
        name
        for name, feature in record_features(record).items()
        if any(
            isinstance(value, bytes) and text in (value, value.rpartition(b"/")[2])
            for value in decode(feature)
        )
    ]


def traces_of_text(text: bytes) -> set[bytes]:
    """Return byte strings of which every record has one that `holds_text`; so have few others."""
    return {_field(0x0A, text), b"/" + text}


def with_text(record: bytes, name: str, text: str) -> bytes:
    """Return a record in which a feature has one value, written as text; all other features are as they were.

    Args:
        record: A serialized tf.Example; one that is not plain is returned as it is.
        name: The feature.
        text: The value; a feature of whole numbers gets the number that it is.

    Returns:
        The record itself where it has this value already.
    """
    features = record_features(record)
    if not features:
        return record
    before, (value, *numbers) = features.get(name, b""), candidates(text)
    if before[:1] == b"\x1a" and numbers:
        value = numbers[0]
    if before and decode(before) == decode(value):
        return record
    return example_of({**features, name: value})


def example_of(features: Mapping[str, bytes]) -> bytes:
    """Return a serialized tf.Example of serialized `Feature`s by name."""
    pairs = [
        _field(0x0A, name.encode()) + _field(0x12, feature) for name, feature in sorted(features.items())
    ]
    return _field(0x0A, b"".join(_field(0x0A, pair) for pair in pairs))


def encode(values: Sequence[bytes] | Sequence[float] | Sequence[int]) -> bytes:
    """Return values as a serialized `Feature`; floats become float32. Without values it has none.

    Raises:
        OverflowError: A whole number does not fit 64 bits, or a float is beyond float32.
    """
    if not values:
        return b""
    if isinstance(values[0], bytes):
        return _field(0x0A, b"".join(_field(0x0A, value) for value in values if isinstance(value, bytes)))
    if isinstance(values[0], float):
        return _field(0x12, _field(0x0A, struct.pack(f"<{len(values)}f", *values)))
    try:
        unsigned = struct.unpack(f"<{len(values)}Q", struct.pack(f"<{len(values)}q", *values))
    except struct.error as error:
        raise OverflowError(f"a whole number of {len(values)} does not fit 64 bits") from error
    return _field(0x1A, _field(0x0A, b"".join(map(_varint, unsigned))))


def _mix(value: UInt64s) -> UInt64s:
    value = value * _MIX
    return value ^ (value >> np.uint64(32))


def _field(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("a varint of more than 10 bytes")


def _decode(feature: bytes) -> list[bytes] | list[float] | list[int]:
    if not feature:
        return []
    kind = feature[0] >> 3
    size, at = _read_varint(feature, 1)
    end = at + size
    numbers: list[int] = []
    texts: list[bytes] = []
    floats: list[float] = []
    while at < end:
        tag = feature[at]
        at += 1
        if kind == 3 and tag & 7 == 0:
            value, at = _read_varint(feature, at)
            numbers.append(value)
            continue
        if kind == 2 and tag & 7 == 5:
            floats += struct.unpack_from("<f", feature, at)
            at += 4
            continue
        length, at = _read_varint(feature, at)
        behind = at + length
        if kind == 1:
            texts.append(feature[at:behind])
        elif kind == 2:
            floats += struct.unpack_from(f"<{length // 4}f", feature, at)
        else:
            while at < behind:
                value, at = _read_varint(feature, at)
                numbers.append(value)
        at = behind
    if kind == 1:
        return texts
    return floats if kind == 2 else [(n + 2**63) % 2**64 - 2**63 for n in numbers]


def hash_feature_values(values: Sequence[bytes]) -> int:
    """Return the hash that `hash_values` gives a record with these serialized `Feature`s."""
    names = [f"{number}" for number in range(len(values))]
    entries = [
        _field(0x0A, _field(0x0A, name.encode()) + _field(0x12, value))
        for name, value in zip(names, values, strict=True)
    ]
    record = _field(0x0A, b"".join(entries))
    buffer = np.zeros(len(record) + SLACK_BYTES, np.uint8)
    buffer[: len(record)] = np.frombuffer(record, np.uint8)
    return int(hash_values(buffer, np.zeros(1, np.int64), np.full(1, len(record), np.int64), names)[0])


def record_features(record: bytes) -> dict[str, bytes]:
    """Return the serialized `Feature`s of one record by name; none where it is no plain tf.Example."""
    buffer = np.zeros(len(record) + SLACK_BYTES, np.uint8)
    buffer[: len(record)] = np.frombuffer(record, np.uint8)
    first = np.zeros(1, np.int64)
    walked = walk(buffer, first, np.full(1, len(record), np.int64))
    if not walked.is_plain[0]:
        return {}
    return {
        entry.keys(first)[0].decode("utf-8", "backslashreplace"): record[
            int(entry.value[0]) : int(entry.value[0] + entry.value_size[0])
        ]
        for entry in walked.entries
    }
