"""Decides where each record of a commit lies: in a known pack, a shard to adopt, or a new pack."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.examples_folder import Shard
from mlplatform.datasets.format.hashing import Ids, SortedIds
from mlplatform.datasets.format.live import Live, Rows
from mlplatform.datasets.format.manifest import PackFacts
from mlplatform.datasets.format.tfrecord import FRAME_BYTES, Int64s
from mlplatform.datasets.scan import ShardScan

LARGEST_PACK_BYTES = 512 << 20
Counts = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class ShardPart:
    """Records of a shard that go into a pack.

    Attributes:
        shard: The file.
        file_sha256: SHA-256 of the file where it is gzip-compressed, 32 zero bytes where it is plain.
        rows: int64, ascending: their places in the file.
        ids: Their ids.
        sizes: uint32, shape (records,): their payload bytes.
        offsets: int64, shape (records,): where their frames begin in the uncompressed file.
    """

    shard: Shard
    file_sha256: bytes
    rows: Int64s
    ids: Ids
    sizes: npt.NDArray[np.uint32]
    offsets: Int64s

    @property
    def bytes(self) -> int:
        """Bytes of the frames."""
        return int(self.sizes.sum(dtype=np.int64)) + FRAME_BYTES * self.rows.size

    def __getitem__(self, chosen: slice) -> "ShardPart":
        return ShardPart(
            self.shard,
            self.file_sha256,
            self.rows[chosen],
            self.ids[chosen],
            self.sizes[chosen],
            self.offsets[chosen],
        )


@dataclass(frozen=True)
class NewPack:
    """A pack to write: records of some shards of one split, each new and written once.

    Attributes:
        parts: What is taken of each shard.
        is_whole: The pack is one shard as it is.
    """

    parts: list[ShardPart]
    is_whole: bool

    @property
    def is_gzip(self) -> bool:
        """The pack is gzip-compressed, as its shards are."""
        return self.parts[0].shard.is_gzip

    @property
    def ids(self) -> Ids:
        """Record ids, in pack order."""
        return Ids.join([part.ids for part in self.parts])

    @property
    def sizes(self) -> npt.NDArray[np.uint32]:
        """uint32, shape (records,): payload bytes, in pack order."""
        return np.concatenate([part.sizes for part in self.parts])


@dataclass(frozen=True)
class Placement:
    """Where the records of a commit lie.

    Attributes:
        new_packs: Packs to write.
        copies: Per split, how often each record of the dataset occurs, over the rows of the known packs and
            then of the new ones.
    """

    new_packs: list[NewPack]
    copies: dict[str, Counts]

    def live(self, packs: Sequence[PackFacts]) -> Live:
        """Return the rows per split and pack; `packs` are the known packs and then the new ones."""
        live: Live = {}
        for split, copies in self.copies.items():
            begin = 0
            for pack in packs:
                part = copies[begin : begin + pack.records]
                if part.any():
                    live[split, pack.name] = Rows.from_copies(part)
                begin += pack.records
        return live


def place(scans: Sequence[ShardScan], splits: Sequence[str], found: SortedIds, known: SortedIds) -> Placement:
    """Find each record's place.

    Args:
        scans: What the shards of the commit hold.
        splits: The split names, also of splits without a shard.
        found: The ids of all their records.
        known: The ids of the known packs, one pack behind the other.
    """
    rows = known.find(found)
    repeats, firsts = found.repeats()
    is_written = rows < 0
    is_written[repeats] = False  # the first of its kind is written
    bounds = np.cumsum([0, *(len(scan.ids) for scan in scans)]).tolist()

    whole: list[NewPack] = []
    loose: dict[tuple[str, bool], list[ShardPart]] = {}
    begin_of = {scan.shard.path: begin for scan, begin in zip(scans, bounds, strict=False)}
    for scan, (begin, end) in zip(scans, itertools.pairwise(bounds), strict=True):
        mine = np.flatnonzero(is_written[begin:end])
        if not mine.size:
            continue
        if mine.size == len(scan.ids):
            nowhere = np.zeros(0, np.int64)  # a whole shard is copied
            part = ShardPart(scan.shard, scan.file_sha256, mine, scan.ids, scan.sizes, nowhere)
            whole.append(NewPack([part], is_whole=True))
        else:
            offsets = scan.offsets()[mine]
            part = ShardPart(scan.shard, scan.file_sha256, mine, scan.ids[mine], scan.sizes[mine], offsets)
            loose.setdefault((scan.shard.split, scan.shard.is_gzip), []).append(part)
    new_packs = whole + [pack for parts in loose.values() for pack in loose_packs(parts)]

    # The row of each new record: its place in the packs to write, counted on from the known rows.
    following = len(known.ids)
    for pack in new_packs:
        for part in pack.parts:
            rows[begin_of[part.shard.path] + part.rows] = np.arange(following, following + part.rows.size)
            following += part.rows.size
    rows[repeats] = rows[firsts]

    copies = {}
    for split in splits:
        of_split = [
            rows[begin:end]
            for scan, (begin, end) in zip(scans, itertools.pairwise(bounds), strict=True)
            if scan.shard.split == split
        ]
        copies[split] = _counts(of_split, following)
    return Placement(new_packs, copies)


def _counts(places: list[Int64s], size: int) -> Counts:
    """Return how often each place occurs, in as few bytes as it takes: mostly one a record."""
    if not places:
        return np.zeros(size, np.uint8)
    counts = np.bincount(np.concatenate(places), minlength=size)
    found: Counts = counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
    return found


def loose_packs(parts: list[ShardPart]) -> list[NewPack]:
    """Cut loose records into packs of bounded size."""
    return [
        pack
        for group in loose_groups([part.bytes for part in parts])
        for pack in cut_packs([parts[number] for number in group])
    ]


def loose_groups(sizes: Sequence[int]) -> list[list[int]]:
    """Group neighbours, so that their bytes fill a pack; one that is larger than a pack stays alone."""
    groups: list[list[int]] = []
    filled = LARGEST_PACK_BYTES + 1
    for number, size in enumerate(sizes):
        if filled + size > LARGEST_PACK_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(number)
        filled += size
    return groups


def cut_packs(parts: list[ShardPart]) -> list[NewPack]:
    """Make packs of a group: one, or several of the single shard of which too much is new."""
    if len(parts) > 1 or parts[0].bytes <= LARGEST_PACK_BYTES:
        return [NewPack(parts, is_whole=False)]
    (part,) = parts
    packs, begin, done = [], 0, 0
    filled = np.cumsum(part.sizes.astype(np.int64) + FRAME_BYTES)
    while begin < part.rows.size:
        end = max(begin + 1, int(np.searchsorted(filled, done + LARGEST_PACK_BYTES, "right")))
        packs.append(NewPack([part[begin:end]], is_whole=False))
        begin, done = end, int(filled[end - 1])
    return packs
