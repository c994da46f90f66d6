"""Record ids and payload checksums of many records.

A record id is the first 16 bytes of the BLAKE3 hash of the record's canonical form, held as two unsigned
64-bit numbers (high, low) whose order is the order of the id's bytes. BLAKE3 is as hard to forge as SHA-256,
and quicker. With the optional package polars-hash whole columns of small records are hashed at once; the
values are the same.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.errors import CorruptRecordsError
from mlplatform.datasets.tfrecord import Bytes, Int64s, UInt64s, Window, mask, word32

ID_BYTES = 16
_LARGE_BYTES = 4096  # from here on, on average, hashing takes longer than Python takes for a record


@dataclass(frozen=True)
class Ids:
    """Record ids.

    Attributes:
        high: uint64, shape (records,): the first 8 bytes of each id, as a big-endian number.
        low: uint64, shape (records,): the last 8 bytes.
    """

    high: UInt64s
    low: UInt64s

    def __len__(self) -> int:
        return int(self.high.size)

    def __getitem__(self, chosen: Any) -> "Ids":
        return Ids(self.high[chosen], self.low[chosen])

    @classmethod
    def none(cls) -> "Ids":
        """Return no ids."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64))

    @classmethod
    def join(cls, parts: "list[Ids]") -> "Ids":
        """Return the ids of all parts, in order."""
        if not parts:
            return cls.none()
        return cls(
            np.concatenate([part.high for part in parts]), np.concatenate([part.low for part in parts])
        )

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> "Ids":
        """Read ids from `ID_BYTES` bytes each."""
        pairs = np.frombuffer(data, ">u8").reshape(-1, 2).astype(np.uint64)
        return cls(np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]))

    def to_bytes(self) -> bytes:
        """Return the ids, `ID_BYTES` bytes each."""
        pairs = np.empty((len(self), 2), ">u8")
        pairs[:, 0], pairs[:, 1] = self.high, self.low
        return pairs.tobytes()

    def names(self) -> list[str]:
        """Return the ids in hexadecimal."""
        return [
            f"{high:016x}{low:016x}" for high, low in zip(self.high.tolist(), self.low.tolist(), strict=True)
        ]

    def order(self) -> Int64s:
        """Return the places of the ids in the order of their bytes: int64, shape (records,)."""
        order: Int64s = np.argsort(self.high, kind="quicksort")
        high, low = self.high[order], self.low[order]
        if ((high[1:] == high[:-1]) & (low[1:] < low[:-1])).any():
            order = np.lexsort((self.low, self.high))
        return order


def record_ids(buffer: Bytes, starts: Int64s, ends: Int64s) -> Ids:
    """Return the ids of the records whose canonical forms lie at `buffer[starts:ends]`."""
    if (column := _column(buffer, starts, ends)) is not None:
        _pl, ph = _polars()
        digests = column.select(ph.col("record").chash.blake3())["record"].to_arrow()
        text = np.frombuffer(digests.buffers()[2], np.uint8)[: 64 * starts.size].view("<u8").reshape(-1, 8)
        halves = [_from_hex(text[:, place]) for place in range(ID_BYTES // 4)]
        shift = np.uint64(32)
        return Ids((halves[0] << shift) | halves[1], (halves[2] << shift) | halves[3])
    from blake3 import blake3

    data = _sliceable(buffer, starts, ends)
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return Ids.from_bytes(b"".join([blake3(data[start:end]).digest(ID_BYTES) for start, end in pairs]))


def _from_hex(text: UInt64s) -> UInt64s:
    """Return the 32-bit numbers that eight characters each write in hexadecimal, all characters at once."""
    low = np.uint64(0x0F0F0F0F0F0F0F0F)
    nibbles = (text & low) + ((text >> np.uint64(6)) & np.uint64(0x0101010101010101)) * np.uint64(9)
    number = nibbles.byteswap()
    for width, kept in ((4, 0x00FF00FF00FF00FF), (8, 0x0000FFFF0000FFFF), (16, 0x00000000FFFFFFFF)):
        number = (number | (number >> np.uint64(width))) & np.uint64(kept)
    return number


def check_payloads(window: Window, name: str) -> None:
    """Check every payload against the checksum behind it.

    Raises:
        CorruptRecordsError: A payload or its checksum was damaged; names the first.
    """
    crcs = payload_checksums(window.buffer, window.starts, window.ends)
    is_bad = mask(crcs) != word32(window.buffer)[window.ends]
    if is_bad.any():
        at = window.offset + int(window.starts[np.argmax(is_bad)])
        raise CorruptRecordsError(name, at, "a record's bytes do not fit their checksum")


def payload_checksums(buffer: Bytes, starts: Int64s, ends: Int64s) -> npt.NDArray[np.uint32]:
    """Return the CRC-32C, not masked, of each payload at `buffer[starts:ends]`."""
    if (column := _column(buffer, starts, ends)) is not None:
        _, ph = _polars()
        found: npt.NDArray[np.uint32] = column.select(ph.col("record").nchash.crc32c())["record"].to_numpy()
        return found
    from crc32c import crc32c

    data = _sliceable(buffer, starts, ends)
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.array([crc32c(data[start:end]) for start, end in pairs], np.uint32)


def _sliceable(buffer: Bytes, starts: Int64s, ends: Int64s) -> bytes | memoryview:
    """Short slices are cheapest from bytes; long ones must not be copied."""
    if starts.size and (ends - starts).mean() < 1024:
        return buffer.tobytes()
    return buffer.data


@cache
def _polars() -> Any:
    try:
        import polars
        import polars_hash
    except ImportError:
        return None
    return polars, polars_hash


def _column(buffer: Bytes, starts: Int64s, ends: Int64s) -> Any:
    """Return the records as a polars frame with one column, not copied.

    None without polars-hash, and for large records: for them it is not quicker, and takes long to import.
    """
    if not starts.size or (ends - starts).mean() >= _LARGE_BYTES or _polars() is None:
        return None
    import pyarrow as pa

    pl, _ = _polars()
    bounds = np.empty(2 * starts.size, np.int64)  # record, gap, record, gap, ..., record
    bounds[0::2], bounds[1::2] = starts, ends
    pieces = pa.Array.from_buffers(
        pa.large_binary(), bounds.size - 1, [None, pa.py_buffer(bounds), pa.py_buffer(buffer)]
    )
    return pl.from_arrow(pieces).gather_every(2).alias("record").to_frame()
