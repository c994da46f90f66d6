"""What changed between two versions: the bitmaps say which records, the records say which items."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.commit import read_live
from mlplatform.datasets.format.features import feature_spans, show
from mlplatform.datasets.format.live import HELD_OUT, Live, Rows
from mlplatform.datasets.format.manifest import Manifest, PackFacts
from mlplatform.datasets.format.pack import read_index
from mlplatform.datasets.format.pack_records import read_batches
from mlplatform.datasets.format.tfrecord import Int64s
from mlplatform.datasets.format.values import Values, joint_codes
from mlplatform.datasets.line import Line
from mlplatform.datasets.reading import reading
from mlplatform.progress import Task, track

KINDS = ("added", "removed", "changed", "moved", "ambiguous")
DEFAULT_LABEL = "label"

Struct = npt.NDArray[np.void]
Value = tuple[bytes, ...] | None  # the serialized `Feature`s of a key
_SPLIT_COLUMNS = ("added", "removed", "changed", "ambiguous", "moved_in", "moved_out", "unchanged")
_LABEL_COLUMNS = ("added", "removed", "changed", "relabelled_in", "relabelled_out")
_ROW_BITS = 32  # a pack has fewer rows
# Records that occur more or less often in a split: the record's number in `_Records`, the split's, how often.
_MORE_OR_LESS = np.dtype([("record", "<i8"), ("split", "<i4"), ("copies", "<i8")])
# Items: number in KINDS; records and splits before and after, -1 for none; copies.
_ITEM = np.dtype(
    [
        ("kind", "<i1"),
        ("before", "<i8"),
        ("before_split", "<i4"),
        ("after", "<i8"),
        ("after_split", "<i4"),
        ("copies", "<i8"),
    ]
)


class Place(NamedTuple):
    """A record of a version.

    Attributes:
        pack: Name of the pack.
        row: Its place in the pack.
        split: The split.
        copies: How many of its copies this is about.
    """

    pack: str
    row: int
    split: str
    copies: int


class ItemChange(NamedTuple):
    """One item that differs between two versions.

    Attributes:
        kind: One of `KINDS`.
        before: The record in the old version; None where it was not there.
        after: The record in the new version; None where it is gone.
        key_values: The key's serialized `Feature`s; None where no key is given or the record has none.
        label_before, label_after: The class, as text; empty where the record has none.
    """

    kind: str
    before: Place | None
    after: Place | None
    key_values: Value = None
    label_before: str = ""
    label_after: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Values of the key features, as text; empty where no key is given or the record has none."""
        return tuple(show(value) for value in self.key_values or ())

    @property
    def copies(self) -> int:
        """How many copies of the record this is about."""
        place = self.after or self.before
        return place.copies if place else 0


@dataclass(frozen=True)
class RecordDelta:
    """A record that occurs more or less often in a split of the new version.

    Attributes:
        split: The split.
        record: Record id, in hexadecimal.
        copies: Above 0 where it came, below 0 where it went.
    """

    split: str
    record: str
    copies: int


@dataclass(frozen=True)
class _Records:
    """The records that differ, sorted by pack and row, with what the diff needs of each.

    Attributes:
        packs: Pack names.
        places: int64, shape (records,): the pack's number and, in the low `_ROW_BITS`, the row.
        key: Per key feature, the values.
        labels: int64, shape (records,): the class, as a place in `label_texts`.
        label_texts: The classes.
    """

    packs: list[str]
    places: Int64s
    key: list[Values]
    labels: Int64s
    label_texts: list[str]


