"""The C library: the same values as the Python libraries and NumPy, for any bytes."""

import ctypes
import json
import mmap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.format import native
from mlplatform.datasets.format.canonical import canonical_record
from mlplatform.datasets.format.features import feature_spans
from mlplatform.datasets.format.hashing import Ids
from mlplatform.datasets.format.tfrecord import (
    FOOTER_BYTES,
    HEADER_BYTES,
    SLACK_BYTES,
    find_frames,
    frame,
    mask,
)

Records = tuple[np.ndarray, np.ndarray, np.ndarray]


def side_by_side(records: list[bytes]) -> Records:
    buffer = np.frombuffer(b"".join(records) + bytes(SLACK_BYTES), np.uint8)
    ends = np.cumsum([len(record) for record in records]).astype(np.int64)
    return buffer, ends - np.array([len(record) for record in records], np.int64), ends


# Around the sizes of a block (64), a chunk (1024) and its multiples, where BLAKE3's tree changes its shape.
sizes = st.one_of(
    st.integers(0, 300),
    st.builds(lambda chunks, more: chunks * 1024 + more, st.integers(1, 40), st.integers(-65, 65)),
)


# The instruction sets as the official BLAKE3 numbers them, each with those that it needs.
SSE2, SSSE3, SSE41, AVX, AVX2, AVX512F, AVX512VL = (1 << bit for bit in range(7))
UP_TO_SSE41 = SSE2 | SSSE3 | SSE41
INSTRUCTIONS = {
    "none": 0,
    "SSE2": SSE2,
    "SSE4.1": UP_TO_SSE41,
    "AVX2": UP_TO_SSE41 | AVX | AVX2,
    "AVX-512": UP_TO_SSE41 | AVX | AVX2 | AVX512F | AVX512VL,
}


@pytest.fixture(scope="module", params=INSTRUCTIONS)
def instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    """On processors with these instructions and on those without."""
    native.record_ids(*side_by_side([b"x"]))  # after it, the library knows what the processor has
    library = ctypes.CDLL(str(Path(native.__file__).with_name(native.LIBRARY)))
    features = ctypes.c_int.in_dll(library, "g_cpu_features")
    there, wanted = features.value, INSTRUCTIONS[request.param]
    if wanted & ~there:
        pytest.skip(f"this processor has no {request.param}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "USES_CRC_INSTRUCTION", bool(wanted))
        features.value = wanted
        yield
        features.value = there


def hashes(records: list[bytes]) -> list[bytes]:
    ids = Ids(*native.record_ids(*side_by_side(records))).to_bytes()
    return [ids[at : at + 16] for at in range(0, len(ids), 16)]


@pytest.mark.usefixtures("instructions")
def test_the_official_test_vectors() -> None:
    """The unkeyed ones of BLAKE3's `test_vectors.json`; the input is 0, 1, ..., 250, 0, 1, ..."""
    cases = json.loads((Path(__file__).parent / "blake3_vectors.json").read_text())["cases"]
    assert len(cases) == 22
    repeated = bytes(range(251)) * 500
    records = [repeated[: case["input_len"]] for case in cases]
    wanted = [bytes.fromhex(case["hash"])[:16] for case in cases]
    assert hashes(records) == wanted
    assert [hashes([record])[0] for record in records] == wanted
    assert [blake3(record).digest(16) for record in records] == wanted  # what serves without the library


@pytest.mark.usefixtures("instructions")
@settings(max_examples=40, deadline=None)
@given(st.lists(sizes, max_size=40), st.integers(0, 2**32))
def test_ids_and_checksums_are_those_of_the_libraries(lengths: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    records = [random.bytes(length) for length in lengths]
    assert hashes(records) == [blake3(record).digest(16) for record in records]
    assert native.checksums(*side_by_side(records)).tolist() == [crc32c(record) for record in records]


@pytest.mark.parametrize("lengths", [[3_000_001, 5, 0, 1 << 20], [1] * 3_000, [2048] * 700])
def test_records_of_more_than_a_batch(lengths: list[int]) -> None:
    records = [np.random.default_rng(place).bytes(length) for place, length in enumerate(lengths)]
    assert hashes(records) == [blake3(record).digest(16) for record in records]


@pytest.fixture(scope="module")
def by_numpy() -> Callable[..., object]:
    def call(function: Callable[..., object], *arguments: object) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "is_built", lambda: False)
            return function(*arguments)

    return call


@st.composite
def almost_examples(draw: st.DrawFn) -> bytes:
    """A tf.Example with some of its bytes changed, or cut."""

    def field(tag: int, data: bytes) -> bytes:
        size = bytes((len(data),)) if len(data) < 128 else bytes((len(data) & 127 | 128, len(data) >> 7))
        return bytes((tag,)) + size + data

    keys = draw(st.lists(st.sampled_from([b"", b"a", b"b", b"ab", b"item_id", b"image/encoded"]), max_size=6))
    entries = [field(0x0A, field(0x0A, key) + field(0x12, draw(st.binary(max_size=30)))) for key in keys]
    record = bytearray(field(0x0A, b"".join(entries)))
    for _ in range(draw(st.integers(0, 2))):
        record[draw(st.integers(0, len(record) - 1))] = draw(
            st.sampled_from([0, 1, 2, 5, 10, 18, 127, 128, 255])
        )
    return bytes(record[: draw(st.sampled_from([len(record), len(record), len(record) - 1, 3]))])


@settings(max_examples=400, deadline=None)
@given(st.lists(almost_examples(), max_size=12))
def test_ids_are_the_hashes_of_the_canonical_forms(records: list[bytes]) -> None:
    assert hashes(records) == [blake3(canonical_record(record)).digest(16) for record in records]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(almost_examples(), max_size=12), st.lists(st.sampled_from(["", "a", "item_id", "c"]), max_size=2)
)
def test_features_are_where_numpy_finds_them(
    by_numpy: Callable[..., object], records: list[bytes], names: list[str]
) -> None:
    window = side_by_side(records)
    for found, wanted in zip(
        feature_spans(*window, names), by_numpy(feature_spans, *window, names), strict=True
    ):
        assert np.array_equal(found, wanted)


