"""What changed between two versions: the bitmaps say which records, the records say which items."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mlplatform.datasets.commit import read_live
from mlplatform.datasets.features import feature_values, show
from mlplatform.datasets.line import Line
from mlplatform.datasets.live import HELD_OUT, Live, Rows
from mlplatform.datasets.manifest import Manifest, PackFacts
from mlplatform.datasets.pack import read_index
from mlplatform.datasets.pack_records import read_batches
from mlplatform.datasets.tfrecord import Int64s
from mlplatform.progress import track

KINDS = ("added", "removed", "changed", "moved", "ambiguous")
DEFAULT_LABEL = "label"

Value = tuple[bytes, ...] | None  # the serialized `Feature`s of a key


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
class VersionDiff:
    """What changed between two versions. Records count as often as they occur.

    Attributes:
        old, new: The versions.
        key: Features that identify an item; without any, what changed counts as added and removed.
        label: Feature that holds the class.
        items: Every item that differs.
        unchanged: Records that are in the same split of both.
        by_split: Per split: `added`, `removed`, `changed`, `ambiguous`, `moved_in`, `moved_out`, `unchanged`.
        by_label: Per class: `added`, `removed`, `changed`, `relabelled_in`, `relabelled_out`.
    """

    old: Manifest
    new: Manifest
    key: tuple[str, ...]
    label: str
    items: list[ItemChange] = field(repr=False)
    unchanged: int
    by_split: dict[str, dict[str, int]]
    by_label: dict[str, dict[str, int]]

    def count(self, kind: str) -> int:
        """Return how many records are of a kind of `KINDS`."""
        return sum(item.copies for item in self.items if item.kind == kind)

    def of_kind(self, kind: str) -> Iterator[ItemChange]:
        """Yield the items of a kind of `KINDS`."""
        return (item for item in self.items if item.kind == kind)


def diff(
    line: Line, old: Manifest, new: Manifest, key: Sequence[str] | None = None, label: str | None = None
) -> VersionDiff:
    """Compare two versions; see `DatasetStore.diff`."""
    names = tuple(new.key if key is None else key)
    label = label or new.label or DEFAULT_LABEL
    packs = {pack.name: pack for pack in [*old.packs, *new.packs]}
    before, after = _live(line, old), _live(line, new)
    removed, added = _changes(before, after)
    removed, added, moved = _moves(removed, added)
    values = _Values(line, packs, names, label)
    values.read([*removed, *added, *(place for pair in moved for place in pair)])
    items = [_item("moved", *pair, values) for pair in moved]
    items += _paired(removed, added, values) if names else _unpaired(removed, added, values)
    unchanged = {
        split: manifest_records
        - sum(place.copies for place in [*added, *(pair[1] for pair in moved)] if place.split == split)
        for split, manifest_records in ((name, facts.records) for name, facts in new.splits.items())
    }
    return VersionDiff(
        old=old,
        new=new,
        key=names,
        label=label,
        items=items,
        unchanged=sum(unchanged.values()),
        by_split=_by_split(items, unchanged, {*old.splits, *new.splits}),
        by_label=_by_label(items),
    )


def record_deltas(line: Line, difference: VersionDiff) -> list[RecordDelta]:
    """Return every record that occurs more or less often in a split; applied to the old they give the new."""
    packs = {pack.name: pack for pack in [*difference.old.packs, *difference.new.packs]}
    places = [(place, -1) for item in difference.items if (place := item.before) is not None]
    places += [(place, 1) for item in difference.items if (place := item.after) is not None]
    ids = {
        name: read_index(line.storage, line.dataset, packs[name]).ids
        for name in {place.pack for place, _ in places}
    }
    return [
        RecordDelta(place.split, ids[place.pack][place.row : place.row + 1].names()[0], sign * place.copies)
        for place, sign in places
    ]


def read_payloads(line: Line, packs: Iterable[PackFacts], places: Sequence[Place]) -> list[bytes]:
    """Return the records at some places, in their order."""
    payloads: dict[tuple[str, int], bytes] = {}
    by_name = {pack.name: pack for pack in packs}
    for pack, rows in _by_pack(places).items():
        for batch in read_batches(line.storage, line.dataset, by_name[pack], rows):
            payloads.update(zip(((pack, row) for row in batch.rows.tolist()), batch.payloads(), strict=True))
    return [payloads[place.pack, place.row] for place in places]


class _Values:
    """The keys and classes of records, read once."""

    def __init__(self, line: Line, packs: dict[str, PackFacts], key: tuple[str, ...], label: str) -> None:
        self._line, self._packs, self._key, self._label = line, packs, key, label
        self._found: dict[tuple[str, int], tuple[Value, bytes | None]] = {}
        self._texts: dict[bytes | None, str] = {}

    def read(self, places: Sequence[Place]) -> None:
        with track("read changed records", len(places)) as bar:
            for pack, rows in _by_pack(places).items():
                for batch in read_batches(self._line.storage, self._line.dataset, self._packs[pack], rows):
                    spans = (batch.buffer, batch.starts, batch.ends)
                    keys: list[Value] = feature_values(*spans, self._key) if self._key else [None] * rows.size
                    labels = feature_values(*spans, [self._label])
                    for row, key, label in zip(batch.rows.tolist(), keys, labels, strict=False):
                        self._found[pack, row] = key, label[0] if label else None
                    bar.advance(batch.rows.size)

    def key(self, place: Place) -> Value:
        return self._found[place.pack, place.row][0]

    def label_text(self, place: Place | None) -> str:
        if place is None:
            return ""
        label = self._found[place.pack, place.row][1]
        if label not in self._texts:
            self._texts[label] = show(label)
        return self._texts[label]


def _live(line: Line, manifest: Manifest) -> Live:
    return {place: rows for place, rows in read_live(line, manifest).items() if place[0] != HELD_OUT}


def _changes(before: Live, after: Live) -> tuple[list[Place], list[Place]]:
    removed: list[Place] = []
    added: list[Place] = []
    for split, pack in sorted({*before, *after}):
        old, new = before.get((split, pack)), after.get((split, pack))
        size = (old or new).is_live.size  # type: ignore[union-attr]
        for rows, copies in _rows_that_differ(old, new, size):
            into = added if copies > 0 else removed
            into.append(Place(pack, rows, split, abs(copies)))
    return removed, added


def _rows_that_differ(old: Rows | None, new: Rows | None, size: int) -> Iterator[tuple[int, int]]:
    """Yield (row, how many copies more)."""
    if (old is None or not old.repeated.size) and (new is None or not new.repeated.size):
        none = np.zeros(size, np.bool_)
        was, is_ = (none if old is None else old.is_live), (none if new is None else new.is_live)
        yield from ((row, 1) for row in np.flatnonzero(is_ & ~was).tolist())
        yield from ((row, -1) for row in np.flatnonzero(was & ~is_).tolist())
        return
    change = (new.copies() if new else 0) - (old.copies() if old else np.zeros(size, np.int64))
    rows = np.flatnonzero(change)
    yield from zip(rows.tolist(), change[rows].tolist(), strict=True)


def _moves(
    removed: list[Place], added: list[Place]
) -> tuple[list[Place], list[Place], list[tuple[Place, Place]]]:
    """Find records that left one split and came into another."""
    gone: dict[tuple[str, int], list[Place]] = {}
    came = {(place.pack, place.row) for place in added}
    for place in removed:
        if (place.pack, place.row) in came:
            gone.setdefault((place.pack, place.row), []).append(place)
    if not gone:
        return removed, added, []
    moved, rest_added = [], []
    for place in added:
        left = place.copies
        sources = gone.get((place.pack, place.row), [])
        while left and sources:
            source = sources.pop()
            copies = min(left, source.copies)
            moved.append((_with(source, copies), _with(place, copies)))
            left -= copies
            if source.copies > copies:
                sources.append(_with(source, source.copies - copies))
        if left:
            rest_added.append(_with(place, left))
    moving = set(gone)
    rest_removed = [place for place in removed if (place.pack, place.row) not in moving]
    rest_removed += [place for sources in gone.values() for place in sources]
    return rest_removed, rest_added, moved


def _with(place: Place, copies: int) -> Place:
    return place if place.copies == copies else Place(place.pack, place.row, place.split, copies)


def _unpaired(removed: list[Place], added: list[Place], values: _Values) -> list[ItemChange]:
    return [_item("removed", place, None, values) for place in removed] + [
        _item("added", None, place, values) for place in added
    ]


def _paired(removed: list[Place], added: list[Place], values: _Values) -> list[ItemChange]:
    """Pair what went with what came by the key, where that is no guess."""
    went, came = _by_key(removed, values), _by_key(added, values)
    items = _unpaired(went.pop(None, []), came.pop(None, []), values)
    for key in {**went, **came}:
        old, new = went.get(key, []), came.get(key, [])
        if len(old) > 1 or len(new) > 1:
            items += [_item("ambiguous", place, None, values) for place in old]
            items += [_item("ambiguous", None, place, values) for place in new]
            continue
        both = min(old[0].copies, new[0].copies) if old and new else 0
        if both:
            items.append(_item("changed", _with(old[0], both), _with(new[0], both), values))
        if old and old[0].copies > both:
            items.append(_item("removed", _with(old[0], old[0].copies - both), None, values))
        if new and new[0].copies > both:
            items.append(_item("added", None, _with(new[0], new[0].copies - both), values))
    return items


def _by_key(places: list[Place], values: _Values) -> dict[Value, list[Place]]:
    groups: defaultdict[Value, list[Place]] = defaultdict(list)
    for place in places:
        groups[values.key(place)].append(place)
    return groups


def _item(kind: str, before: Place | None, after: Place | None, values: _Values) -> ItemChange:
    place = after or before
    assert place is not None
    return ItemChange(
        kind, before, after, values.key(place), values.label_text(before), values.label_text(after)
    )


def _by_split(
    items: list[ItemChange], unchanged: dict[str, int], splits: set[str]
) -> dict[str, dict[str, int]]:
    columns = ("added", "removed", "changed", "ambiguous", "moved_in", "moved_out")
    table = {split: dict.fromkeys((*columns, "unchanged"), 0) for split in sorted(splits)}
    for item in items:
        if item.kind == "moved":
            assert item.before
            assert item.after
            table[item.before.split]["moved_out"] += item.copies
            table[item.after.split]["moved_in"] += item.copies
        else:
            place = item.after or item.before
            assert place
            table[place.split][item.kind] += item.copies
    for split, records in unchanged.items():
        table[split]["unchanged"] = records
    return table


def _by_label(items: list[ItemChange]) -> dict[str, dict[str, int]]:
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (kind, old, new), copies in _label_changes(items).items():
        table[old if kind == "removed" else new][kind] += copies
        if kind == "changed" and old != new:
            table[old]["relabelled_out"] += copies
            table[new]["relabelled_in"] += copies
    columns = ("added", "removed", "changed", "relabelled_in", "relabelled_out")
    return {label: {column: table[label][column] for column in columns} for label in sorted(table)}


def _label_changes(items: list[ItemChange]) -> Counter[tuple[str, str, str]]:
    """Count the items by kind, class before and class after."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for item in items:
        if item.kind in ("added", "removed", "changed"):
            counts[item.kind, item.label_before, item.label_after] += item.copies
    return counts


def _by_pack(places: Sequence[Place]) -> dict[str, Int64s]:
    rows: dict[str, set[int]] = {}
    for place in places:
        rows.setdefault(place.pack, set()).add(place.row)
    return {pack: np.array(sorted(found), np.int64) for pack, found in rows.items()}