@dataclass(frozen=True)
class VersionDiff:
    """What changed between two versions. Records count as often as they occur.

    Attributes:
        old, new: The versions.
        key: Features that identify an item; without any, what changed counts as added and removed.
        label: Feature that holds the class.
        unchanged: Records that are in the same split of both.
        by_split: Per split: `added`, `removed`, `changed`, `ambiguous`, `moved_in`, `moved_out`, `unchanged`.
            An item that changed and is in another split is `changed` as a whole; here it moved out of one
            split and into the other.
        by_label: Per class: `added`, `removed`, `changed`, `relabelled_in`, `relabelled_out`.
    """

    old: Manifest
    new: Manifest
    key: tuple[str, ...]
    label: str
    unchanged: int
    by_split: dict[str, dict[str, int]]
    by_label: dict[str, dict[str, int]]
    _records: _Records = field(repr=False)
    _splits: list[str] = field(repr=False)
    _items: Struct = field(repr=False)

    def _repr_html_(self) -> str:
        from mlplatform.datasets.notebook import difference_table

        return difference_table(self)

    def count(self, kind: str) -> int:
        """Return how many records are of a kind of `KINDS`."""
        return int(self._items["copies"][self._items["kind"] == KINDS.index(kind)].sum())

    def items(self) -> Iterator[ItemChange]:
        """Yield every item that differs."""
        return map(self._item, range(self._items.size))

    def of_kind(self, kind: str) -> Iterator[ItemChange]:
        """Yield the items of a kind of `KINDS`."""
        return map(self._item, np.flatnonzero(self._items["kind"] == KINDS.index(kind)).tolist())

    def sample(self, kind: str, most: int) -> list[ItemChange]:
        """Return some items of a kind of `KINDS`, one of each class in turn."""
        chosen = np.flatnonzero(self._items["kind"] == KINDS.index(kind))
        items = self._items[chosen]
        labels = self._records.labels[np.where(items["after"] >= 0, items["after"], items["before"])]
        order = np.argsort(labels, kind="stable")
        _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
        turn = np.arange(order.size) - np.repeat(first, counts)
        return [self._item(int(chosen[one])) for one in order[np.argsort(turn, kind="stable")[:most]]]

    def deltas(self) -> Iterator[tuple[Place, int]]:
        """Yield each record that came (1) or went (-1), with its place."""
        for number in range(self._items.size):
            before, after = self._places(number)
            if before is not None:
                yield before, -1
            if after is not None:
                yield after, 1

    def _places(self, number: int) -> tuple[Place | None, Place | None]:
        _, before, before_split, after, after_split, copies = self._items[number].item()
        return self._place(before, before_split, copies), self._place(after, after_split, copies)

    def _place(self, record: int, split: int, copies: int) -> Place | None:
        if record < 0:
            return None
        pack, row = divmod(int(self._records.places[record]), 1 << _ROW_BITS)
        return Place(self._records.packs[pack], row, self._splits[split], copies)

    def _item(self, number: int) -> ItemChange:
        before, after = int(self._items["before"][number]), int(self._items["after"][number])
        values = [column[after if after >= 0 else before] for column in self._records.key]
        texts = [
            self._records.label_texts[self._records.labels[record]] if record >= 0 else ""
            for record in (before, after)
        ]
        known = tuple(value for value in values if value is not None)
        key = known if known and len(known) == len(values) else None
        return ItemChange(KINDS[self._items["kind"][number]], *self._places(number), key, *texts)


def diff(
    line: Line, old: Manifest, new: Manifest, key: Sequence[str] | None = None, label: str | None = None
) -> VersionDiff:
    """Compare two versions; see `DatasetStore.diff`."""
    with reading(line.storage, line.dataset):
        return _diff(
            line, old, new, tuple(new.key if key is None else key), label or new.label or DEFAULT_LABEL
        )