# Few different bytes, so that many ids share their first ones, and some are the same.
some_ids = st.lists(
    st.lists(st.sampled_from([0, 0, 0, 1, 255]), min_size=16, max_size=16).map(bytes), max_size=80
)


@settings(max_examples=200, deadline=None)
@given(some_ids, some_ids, st.sampled_from([1, 40]))
def test_ids_are_sorted_and_found_as_by_numpy(
    by_numpy: Callable[..., object], one: list[bytes], other: list[bytes], times: int
) -> None:
    ids = Ids.from_bytes(b"".join(one * times))
    found = ids.sorted()
    assert found.ids.to_bytes() == b"".join(sorted(one * times))
    assert found.places.tolist() == by_numpy(ids.sorted).places.tolist()
    repeats, firsts = (places.tolist() for places in found.repeats())
    first = [(one * times).index(one_id) for one_id in one * times]
    assert dict(zip(repeats, firsts, strict=True)) == {n: at for n, at in enumerate(first) if n != at}
    others = Ids.from_bytes(b"".join(one + other))
    wanted = [one.index(one_id) if one_id in one else -1 for one_id in one + other]
    for known in (found, by_numpy(ids.sorted)):
        assert known.find(others.sorted()).tolist() == wanted
        assert by_numpy(known.find, others.sorted()).tolist() == wanted


def test_more_ids_than_a_bucket_holds() -> None:
    random = np.random.default_rng(1)
    all_same, alike = [bytes(16)] * 3_000, [b"same" * 3 + random.bytes(4) for _ in range(3_000)]
    mixed = [random.bytes(16) for _ in range(120_000)] + all_same + alike
    found = Ids.from_bytes(b"".join(mixed)).sorted()
    assert found.ids.to_bytes() == b"".join(sorted(mixed))
    assert sorted(found.places.tolist()) == list(range(len(mixed)))
    assert (np.diff(found.places[: len(all_same)]) > 0).all()  # the lowest ids, equal ones by place


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=1500), st.data())
def test_the_first_damaged_record_is_found(records: list[bytes], data: st.DataObject) -> None:
    buffer, starts, ends = side_by_side([frame(record) for record in records])
    buffer = buffer.copy()
    window = buffer, starts + HEADER_BYTES, ends - FOOTER_BYTES
    assert native.first_damaged(*window) == len(records)
    damaged = data.draw(st.sets(st.integers(0, max(0, len(records) - 1)), max_size=3)) if records else set()
    for record in damaged:
        buffer[data.draw(st.integers(int(window[1][record]), int(ends[record]) - 1))] ^= 1
    assert native.first_damaged(*window) == min(damaged, default=len(records))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=20), st.data())
