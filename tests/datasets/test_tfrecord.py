"""Framing: every record where it is, and damage found before anything is believed."""

import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.datasets.errors import CorruptRecordsError
from mlplatform.datasets.format.hashing import check_payloads
from mlplatform.datasets.format.tfrecord import SLACK_BYTES, find_frames, frame, read_windows

pytestmark = pytest.mark.usefixtures("each_way")


def read(data: bytes, window_bytes: int = 1 << 20) -> list[bytes]:
    records = []
    for window in read_windows(io.BytesIO(data), "file", window_bytes):
        check_payloads(window, "file")
        spans = zip(window.starts.tolist(), window.ends.tolist(), strict=True)
        records += [window.buffer[start:end].tobytes() for start, end in spans]
    return records


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=60), st.integers(64, 500))
def test_reads_what_was_written_whatever_the_window(records: list[bytes], window_bytes: int) -> None:
    assert read(b"".join(map(frame, records)), window_bytes) == records


def test_whole_frames_are_found_and_the_cut_one_is_not() -> None:
    rng = random.Random(1)
    records = [rng.randbytes(rng.randrange(0, 300)) for _ in range(20_000)]
    data = b"".join(map(frame, records))
    cut = len(data) - 7
    buffer = np.zeros(len(data) + SLACK_BYTES, np.uint8)
    buffer[:cut] = np.frombuffer(data[:cut], np.uint8)
    expected = np.cumsum([0, *(len(record) + 16 for record in records)])[:-2]
    starts, sizes, used, is_damaged = find_frames(buffer, cut)
    assert starts.tolist() == (expected + 12).tolist()
    assert sizes.tolist() == [len(record) for record in records[:-1]]
    assert (used, is_damaged) == (expected[-1] + len(records[-2]) + 16, False)


def test_records_that_hold_whole_frames_mislead_nobody() -> None:
    inner = b"".join(frame(bytes([n % 256]) * 40) for n in range(30))
    records = [inner + bytes([n % 256]) for n in range(2_000)]
    assert read(b"".join(map(frame, records))) == records


def test_a_record_larger_than_the_window_is_read() -> None:
    records = [b"a" * 10, b"b" * 100_000, b"c"]
    assert read(b"".join(map(frame, records)), 4096) == records


@pytest.mark.parametrize("kept", [1, 11, 12, 13, 30, 31])
def test_a_file_that_ends_inside_a_record_is_refused(kept: int) -> None:
    whole, cut = frame(b"first"), frame(b"0123456789abcdef")
    with pytest.raises(CorruptRecordsError, match="ends inside a record") as caught:
        read(whole + cut[:kept])
    assert caught.value.offset == len(whole)


def test_every_single_flipped_bit_is_found() -> None:
    data = bytearray(b"".join(map(frame, [b"one", b"", b"three" * 9])))
    for position in range(len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            with pytest.raises(CorruptRecordsError):
                read(bytes(data))
            data[position] ^= 1 << bit


def test_a_huge_length_is_refused_without_waiting_for_its_bytes() -> None:
    import struct

    from google_crc32c import value as crc32c

    length = struct.pack("<Q", 3 << 30)
    crc = crc32c(length)
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    with pytest.raises(CorruptRecordsError, match="larger than 2 GiB"):
        read(length + struct.pack("<I", masked) + bytes(100))