def _diff(line: Line, old: Manifest, new: Manifest, key: tuple[str, ...], label: str) -> VersionDiff:
    packs = {pack.name: pack for pack in [*old.packs, *new.packs]}
    splits = sorted({*old.splits, *new.splits})
    gone, came = _changes(_live(line, old), _live(line, new), list(packs), splits)
    places, numbers = np.unique(np.concatenate([gone["record"], came["record"]]), return_inverse=True)
    gone["record"], came["record"] = np.split(numbers.reshape(-1), [gone.size])
    records = _read(line, list(packs.values()), places, key, label)
    unchanged = {
        split: facts.records - int(came["copies"][came["split"] == splits.index(split)].sum())
        for split, facts in new.splits.items()
    }
    old_at, new_at, copies = _matched(gone["record"], gone["copies"], came["record"], came["copies"])
    items = [_items("moved", gone[old_at], came[new_at], copies)]
    gone, came = _without(gone, old_at, copies), _without(came, new_at, copies)
    if key:
        items += _paired(gone, came, joint_codes(records.key))
    else:
        items += [_items("removed", gone, None), _items("added", None, came)]
    joined = np.concatenate(items)
    return VersionDiff(
        old=old,
        new=new,
        key=key,
        label=label,
        unchanged=sum(unchanged.values()),
        by_split=_by_split(joined, unchanged, splits),
        by_label=_by_label(joined, records),
        _records=records,
        _splits=splits,
        _items=joined,
    )


def record_deltas(line: Line, difference: VersionDiff) -> list[RecordDelta]:
    """Return every record that occurs more or less often in a split; applied to the old they give the new."""
    packs = {pack.name: pack for pack in [*difference.old.packs, *difference.new.packs]}
    deltas = list(difference.deltas())
    ids = {
        name: read_index(line.storage, line.dataset, packs[name]).ids
        for name in {place.pack for place, _ in deltas}
    }
    return [
        RecordDelta(place.split, ids[place.pack][place.row : place.row + 1].names()[0], sign * place.copies)
        for place, sign in deltas
    ]


def read_payloads(line: Line, packs: Iterable[PackFacts], places: Sequence[Place]) -> list[bytes]:
    """Return the records at some places, in their order."""
    payloads: dict[tuple[str, int], bytes] = {}
    by_name = {pack.name: pack for pack in packs}
    for pack, rows in _by_pack(places).items():
        for batch in read_batches(line.storage, line.dataset, by_name[pack], rows):
            payloads.update(zip(((pack, row) for row in batch.rows.tolist()), batch.payloads(), strict=True))
    return [payloads[place.pack, place.row] for place in places]


def _read(line: Line, packs: list[PackFacts], places: Int64s, key: tuple[str, ...], label: str) -> _Records:
    """Read the keys and classes of the records at some places, ascending."""
    bounds = np.searchsorted(places, np.arange(len(packs) + 1, dtype=np.int64) << _ROW_BITS)
    rows = [places[first:last] & ((1 << _ROW_BITS) - 1) for first, last in itertools.pairwise(bounds)]
    names = tuple(dict.fromkeys((*key, label)))
    with track("read changed records", places.size) as bar:
        parts = [_read_pack(line, pack, mine, names, bar) for pack, mine in zip(packs, rows, strict=True)]
    columns = {
        name: Values.join([one for part in parts for one in part[place]]) for place, name in enumerate(names)
    }
    codes = columns[label].codes()
    _, first, numbers = np.unique(codes, return_index=True, return_inverse=True)
    texts = [show(columns[label][record]) for record in first.tolist()]
    known = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    labels = np.array([known[text] for text in texts], np.int64)[numbers.reshape(-1)]
    return _Records(
        [pack.name for pack in packs], places, [columns[name] for name in key], labels, list(known)
    )


def _read_pack(
    line: Line, pack: PackFacts, rows: Int64s, names: Sequence[str], bar: Task
) -> list[list[Values]]:
    columns: list[list[Values]] = [[] for _ in names]
    for batch in read_batches(line.storage, line.dataset, pack, rows):
        spans = feature_spans(batch.buffer, batch.starts, batch.ends, names)
        for column, (begins, sizes) in zip(columns, spans, strict=True):
            column.append(Values.copied(batch.buffer, begins, sizes))
        bar.advance(batch.rows.size)
    return columns


def _live(line: Line, manifest: Manifest) -> Live:
    return {place: rows for place, rows in read_live(line, manifest).items() if place[0] != HELD_OUT}