def test_frames_are_those_of_numpy(
    by_numpy: Callable[..., object], records: list[bytes], data: st.DataObject
) -> None:
    buffer = side_by_side([frame(record) for record in records])[0].copy()
    for _ in range(data.draw(st.integers(0, 2)) if records else 0):
        place = data.draw(st.integers(0, buffer.size - SLACK_BYTES - 1))
        buffer[place] = data.draw(st.sampled_from([0, 1, 7, 40, 255]))
    size = data.draw(st.integers(0, buffer.size - SLACK_BYTES))
    *arrays, used, is_damaged = native.find_frames(buffer, size)
    *wanted, wanted_used, wanted_damaged = by_numpy(find_frames, buffer, size)
    assert [array.tolist() for array in arrays] == [array.tolist() for array in wanted]
    assert (used, is_damaged) == (wanted_used, wanted_damaged)


@pytest.fixture(scope="module")
def before_a_wall() -> Callable[[bytes], np.ndarray]:
    """Bytes behind which no memory can be read: who does, crashes."""
    pages = mmap.mmap(-1, 4 * mmap.PAGESIZE)
    end = 3 * mmap.PAGESIZE
    wall = ctypes.addressof(ctypes.c_char.from_buffer(pages)) + end
    assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(wall), mmap.PAGESIZE, 0)

    def put(data: bytes) -> np.ndarray:
        pages[end - len(data) : end] = data
        return np.frombuffer(pages, np.uint8, len(data), end - len(data))

    return put


def entry(key: bytes, value: bytes, key_tag: int = 0x0A, value_tag: int = 0x12) -> bytes:
    body = bytes((key_tag, len(key))) + key + bytes((value_tag, len(value))) + value
    return bytes((0x0A, len(body))) + body


def hostile_examples() -> Iterator[bytes]:
    """Cut short anywhere, with lengths that lie or take too many bytes, unknown fields, a key twice, ..."""
    whole = bytes((0x0A, 34)) + entry(b"zz", b"\x0a\x01v") + entry(b"longer than a word", b"")
    for cut in range(len(whole) + 1):
        yield whole[:cut]
    for place in range(len(whole)):
        for byte in (0, 1, 18, 127, 128, 255):
            yield whole[:place] + bytes((byte,)) + whole[place + 1 :]
    for width in range(1, 11):  # the length 33, in up to 10 bytes
        length = bytes((33 | 128, *[128] * (width - 2), 0)) if width > 1 else b"\x21"
        yield b"\x0a" + length + whole[2:]
        yield whole[:2] + b"\x0a" + length + whole[4:]
    for entries in (
        [entry(b"b", b"1"), entry(b"a", b"2"), b"\x10\x01"],
        [entry(b"b", b"1"), entry(b"a", b"2"), entry(b"b", b"3")],
        [entry(b"b", b"1", 0x12, 0x0A), entry(b"a", b"2")],
        [entry(b"b" * 127, b""), entry(b"a" * 127, b"")],
        [entry(b"%d" % n, b"") for n in range(14)],
        [entry(b"%d" % -n, b"") for n in range(15)],
        [entry(b"same begin %d" % -n, b"") for n in range(4)],
        [b"\x0a\x02\x0a\x80", b"\x0a\x00", b"\x0a"],
    ):
        body = b"".join(entries)
        yield b"\x0a" + bytes((len(body) & 127 | 128, len(body) >> 7)) + body
        yield b"\x0a\xff\xff\xff\xff\x0f" + body
        yield b"\x0a\xff\xff\xff\xff\x7f" + body


