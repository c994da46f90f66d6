"""The canonical form: the order of map entries, and nothing else, does not matter."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.datasets.format import native
from mlplatform.datasets.format.canonical import canonical_record, canonical_window
from mlplatform.datasets.format.hashing import record_ids
from mlplatform.datasets.format.tfrecord import HEADER_BYTES, SLACK_BYTES, frame

names = st.text(max_size=40).filter(lambda text: len(text.encode()) < 128)
values = st.one_of(st.binary(max_size=300), st.integers(-(2**63), 2**63 - 1))
maps = st.dictionaries(names, values, max_size=12)


def window_of(records: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = b"".join(map(frame, records))
    buffer = np.zeros(len(data) + SLACK_BYTES, np.uint8)
    buffer[: len(data)] = np.frombuffer(data, np.uint8)
    sizes = np.array([len(record) for record in records], np.int64)
    starts = np.cumsum(sizes + 16) - sizes - 16 + HEADER_BYTES
    return buffer, starts, starts + sizes


def canonical(records: list[bytes]) -> list[bytes]:
    """The canonical forms by NumPy, of which the ids by the C library are the hashes."""
    buffer, starts, ends = window_of(records)
    result = canonical_window(buffer, starts, ends)
    forms = [result[a:b].tobytes() for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    assert native.is_built(), "there is no C library: make env builds it, with a C compiler"
    ids = record_ids(buffer, starts, ends)
    assert ids.to_bytes() == b"".join(blake3(form).digest(16) for form in forms)
    return forms


@settings(max_examples=80, deadline=None)
@given(st.lists(maps, min_size=1, max_size=20), st.integers(0, 10**6))
def test_any_order_of_the_entries_has_the_form_of_the_sorted_one(
    make_example: Callable[..., bytes], features: list[dict], seed: int
) -> None:
    in_order = [
        make_example(dict(sorted(one.items(), key=lambda item: item[0].encode()))) for one in features
    ]
    shuffled = [make_example(one, shuffled_by=seed) for one in features]
    assert canonical(shuffled) == in_order
    assert canonical(in_order) == in_order
    assert [canonical_record(record) for record in shuffled] == in_order


@settings(max_examples=80, deadline=None)
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=20))
def test_other_bytes_stay_as_they_are(records: list[bytes]) -> None:
    for before, after in zip(records, canonical(records), strict=True):
        assert after == canonical_record(before)
        assert len(after) == len(before)


@st.composite
def plain_records(draw: st.DrawFn) -> bytes:
    """Plain records whose lengths are not always written in as few bytes as they could be."""

    def length(number: int) -> bytes:
        data = bytearray()
        while number > 127:
            data.append(number & 127 | 128)
            number >>= 7
        data.append(number)
        for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
            if len(data) < 5:
                data[-1] |= 128
                data.append(0)
        return bytes(data)

    entries = []
    for key in draw(
        st.lists(st.sampled_from([b"a", b"b", b"image/encoded"]), min_size=1, max_size=3, unique=True)
    ):
        value = draw(st.binary(max_size=3)) + bytes(draw(st.sampled_from([0, 0, 0, 150])))
        body = b"\x0a" + bytes((len(key),)) + key + b"\x12" + length(len(value)) + value
        entries.append(b"\x0a" + length(len(body)) + body)
    body = b"".join(entries)
    return b"\x0a" + length(len(body)) + body


@settings(max_examples=150, deadline=None)
@given(st.lists(plain_records(), min_size=2, max_size=8))
def test_the_form_of_a_record_does_not_depend_on_its_neighbours(records: list[bytes]) -> None:
    assert canonical(records) == [canonical([record])[0] for record in records]
    assert canonical(records) == [canonical_record(record) for record in records]


def entry(key: bytes, value: bytes) -> bytes:
    return bytes((0x0A, len(key) + len(value) + 4, 0x0A, len(key))) + key + bytes((0x12, len(value))) + value


@pytest.mark.parametrize(
    "body",
    [
        entry(b"b", b"1") + entry(b"a", b"2") + b"\x10\x01",  # an unknown field in the map
        entry(b"b", b"1") + entry(b"b", b"2"),  # a key twice: the last one counts, so order has a meaning
        entry(b"b", b"1") + entry(b"a", b"2") + entry(b"a", b"3"),
        b"\x0a\x06\x12\x01v\x0a\x01b" + entry(b"a", b"2"),  # the value before the key
        b"\x0a\x03\x0a\x01b" + entry(b"a", b"2"),  # no value
        entry(b"b", b"1")[:-1] + entry(b"a", b"2"),
    ],
)
def test_what_is_unusual_is_left_alone(body: bytes) -> None:
    record = bytes((0x0A, len(body))) + body
    ordinary = b"\x0a\x10" + entry(b"y", b"1") + entry(b"x", b"2")
    assert canonical([record, ordinary])[0] == record
    assert canonical([record, ordinary])[1] == b"\x0a\x10" + entry(b"x", b"2") + entry(b"y", b"1")
    assert canonical_record(record) == record


def test_more_keys_than_a_table_holds_are_sorted_all_the_same(make_example: Callable[..., bytes]) -> None:
    rng = random.Random(3)
    features = [{f"{rng.random():.17f}": n for n in range(6)} for _ in range(3_000)]
    shuffled = [make_example(one, shuffled_by=5) for one in features]
    assert canonical(shuffled) == [make_example(dict(sorted(one.items()))) for one in features]


@pytest.mark.parametrize("keys", [15, 16, 40, 300])
def test_records_of_many_entries(make_example: Callable[..., bytes], keys: int) -> None:
    """More of them than 16 bits hold, where a rank and a place are held in one number."""
    rng = random.Random(keys)
    all_keys = [f"feature {n:04d}" for n in range(keys)]
    features = [dict.fromkeys(all_keys, 1)]
    features += [{key: n for key in all_keys if rng.random() < 0.7} for n in range(30)]
    shuffled = [make_example(one, shuffled_by=n) for n, one in enumerate(features)]
    wanted = [make_example(one) for one in features]
    assert canonical(shuffled) == wanted
    assert canonical(shuffled) == [canonical_record(record) for record in shuffled]
