"""Decides where each record of a commit lies: in a known pack, a shard to adopt, or a new pack."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.hashing import Ids
from mlplatform.datasets.known import KnownIds
from mlplatform.datasets.live import Live, Rows
from mlplatform.datasets.manifest import PackFacts
from mlplatform.datasets.scan import ShardScan
from mlplatform.datasets.tfrecord import FRAME_BYTES, Int64s

LARGEST_PACK_BYTES = 512 << 20


@dataclass(frozen=True)
class NewPack:
    """A pack to write: records of some shards of one split, each new and written once.

    Attributes:
        parts: Scans, each with the rows to take (int64, ascending).
        is_whole: The pack is one shard as it is.
    """

    parts: list[tuple[ShardScan, Int64s]]
    is_whole: bool

    @property
    def is_gzip(self) -> bool:
        """The pack is gzip-compressed, as its shards are."""
        return self.parts[0][0].shard.is_gzip

    @property
    def ids(self) -> Ids:
        """Record ids, in pack order."""
        return Ids.join([scan.ids[rows] for scan, rows in self.parts])

    @property
    def sizes(self) -> npt.NDArray[np.uint32]:
        """uint32, shape (records,): payload bytes, in pack order."""
        return np.concatenate([scan.sizes[rows] for scan, rows in self.parts])


@dataclass(frozen=True)
class Placement:
    """Where the records of a commit lie.

    Attributes:
        new_packs: Packs to write.
        copies: Per split, how often each record of the dataset occurs: int64 over the rows of the known packs
            and then of the new ones.
    """

    new_packs: list[NewPack]
    copies: dict[str, Int64s]

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


def place(scans: Sequence[ShardScan], splits: Sequence[str], known: KnownIds) -> Placement:
    """Find each record's place.

    Args:
        scans: What the shards of the commit hold.
        splits: The split names, also of splits without a shard.
        known: Ids of the known packs; a place is a row over all of them.
    """
    rows = [known.places(scan.ids) for scan in scans]
    is_new = [places < 0 for places in rows]
    first = first_occurrences(Ids.join([scan.ids[new] for scan, new in zip(scans, is_new, strict=True)]))
    chosen = first == np.arange(first.size)  # per new record: it is the first of its kind

    whole: list[NewPack] = []
    loose: dict[tuple[str, bool], list[tuple[ShardScan, Int64s]]] = {}
    at, order = 0, []
    for number, (scan, new) in enumerate(zip(scans, is_new, strict=True)):
        count = int(np.count_nonzero(new))
        mine = np.flatnonzero(new)[chosen[at : at + count]]
        order.append((at, number))
        at += count
        if not mine.size:
            continue
        if mine.size == len(scan.ids):
            whole.append(NewPack([(scan, mine)], is_whole=True))
        else:
            loose.setdefault((scan.shard.split, scan.shard.is_gzip), []).append((scan, mine))
    new_packs = whole + [pack for parts in loose.values() for pack in loose_packs(parts)]

    # The row of each new record: its place in the packs to write, counted on from the known rows.
    begin_of = {id(scans[number]): (begin, number) for begin, number in order}
    row = np.full(first.size, -1, np.int64)
    following = len(known)
    for pack in new_packs:
        for scan, mine in pack.parts:
            begin, number = begin_of[id(scan)]
            among_new = np.cumsum(is_new[number]) - 1
            row[begin + among_new[mine]] = np.arange(following, following + mine.size)
            following += mine.size
    row = row[first]
    for (begin, number), new in zip(order, is_new, strict=True):
        rows[number][new] = row[begin : begin + int(np.count_nonzero(new))]

    copies = {split: np.zeros(following, np.int64) for split in splits}
    for scan, places in zip(scans, rows, strict=True):
        copies[scan.shard.split] += np.bincount(places, minlength=following)
    return Placement(new_packs, copies)


def loose_packs(parts: list[tuple[ShardScan, Int64s]]) -> list[NewPack]:
    """Cut loose records into packs of bounded size."""
    packs: list[NewPack] = []
    current: list[tuple[ShardScan, Int64s]] = []
    filled = 0
    for scan, rows in parts:
        while rows.size:
            ends = filled + np.cumsum(scan.sizes[rows].astype(np.int64) + FRAME_BYTES)
            fits = max(int(np.searchsorted(ends, LARGEST_PACK_BYTES, "right")), 0 if current else 1)
            if fits:
                current.append((scan, rows[:fits]))
                filled = int(ends[fits - 1])
            if fits < rows.size:
                packs.append(NewPack(current, is_whole=False))
                current, filled = [], 0
            rows = rows[fits:]
    return packs + ([NewPack(current, is_whole=False)] if current else [])


def first_occurrences(ids: Ids) -> Int64s:
    """Return for each id the position of the first one equal to it: int64, shape (records,)."""
    order = ids.order()
    sorted_ids = ids[order]
    begins = (
        np.flatnonzero(
            np.append(
                True,
                (sorted_ids.high[1:] != sorted_ids.high[:-1]) | (sorted_ids.low[1:] != sorted_ids.low[:-1]),
            )
        )
        if len(ids)
        else np.zeros(0, np.int64)
    )
    if begins.size == len(ids):
        return np.arange(len(ids))
    first = np.empty(len(ids), np.int64)
    lowest = np.minimum.reduceat(order, begins)
    first[order] = np.repeat(lowest, np.diff(np.append(begins, len(ids))))
    return first
