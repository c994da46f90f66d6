"""TFRecord files as arrays: where each record lies, checked, a window of the file at a time.

A frame is: length (8 bytes, little-endian), masked CRC-32C of the length (4), payload, masked CRC-32C of the
payload (4). Source: TensorFlow, `tensorflow/core/lib/io/record_writer.h`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.errors import CorruptRecordsError
from mlplatform.datasets.format import native

HEADER_BYTES, FOOTER_BYTES = 12, 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES
SLACK_BYTES = 40  # readable bytes behind the data, so that `WIDE_BYTES` can be read at any place
WIDE_BYTES = 32
LARGEST_RECORD = 2**31 - 1  # what protobuf can hold
WINDOW_BYTES = 1 << 20  # fits the processor's cache, so that several passes over it cost one
_MASK_DELTA = 0xA282EAD8

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Window:
    """Whole frames of a TFRecord file, in file order.

    Attributes:
        buffer: uint8, at least `SLACK_BYTES` longer than the frames; reused for the next window.
        starts: int64, shape (records,): where each payload begins in `buffer`.
        sizes: int64, shape (records,): payload bytes.
        offset: Place of `buffer[0]` in the uncompressed file.
    """

    buffer: Bytes
    starts: Int64s
    sizes: Int64s
    offset: int

    @property
    def ends(self) -> Int64s:
        """int64, shape (records,): where each payload ends in `buffer`."""
        return self.starts + self.sizes


class Readable(Protocol):
    """What a window is read from: a binary file, or a gzip stream."""

    def readinto(self, buffer: Any, /) -> int | None: ...


def read_windows(stream: Readable, name: str, window_bytes: int = WINDOW_BYTES) -> Iterator[Window]:
    """Read a TFRecord stream, checking that it is whole and that every length fits its checksum.

    Args:
        stream: Uncompressed records, from their beginning.
        name: The file, for errors.
        window_bytes: Bytes held at a time; grows for a record that is larger.

    Raises:
        CorruptRecordsError: The stream ends inside a record, a length does not fit its checksum, or a record
            is larger than protobuf can hold. The payload checksums are `hashing.check_payloads`' work.
    """
    buffer = np.zeros(window_bytes + SLACK_BYTES, np.uint8)
    filled, offset, is_over = 0, 0, False
    while not is_over:
        room = buffer.data[filled : buffer.size - SLACK_BYTES]
        while room and (got := stream.readinto(room)):
            filled += got
            room = room[got:]
        is_over = bool(room)
        buffer[filled : filled + SLACK_BYTES] = 0
        starts, sizes, used, is_damaged = find_frames(buffer, filled)
        if is_damaged:
            problem = "a record's length does not fit its checksum"
            raise CorruptRecordsError(name, offset + used, problem)
        if starts.size:
            yield Window(buffer, starts, sizes, offset)
        rest = filled - used
        needed = 0
        if rest >= HEADER_BYTES:
            needed = int.from_bytes(buffer.data[used : used + 8], "little") + FRAME_BYTES
            if needed > LARGEST_RECORD + FRAME_BYTES:
                raise CorruptRecordsError(name, offset + used, "a record is larger than 2 GiB")
        if is_over and rest:
            raise CorruptRecordsError(name, offset + used, "the file ends inside a record")
        if needed > buffer.size - SLACK_BYTES:
            grown = np.zeros(needed + SLACK_BYTES, np.uint8)
            grown[:rest] = buffer[used : used + rest]
            buffer = grown
        else:
            buffer[:rest] = buffer[used : used + rest].copy()
        filled, offset = rest, offset + used


def find_frames(buffer: Bytes, size: int) -> tuple[Int64s, Int64s, int, bool]:
    """Find the whole frames in `buffer[:size]`, from 0 on, up to one whose length is damaged.

    Args:
        buffer: uint8, with `SLACK_BYTES` readable bytes behind `size`.
        size: Bytes that hold frames; the last may be cut.

    Returns:
        int64, shape (frames,): where payloads begin; their sizes, of the same shape; where what follows the
        last frame begins; whether that is a header whose length does not fit its checksum.
    """
    return native.find_frames(buffer, size) if native.is_built() else _find_frames(buffer, size)


def word32(buffer: Bytes) -> npt.NDArray[np.uint32]:
    """View `buffer` as a little-endian uint32 at every byte."""
    return np.ndarray((max(buffer.size - 3, 0),), "<u4", buffer.data, 0, (1,))


def word64(buffer: Bytes) -> UInt64s:
    """View `buffer` as a little-endian uint64 at every byte."""
    return np.ndarray((max(buffer.size - 7, 0),), "<u8", buffer.data, 0, (1,))


def gather64(buffer: Bytes, places: Int64s) -> UInt64s:
    """Return the little-endian uint64 at each place: uint64, shape (places,)."""
    words: UInt64s = _items(buffer, 8)[places].view("<u8")
    return words


def gather_wide(buffer: Bytes, places: Int64s) -> UInt64s:
    """Return the `WIDE_BYTES` bytes at each place: little-endian uint64, shape (places, 4)."""
    words: UInt64s = _items(buffer, WIDE_BYTES)[places].view("<u8")
    return words.reshape(-1, WIDE_BYTES // 8)


def _items(buffer: Bytes, size: int) -> Any:
    """View `buffer` as items of `size` bytes at every byte; NumPy is slow at unaligned words."""
    return np.ndarray((max(buffer.size - size + 1, 0),), f"V{size}", buffer.data, 0, (1,))


def mask(crc: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return TFRecord's masked form of CRC-32C values."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK_DELTA)


def headers(sizes: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Return the length and the masked checksum that begin a frame, for payloads of these sizes."""
    return sizes.astype(np.uint32), _length_crc(sizes.astype(np.uint32))


