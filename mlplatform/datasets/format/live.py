"""Which records of which packs a version has: a bit per record and split, counts for repeated ones."""

import hashlib
import itertools
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.format.tfrecord import Int64s
from mlplatform.storage.errors import CorruptStoreError

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
        if len(body) - at < _ENTRY.size:
            raise CorruptStoreError(path, f"its entry {len(live)} is cut short")
        name_bytes, place, bits_bytes, repeats_bytes = _ENTRY.unpack_from(body, at)
        at += _ENTRY.size
        ends = list(itertools.accumulate((name_bytes, bits_bytes, repeats_bytes), initial=at))
        if ends[-1] > len(body):
            raise CorruptStoreError(path, f"its entry {len(live)} is cut short")
        if place >= len(packs):
            raise CorruptStoreError(
                path, f"its entry {len(live)} is of pack {place}, and there are {len(packs)}"
            )
        name, bits, repeats = (bytes(body[begin:end]) for begin, end in itertools.pairwise(ends))
        split, (pack, records) = _text(name, path), packs[place]
        if (split, pack) in live:
            raise CorruptStoreError(path, f"it has two entries of pack {pack} for one split")
        live[split, pack] = _rows(bits, repeats, records, path)
        at = ends[-1]
    return live


def _text(name: bytes, path: str) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise CorruptStoreError(path, "the name of a split is no UTF-8") from error


def _rows(bits: bytes, repeats: bytes, records: int, path: str) -> Rows:
    """Read the rows of one split in one pack, checked."""
    found = np.frombuffer(_inflated(bits, (records + 7) // 8, path), np.uint8)
    if found.size != (records + 7) // 8:
        raise CorruptStoreError(path, f"a bitmap has {found.size:,} bytes, and its pack {records:,} records")
    rows = Rows(np.unpackbits(found, count=records).astype(np.bool_))
    if repeats:
        data = _inflated(repeats, rows.distinct * _REPEAT.itemsize, path)
        if not data or len(data) % _REPEAT.itemsize:
            raise CorruptStoreError(path, "a list of repeated records is cut short")
        rows.repeated = np.frombuffer(data, _REPEAT)
        row = rows.repeated["row"].astype(np.int64)
        is_right = row[-1] < records and (np.diff(row) > 0).all() and rows.is_live[row].all()
        if not is_right or (rows.repeated["copies"] < 2).any():
            raise CorruptStoreError(path, "its repeated records are not live ones in order, twice or more")
    return rows


def _inflated(data: bytes, most: int, path: str) -> bytes:
    """Inflate, and no further than to what the data may hold at most."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, most + 1)
    except zlib.error as error:
        raise CorruptStoreError(path, f"a zlib stream in it is damaged ({error})") from error
    if len(found) > most or not stream.eof or stream.unused_data:
        raise CorruptStoreError(path, "a zlib stream in it has another size than its records need")
    return found


def union(masks: Iterable[Bools], size: int) -> Bools:
    """Return where any of the masks is true: bool, shape (size,)."""
    result = np.zeros(size, np.bool_)
    for one in masks:
        result |= one
    return result
