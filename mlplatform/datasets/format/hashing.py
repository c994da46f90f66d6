"""Record ids and payload checksums of many records.

A record id is the first 16 bytes of the BLAKE3 hash of the record's canonical form, held as two unsigned
64-bit numbers (high, low) whose order is the order of the id's bytes. BLAKE3 is as hard to forge as SHA-256,
and quicker.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.errors import CorruptRecordsError
from mlplatform.datasets.format import native
from mlplatform.datasets.format.tfrecord import Bytes, Int64s, UInt64s, Window, mask, word32

ID_BYTES = 16


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
    if native.is_built():
        return Ids(*native.record_ids(buffer, starts, ends))
    from blake3 import blake3

    data = _sliceable(buffer, starts, ends)
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return Ids.from_bytes(b"".join([blake3(data[start:end]).digest(ID_BYTES) for start, end in pairs]))


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
    if native.is_built():
        return native.checksums(buffer, starts, ends)
    from google_crc32c import value as crc32c

    data = _sliceable(buffer, starts, ends)
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.array([crc32c(bytes(data[start:end])) for start, end in pairs], np.uint32)


def _sliceable(buffer: Bytes, starts: Int64s, ends: Int64s) -> bytes | memoryview:
    """Short slices are cheapest from bytes; long ones must not be copied."""
    if starts.size and (ends - starts).mean() < 1024:
        return buffer.tobytes()
    return buffer.data
