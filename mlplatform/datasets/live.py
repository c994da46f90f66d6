"""Which records of which packs a version has: a bit per record and split, counts for repeated ones."""

import hashlib
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.errors import CorruptStoreError
from mlplatform.datasets.tfrecord import Int64s

_MAGIC = b"MLPLIVE1"
_ENTRY = struct.Struct(
    "<HIQQ"
)  # bytes of the split's name, pack, compressed bytes of the bitmap, of the repeats
_REPEAT = np.dtype([("row", "<u4"), ("copies", "<u4")])

Bools = npt.NDArray[np.bool_]
HELD_OUT = "\0held-out"  # the pseudo-split of records that any version so far held out of training


@dataclass
class Rows:
    """The records of one pack that are in one split.

    Attributes:
        is_live: bool, shape (records of the pack,).
        repeated: uint32 pairs (row, copies): rows that occur more than once, ascending.
    """

    is_live: Bools
    repeated: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(0, _REPEAT))

    @property
    def records(self) -> int:
        """Records, each as often as it occurs."""
        return self.distinct + int(self.repeated["copies"].sum(dtype=np.int64)) - int(self.repeated.size)

    @property
    def distinct(self) -> int:
        """Different records."""
        return int(np.count_nonzero(self.is_live))

    def copies(self) -> Int64s:
        """Return how often each record of the pack occurs: int64, shape (records of the pack,)."""
        counts = self.is_live.astype(np.int64)
        counts[self.repeated["row"]] = self.repeated["copies"]
        return counts

    @classmethod
    def from_copies(cls, copies: "npt.NDArray[np.integer[Any]]") -> "Rows":
        """Make rows of how often each record of a pack occurs."""
        rows = np.flatnonzero(copies > 1)
        repeated = np.zeros(rows.size, _REPEAT)
        repeated["row"], repeated["copies"] = rows, copies[rows]
        return cls(copies > 0, repeated)

    @classmethod
    def of(cls, size: int, rows: Int64s, copies: npt.NDArray[np.uint32]) -> "Rows":
        """Make rows of some records of a pack, each with how often it occurs, at least once.

        Args:
            size: Records of the pack.
            rows: int64: their places.
            copies: uint32, shape (rows,).
        """
        found = cls(np.zeros(size, np.bool_))
        found.is_live[rows] = True
        often = np.flatnonzero(copies > 1)
        found.repeated = np.zeros(often.size, _REPEAT)
        found.repeated["row"], found.repeated["copies"] = rows[often], copies[often]
        found.repeated.sort(order="row")
        return found

    def __add__(self, other: "Rows") -> "Rows":
        """Return the rows of both; none is in both."""
        repeated = np.concatenate([self.repeated, other.repeated])
        repeated.sort(order="row")
        return Rows(self.is_live | other.is_live, repeated)


Live = dict[tuple[str, str], Rows]  # (split, pack name) -> rows


def encode(live: Live, packs: list[str]) -> bytes:
    """Return the bitmap file of a version.

    Args:
        live: Rows per split and pack; those without a live record are left out.
        packs: Pack names in the manifest's order.
    """
    place = {name: number for number, name in enumerate(packs)}
    parts = [_MAGIC]
    for (split, pack), rows in sorted(live.items(), key=lambda item: (item[0][0], place[item[0][1]])):
        if not rows.is_live.any():
            continue
        name = split.encode()
        bits = zlib.compress(np.packbits(rows.is_live).tobytes(), 1)
        repeats = zlib.compress(rows.repeated.tobytes(), 1) if rows.repeated.size else b""
        parts += [_ENTRY.pack(len(name), place[pack], len(bits), len(repeats)), name, bits, repeats]
    body = b"".join(parts)
    return body + hashlib.sha256(body).digest()


def decode(data: bytes, packs: list[tuple[str, int]], path: str) -> Live:
    """Read a bitmap file.

    Args:
        data: The file.
        packs: Name and number of records of the manifest's packs, in its order.
        path: The file's name, for errors.

    Raises:
        CorruptStoreError: The bytes are not what was written.
    """
    body = memoryview(data)[:-32]
    if len(data) < 40 or bytes(body[:8]) != _MAGIC or hashlib.sha256(body).digest() != data[-32:]:
        raise CorruptStoreError(path, "its bytes do not fit their checksum")
    live: Live = {}
    at = len(_MAGIC)
    while at < len(body):
        name_bytes, place, bits_bytes, repeats_bytes = _ENTRY.unpack_from(body, at)
        at += _ENTRY.size
        split = bytes(body[at : at + name_bytes]).decode()
        at += name_bytes
        pack, records = packs[place]
        bits = np.frombuffer(zlib.decompress(body[at : at + bits_bytes]), np.uint8)
        at += bits_bytes
        rows = Rows(np.unpackbits(bits, count=records).astype(np.bool_))
        if repeats_bytes:
            rows.repeated = np.frombuffer(zlib.decompress(body[at : at + repeats_bytes]), _REPEAT)
            at += repeats_bytes
        live[split, pack] = rows
    return live


def union(masks: Iterable[Bools], size: int) -> Bools:
    """Return where any of the masks is true: bool, shape (size,)."""
    result = np.zeros(size, np.bool_)
    for one in masks:
        result |= one
    return result