def frame(payload: bytes) -> bytes:
    """Return one record as TFRecord writes it."""
    from google_crc32c import value as crc32c

    length = struct.pack("<Q", len(payload))
    crcs = mask(np.array([crc32c(length), crc32c(payload)], np.uint32))
    return bytes(length + crcs[0].tobytes() + payload + crcs[1].tobytes())


def _find_frames(buffer: Bytes, size: int) -> tuple[Int64s, Int64s, int, bool]:
    from google_crc32c import value as crc32c

    data, frames, used = buffer.data[: size + 8], [], 0
    unpack = struct.Struct("<Q").unpack_from
    last = size - FRAME_BYTES
    while used <= last:
        following = used + unpack(data, used)[0] + FRAME_BYTES
        if following > size:
            break
        frames.append(used)
        used = following
    starts = np.array(frames, np.int64) + HEADER_BYTES
    sizes = np.diff(starts, append=used + HEADER_BYTES) - FRAME_BYTES
    words = word32(buffer)
    fits = _length_crc(sizes.astype(np.uint32)) == words[starts - 4]
    if not fits.all():
        bad = int(np.argmin(fits))
        return starts[:bad], sizes[:bad], frames[bad], True
    is_damaged = (
        size - used >= HEADER_BYTES
        and mask(np.array([crc32c(bytes(data[used : used + 8]))], np.uint32))[0] != words[used + 8]
    )
    return starts, sizes, used, is_damaged


@cache
def _length_tables() -> tuple[list[npt.NDArray[np.uint32]], np.uint32]:
    """CRC-32C of an 8-byte length below 2**32, by linearity: one table per byte, and the CRC of zero."""
    from google_crc32c import value as crc32c

    zero = crc32c(bytes(8))
    tables = [
        np.array(
            [crc32c((value << 8 * place).to_bytes(8, "little")) ^ zero for value in range(256)], np.uint32
        )
        for place in range(4)
    ]
    return tables, np.uint32(zero)


def _length_crc(lengths: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the masked CRC-32C of lengths, uint32 of the same shape."""
    (byte0, byte1, byte2, byte3), zero = _length_tables()
    crc = (
        byte0[lengths & 255]
        ^ byte1[(lengths >> 8) & 255]
        ^ byte2[(lengths >> 16) & 255]
        ^ byte3[lengths >> 24]
    )
    return mask(crc ^ zero)