def test_hostile_examples_are_read_up_to_their_end(
    by_numpy: Callable[..., object], before_a_wall: Callable[[bytes], np.ndarray]
) -> None:
    records = list(hostile_examples())
    for record in filter(None, records):
        one = before_a_wall(record), np.zeros(1, np.int64), np.full(1, len(record), np.int64)
        assert Ids(*native.record_ids(*one)).to_bytes() == blake3(canonical_record(record)).digest(16)
        wanted = by_numpy(feature_spans, *side_by_side([record]), ["zz", "b", "longer than a word"])
        found = feature_spans(*one, ["zz", "b", "longer than a word"])
        assert [one.tolist() for span in found for one in span] == [
            one.tolist() for span in wanted for one in span
        ]
    assert hashes(records) == [blake3(canonical_record(record)).digest(16) for record in records]


@pytest.mark.parametrize("length", [0, 5, 6, 7, 2**31, 2**32 - 1, 2**63 - 16, 2**63, 2**64 - 17, 2**64 - 1])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_hostile_lengths_are_not_followed(
    before_a_wall: Callable[[bytes], np.ndarray], length: int, is_damaged: bool
) -> None:
    header = length.to_bytes(8, "little")
    checksum = mask(np.array([crc32c(header)], np.uint32)).tobytes()
    header += bytes(4) if is_damaged else checksum
    for rest in (b"", b"payload", b"payload" + bytes(3), b"payload" + bytes(4)):
        data = before_a_wall(frame(b"first") + header + rest)
        starts, sizes, used, found_damage = native.find_frames(data, data.size)
        is_whole = not is_damaged and length + 4 <= len(rest)
        assert sizes.tolist() == ([5, length] if is_whole else [5])
        assert (starts[0], used, found_damage) == (12, 21 + is_whole * (length + 16), is_damaged)
    for cut in range(12):
        data = before_a_wall(header[:cut])
        assert native.find_frames(data, data.size)[2:] == (0, False)


@pytest.mark.parametrize(
    ("starts", "ends"), [([-1], [3]), ([2], [1]), ([0], [200]), ([0, 1], [1]), ([2**62], [2**63 - 1])]
)
def test_what_lies_outside_of_the_buffer_is_not_touched(starts: list[int], ends: list[int]) -> None:
    window = np.zeros(100, np.uint8), np.array(starts, np.int64), np.array(ends, np.int64)
    for function in (
        native.record_ids,
        native.checksums,
        native.first_damaged,
        partial(native.find_feature, key=b"a"),
    ):
        with pytest.raises(ValueError, match=r"do not lie in the buffer|1 ends"):
            function(*window)


def test_a_checksum_outside_of_the_buffer_is_not_read() -> None:
    with pytest.raises(ValueError, match="do not lie in the buffer"):
        native.first_damaged(np.zeros(100, np.uint8), np.zeros(1, np.int64), np.full(1, 97, np.int64))


def test_arrays_of_another_kind_are_refused() -> None:
    places = np.zeros(1, np.int64)
    with pytest.raises(TypeError, match="int32 where a contiguous one of int64"):
        native.checksums(np.zeros(9, np.uint8), places.astype(np.int32), places)
    with pytest.raises(TypeError, match="contiguous"):
        native.checksums(np.zeros(9, np.uint8)[::2], places, places)


def test_a_commit_without_the_library_makes_the_same_version(
    tmp_path: Path, write_examples: Callable[..., Path], make_example: Callable[..., bytes]
) -> None:
    rows = [
        make_example({"id": f"i{n}", "image/encoded": bytes(range(256)) * (n % 13), "n": n}, shuffled_by=n)
        for n in range(60)
    ]
    records = [*rows, b"", b"no example", rows[3]]
    source = write_examples(tmp_path / "a", {"train": [records[:30], records[30:]], "eval": [rows[7:9]]})
    with_it, without = DatasetStore(tmp_path / "with"), DatasetStore(tmp_path / "without")
    made = with_it.commit("d", source, key=["id"]).manifest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "is_built", lambda: False)
        again = without.commit("d", source, key=["id"]).manifest
        assert with_it.verify("d").is_whole
    assert (again.digest, again.packs, again.bitmaps) == (made.digest, made.packs, made.bitmaps)
    assert without.verify("d").is_whole