def _changes(before: Live, after: Live, packs: list[str], splits: list[str]) -> tuple[Struct, Struct]:
    """Return what went and what came; a record's number is its place for now, as in `_Records.places`."""
    gone, came = [np.zeros(0, _MORE_OR_LESS)], [np.zeros(0, _MORE_OR_LESS)]
    pack_numbers = {name: number for number, name in enumerate(packs)}
    for split, pack in sorted({*before, *after}):
        change = _change(before.get((split, pack)), after.get((split, pack)))
        for rows, into in ((np.flatnonzero(change < 0), gone), (np.flatnonzero(change > 0), came)):
            found = np.zeros(rows.size, _MORE_OR_LESS)
            found["record"] = rows + (pack_numbers[pack] << _ROW_BITS)
            found["split"] = splits.index(split)
            found["copies"] = np.abs(change[rows])
            into.append(found)
    return np.concatenate(gone), np.concatenate(came)


def _change(old: Rows | None, new: Rows | None) -> "npt.NDArray[np.signedinteger[Any]]":
    """Return how much more often each record of a pack occurs."""
    if old is None:
        return _copies(new) if new is not None else np.zeros(0, np.int8)
    return -_copies(old) if new is None else _copies(new) - _copies(old)


def _copies(rows: Rows) -> "npt.NDArray[np.signedinteger[Any]]":
    return rows.copies() if rows.repeated.size else rows.is_live.view(np.int8)


def _matched(
    old_groups: Int64s, old_copies: Int64s, new_groups: Int64s, new_copies: Int64s
) -> tuple[Int64s, Int64s, Int64s]:
    """Pair copies on both sides that are of one group, as many as both sides have.

    The copies of a group lie on a line, old and new side by side, and one group's line behind the other's:
    wherever a place begins or ends, a pair does.

    Returns:
        int64, shape (pairs,): place among the old ones, place among the new ones, copies of the pair.
    """
    both = np.intersect1d(old_groups, new_groups)
    old_at, old_ends, room = _lined_up(old_groups, old_copies, both)
    new_at, new_ends, other = _lined_up(new_groups, new_copies, both)
    room = np.minimum(room, other)
    bases = np.cumsum(room) - room

    def clipped(at: Int64s, groups: Int64s, ends: Int64s) -> Int64s:
        group = np.searchsorted(both, groups[at])
        line: Int64s = bases[group] + np.minimum(ends, room[group])
        return line

    old_ends, new_ends = clipped(old_at, old_groups, old_ends), clipped(new_at, new_groups, new_ends)
    cuts = np.union1d(old_ends, new_ends)
    copies = np.diff(cuts, prepend=0)
    begins = cuts - copies
    return (
        old_at[np.searchsorted(old_ends, begins, "right")],
        new_at[np.searchsorted(new_ends, begins, "right")],
        copies,
    )


