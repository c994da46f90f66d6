"""Record ids and payload checksums of many records.

A record id is the first 16 bytes of the BLAKE3 hash of the record's canonical form, held as two unsigned
64-bit numbers (high, low) whose order is the order of the id's bytes. BLAKE3 is as hard to forge as SHA-256,
and quicker.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.errors import CorruptRecordsError
from mlplatform.datasets.format import native
from mlplatform.datasets.format.canonical import canonical_window
from mlplatform.datasets.format.tfrecord import Bytes, Int64s, UInt64s, Window, mask, word32

ID_BYTES = 16
_MIDDLE, _MOST = 2**63 - 1, 2**64 - 1


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
        pairs = np.frombuffer(data, ">u8").reshape(-1, 2)
        return cls(pairs[:, 0].astype(np.uint64), pairs[:, 1].astype(np.uint64))

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

    def sorted(self) -> "SortedIds":
        """Return the ids in order."""
        if not native.is_built():
            places = np.lexsort((self.low, self.high))
            return SortedIds(self[places], places)
        high, low = np.ascontiguousarray(self.high), np.ascontiguousarray(self.low)
        found = np.empty_like(high), np.empty_like(low), np.empty(high.size, np.int64)
        lower = int(np.count_nonzero(high <= np.uint64(_MIDDLE)))
        halves = [
            (0, _MIDDLE, tuple(array[:lower] for array in found)),
            (_MIDDLE + 1, _MOST, tuple(array[lower:] for array in found)),
        ]
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda half: native.sort_ids(high, low, *half), halves))
        return SortedIds(Ids(*found[:2]), found[2])


@dataclass(frozen=True)
class SortedIds:
    """Record ids in the order of their bytes.

    Attributes:
        ids: The ids.
        places: int64, shape (records,): where each was before; ascending where ids are equal.
    """

    ids: Ids
    places: Int64s

    def find(self, others: "SortedIds") -> Int64s:
        """Return the place here of each of the others, as they lay before: int64, -1 where there is none."""
        found = np.full(len(others.ids), -1, np.int64)
        if not len(self.ids):
            return found
        if native.is_built():
            mine, theirs = ((one.ids.high, one.ids.low, one.places) for one in (self, others))
            native.find_ids(mine, theirs, found)
            return found
        high, low = self.ids.high, self.ids.low
        at = np.searchsorted(high, others.ids.high)
        while True:  # among ids of the same first half, which nobody has but who makes them on purpose
            on = at % high.size
            goes_on = (at < high.size) & (high[on] == others.ids.high) & (low[on] < others.ids.low)
            if not goes_on.any():
                break
            at += goes_on
        is_there = (high[on] == others.ids.high) & (low[on] == others.ids.low)
        found[others.places] = np.where(is_there, self.places[on], -1)
        return found

    def repeats(self) -> tuple[Int64s, Int64s]:
        """Return the places of ids that occur before, and for each the place where it first does: int64."""
        high, low = self.ids.high, self.ids.low
        is_repeat = np.append(False, (high[1:] == high[:-1]) & (low[1:] == low[:-1]))[: high.size]
        repeats = np.flatnonzero(is_repeat)
        firsts = np.flatnonzero(~is_repeat) if repeats.size else repeats
        return self.places[repeats], self.places[firsts[np.searchsorted(firsts, repeats) - 1]]


def record_ids(buffer: Bytes, starts: Int64s, ends: Int64s) -> Ids:
    """Return the ids of the records at `buffer[starts:ends]`, in canonical form or not.

    Args:
        buffer: uint8, with `SLACK_BYTES` behind the last record.
        starts, ends: int64, shape (records,): where the records lie.
    """
    if native.is_built():
        return Ids(*native.record_ids(buffer, starts, ends))
    from blake3 import blake3

    data = _sliceable(canonical_window(buffer, starts, ends), starts, ends)
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return Ids.from_bytes(b"".join([blake3(data[start:end]).digest(ID_BYTES) for start, end in pairs]))


def check_payloads(window: Window, name: str) -> None:
    """Check every payload against the checksum behind it.

    Raises:
        CorruptRecordsError: A payload or its checksum was damaged; names the first.
    """
    starts, ends = window.starts, window.ends
    if native.is_built():
        bad = native.first_damaged(window.buffer, starts, ends)
    else:
        fits = mask(payload_checksums(window.buffer, starts, ends)) == word32(window.buffer)[ends]
        bad = int(np.argmin(np.append(fits, False)))
    if bad < starts.size:
        at = window.offset + int(starts[bad])
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