def _lined_up(groups: Int64s, copies: Int64s, wanted: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Return the places of the wanted groups, by group; where each ends in its group; the groups' copies."""
    at = np.flatnonzero(np.isin(groups, wanted))
    at = at[np.argsort(groups[at], kind="stable")]
    ends = np.cumsum(copies[at])
    last = np.searchsorted(groups[at], wanted, "right")
    totals = np.diff(np.concatenate([[0], ends])[last], prepend=0)
    before = (np.cumsum(totals) - totals)[np.searchsorted(wanted, groups[at])]
    return at, ends - before, totals


def _without(places: Struct, at: Int64s, copies: Int64s) -> Struct:
    """Return what is left of some places when copies of some of them are taken away."""
    left = places.copy()
    left["copies"] -= _sums(at, copies, left.size)
    return left[left["copies"] > 0]


def _paired(gone: Struct, came: Struct, codes: Int64s) -> list[Struct]:
    """Pair what went with what came by the key, where that is no guess."""
    old, new = codes[gone["record"]], codes[came["record"]]
    keys = int(codes.max(initial=-1)) + 1
    is_ambiguous = (
        np.maximum(np.bincount(old[old >= 0], minlength=keys), np.bincount(new[new >= 0], minlength=keys)) > 1
    )
    is_ambiguous = np.append(is_ambiguous, False)  # the last is code -1, no key
    unsure_old, unsure_new = is_ambiguous[old], is_ambiguous[new]
    items = [_items("ambiguous", gone[unsure_old], None), _items("ambiguous", None, came[unsure_new])]
    gone, came, old, new = gone[~unsure_old], came[~unsure_new], old[~unsure_old], new[~unsure_new]
    with_old, with_new = np.flatnonzero(old >= 0), np.flatnonzero(new >= 0)
    old_at, new_at, copies = _matched(
        old[with_old], gone["copies"][with_old], new[with_new], came["copies"][with_new]
    )
    old_at, new_at = with_old[old_at], with_new[new_at]
    items.append(_items("changed", gone[old_at], came[new_at], copies))
    gone, came = _without(gone, old_at, copies), _without(came, new_at, copies)
    return [*items, _items("removed", gone, None), _items("added", None, came)]


def _items(kind: str, before: Struct | None, after: Struct | None, copies: Int64s | None = None) -> Struct:
    """Make items of one kind; of the places that are given, one is missing or both have the same shape."""
    one = before if before is not None else after
    items = np.zeros(0 if one is None else one.size, _ITEM)
    items["kind"] = KINDS.index(kind)
    items["copies"] = copies if copies is not None or one is None else one["copies"]
    for side, places in (("before", before), ("after", after)):
        items[side] = -1 if places is None else places["record"]
        items[f"{side}_split"] = -1 if places is None else places["split"]
    return items


def _by_split(items: Struct, unchanged: dict[str, int], splits: list[str]) -> dict[str, dict[str, int]]:
    table = {split: dict.fromkeys(_SPLIT_COLUMNS, 0) for split in splits}

    def count(chosen: Struct, side: str, column: str) -> None:
        for split, copies in zip(
            splits, _sums(chosen[f"{side}_split"], chosen["copies"], len(splits)), strict=True
        ):
            table[split][column] += int(copies)

    for number, kind in enumerate(KINDS):
        mine = items[items["kind"] == number]
        has_both = (mine["before"] >= 0) & (mine["after"] >= 0)
        crosses = has_both & (mine["before_split"] != mine["after_split"])
        count(mine[crosses], "before", "moved_out")
        count(mine[crosses], "after", "moved_in")
        if kind != "moved":  # all of those cross
            stays = mine[~crosses]
            count(stays[stays["after"] >= 0], "after", kind)
            count(stays[stays["after"] < 0], "before", kind)
    for split, records in unchanged.items():
        table[split]["unchanged"] = records
    return table


def _by_label(items: Struct, records: _Records) -> dict[str, dict[str, int]]:
    texts = records.label_texts
    columns = {column: np.zeros(len(texts), np.int64) for column in _LABEL_COLUMNS}
    for kind, side in (("added", "after"), ("removed", "before"), ("changed", "after")):
        mine = items[items["kind"] == KINDS.index(kind)]
        columns[kind] = _sums(records.labels[mine[side]], mine["copies"], len(texts))
    changed = items[items["kind"] == KINDS.index("changed")]
    relabelled = changed[records.labels[changed["before"]] != records.labels[changed["after"]]]
    for side, column in (("before", "relabelled_out"), ("after", "relabelled_in")):
        columns[column] = _sums(records.labels[relabelled[side]], relabelled["copies"], len(texts))
    return {
        texts[place]: {column: int(counts[place]) for column, counts in columns.items()}
        for place in sorted(range(len(texts)), key=texts.__getitem__)
        if any(counts[place] for counts in columns.values())
    }


def _sums(groups: Int64s, copies: Int64s, size: int) -> Int64s:
    return np.bincount(groups, copies, size).astype(np.int64)  # as floats: exact up to 2**53


def _by_pack(places: Sequence[Place]) -> dict[str, Int64s]:
    rows: dict[str, set[int]] = {}
    for place in places:
        rows.setdefault(place.pack, set()).add(place.row)
    return {pack: np.array(sorted(found), np.int64) for pack, found in rows.items()}
