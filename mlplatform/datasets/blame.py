"""Which versions, and what was made from them, saw the records of an item."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlplatform.datasets.commit import read_live
from mlplatform.datasets.errors import KeyValuesError, NoKeyError
from mlplatform.datasets.forgotten import Erasure, erasures
from mlplatform.datasets.format.features import (
    candidates,
    feature_values,
    hash_feature_values,
    holds_text,
    show,
    traces_of_text,
)
from mlplatform.datasets.format.live import HELD_OUT
from mlplatform.datasets.format.manifest import PackFacts
from mlplatform.datasets.format.pack import read_index
from mlplatform.datasets.format.pack_records import Batch, pack_windows, read_batches
from mlplatform.datasets.format.tfrecord import Int64s
from mlplatform.datasets.keys import kept_hashes
from mlplatform.datasets.line import Line
from mlplatform.datasets.notes import Copy, Use, read_copies, read_uses
from mlplatform.datasets.reading import reading
from mlplatform.progress import track


@dataclass(frozen=True)
class Appearance:
    """A record in a version.

    Attributes:
        version: The version's name.
        split: The split.
        copies: How often it is there.
    """

    version: str
    split: str
    copies: int


@dataclass(frozen=True)
class BlamedRecord:
    """A record of the item.

    Attributes:
        record: Record id, in hexadecimal.
        label: The class, as text; empty where it has none.
        pack: Pack that holds it.
        row: Its place in the pack.
        appearances: Where it is, the oldest version first.
    """

    record: str
    label: str
    pack: str
    row: int
    appearances: list[Appearance]


@dataclass(frozen=True)
class Blame:
    """What is known of an item.

    Attributes:
        key: Features that identify an item.
        value: The item's key, as it was asked for.
        records: Its records: several where it changed, or has several.
        uses: What was made from the versions that hold any of them.
        copies: Folders that hold, or once held, versions with any of them: what was committed, checked out
            and exported, as far as the store knows.
        found_in: Features that hold the value, where it is not the key's; empty where it is.
        erased: What was erased of an item with this key before.
    """

    key: tuple[str, ...]
    value: str
    records: list[BlamedRecord]
    uses: list[Use]
    copies: list[Copy]
    found_in: tuple[str, ...] = ()
    erased: list[Erasure] = field(default_factory=list)

    @property
    def versions(self) -> list[str]:
        """The versions that hold a record of the item, the oldest first."""
        names = {one.version for record in self.records for one in record.appearances}
        return sorted(names, key=lambda name: int(name[1:]))


def blame(
    line: Line,
    value: str | Sequence[str],
    key: Sequence[str] | None = None,
    label: str | None = None,
    *,
    is_by_key: bool = False,
) -> Blame:
    """Trace an item; see `DatasetStore.blame`."""
    line.resolve()
    with reading(line.storage, line.dataset):
        return trace(line, value, key, label, is_by_key=is_by_key)


def trace(
    line: Line,
    value: str | Sequence[str],
    key: Sequence[str] | None = None,
    label: str | None = None,
    *,
    is_by_key: bool = False,
) -> Blame:
    """Trace an item of a dataset that is held already.

    Where no item has the value as its key, and no key is given, the records are found that hold it in any
    feature, as text or as the end of a path; with `is_by_key` they are not.
    """
    latest = line.resolve()
    names = tuple(latest.key if key is None else key)
    label = label or latest.label or "label"
    text = value if isinstance(value, str) else value[0] if len(value) == 1 else None
    may_be_text = text is not None and key is None and not is_by_key
    if not names and not may_be_text:
        raise NoKeyError(line.dataset, "forget" if is_by_key else "blame")
    records: list[BlamedRecord] = []
    erased: list[Erasure] = []
    wanted = _wanted_or_none(value, names) if may_be_text else wanted_values(value, names)
    if wanted is not None:
        records = _records(line, _suspects(line, names, wanted), _Match.of_key(names, wanted), label)
        erased = [
            erasure
            for erasure in erasures(line.storage, line.dataset)
            if any(item.key == names and any(map(item.is_of, wanted)) for item in erasure.items)
        ]
    match = _Match.of_text((text or "").encode())
    if may_be_text and not records:
        records = _records(line, _holders(line, (text or "").encode()), match, label)
        if not records and wanted is None and names:
            raise KeyValuesError(text or "", names)
    seen_in = {one.version for record in records for one in record.appearances}
    return Blame(
        key=names,
        value=value if isinstance(value, str) else ",".join(value),
        records=records,
        uses=[use for use in read_uses(line) if use.version in seen_in],
        copies=[copy for copy in read_copies(line) if copy.version in seen_in],
        found_in=tuple(sorted(match.features)),
        erased=erased,
    )


def _wanted_or_none(value: str | Sequence[str], key: tuple[str, ...]) -> set[tuple[bytes, ...]] | None:
    try:
        return wanted_values(value, key)
    except KeyValuesError:
        return None


def wanted_values(value: str | Sequence[str], key: tuple[str, ...]) -> set[tuple[bytes, ...]]:
    """Return the serialized `Feature`s that a key written as text may stand for. Raises KeyValuesError."""
    return set(itertools.product(*map(candidates, _parts(value, key))))


def _parts(value: str | Sequence[str], key: tuple[str, ...]) -> list[str]:
    """Return a value per key feature: they are given one by one, or as one text with commas."""
    parts = [value] if isinstance(value, str) else list(value)
    if len(parts) == 1 and len(key) > 1:
        parts = parts[0].split(",")
    if len(parts) != len(key):
        raise KeyValuesError(",".join(parts), key)
    return parts


@dataclass
class _Match:
    """Which records of a batch are meant; collects the features in which a text was found."""

    find: "Callable[[Batch], list[bool]]"
    features: set[str] = field(default_factory=set)

    @classmethod
    def of_key(cls, key: tuple[str, ...], wanted: set[tuple[bytes, ...]]) -> "_Match":
        return cls(
            lambda batch: [
                values in wanted for values in feature_values(batch.buffer, batch.starts, batch.ends, key)
            ]
        )

    @classmethod
    def of_text(cls, text: bytes) -> "_Match":
        def find(batch: Batch) -> list[bool]:
            found = [holds_text(record, text) for record in batch.payloads()]
            match.features.update(*found)
            return list(map(bool, found))

        match = cls(find)
        return match


def _records(
    line: Line, suspects: Iterator[tuple[PackFacts, Int64s]], match: _Match, label: str
) -> list[BlamedRecord]:
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for pack, rows in suspects:
        if not rows.size:
            continue
        ids = read_index(line.storage, line.dataset, pack).ids[rows].names()
        texts = dict(zip(rows.tolist(), ids, strict=True))
        for batch in read_batches(line.storage, line.dataset, pack, rows):
            spans = (batch.buffer, batch.starts, batch.ends)
            labels = feature_values(*spans, [label])
            for row, is_meant, shown in zip(batch.rows.tolist(), match.find(batch), labels, strict=True):
                if is_meant:
                    found[pack.name, row] = texts[row], show(shown[0]) if shown else ""
    appearances: dict[tuple[str, int], list[Appearance]] = {place: [] for place in found}
    packs = {pack for pack, _ in found}
    for manifest in line.manifests:
        if packs.isdisjoint(pack.name for pack in manifest.packs):
            continue
        live = read_live(line, manifest)
        for (split, name), rows_of in live.items():
            if split == HELD_OUT or name not in packs:
                continue
            copies = rows_of.copies() if rows_of.repeated.size else rows_of.is_live
            for place in found:
                if place[0] == name and copies[place[1]]:
                    appearances[place].append(Appearance(manifest.version, split, int(copies[place[1]])))
    return [
        BlamedRecord(record, text, *place, appearances[place])
        for place, (record, text) in found.items()
        if appearances[place]
    ]


def _suspects(
    line: Line, key: tuple[str, ...], wanted: set[tuple[bytes, ...]]
) -> Iterator[tuple[PackFacts, Int64s]]:
    """Yield per pack the rows that may be of the item: found by the kept hashes, else by the key's bytes."""
    hashes = np.array([hash_feature_values(values) for values in wanted], np.uint64)
    columns = [set(column) for column in zip(*wanted, strict=True)]
    texts = max(columns, key=lambda column: min(map(len, column)))  # the longest stand in the fewest records
    with track("look for the item", sum(pack.records for pack in line.packs)) as bar:
        for pack in line.packs:
            kept = kept_hashes(line.storage, line.dataset, pack, key)
            if kept is not None:
                yield pack, np.flatnonzero(np.isin(kept, hashes))
            else:
                yield pack, _rows_with(line, pack, texts)
            bar.advance(pack.records)


def _holders(line: Line, text: bytes) -> Iterator[tuple[PackFacts, Int64s]]:
    """Yield per pack the rows that may hold a text in some feature."""
    if not text:
        return
    with track("look into all features", sum(pack.records for pack in line.packs)) as bar:
        for pack in line.packs:
            yield pack, _rows_with(line, pack, traces_of_text(text))
            bar.advance(pack.records)


def _rows_with(line: Line, pack: PackFacts, texts: set[bytes]) -> Int64s:
    """Return the rows of a pack that hold any of some texts."""
    rows, before = [np.zeros(0, np.int64)], 0
    for window in pack_windows(line.storage, line.dataset, pack):
        data = window.buffer.tobytes()
        hits = np.array([at for text in texts for at in _all_places(data, text)], np.int64)
        found = np.unique(np.searchsorted(window.starts, hits, "right") - 1)
        rows.append(before + found[found >= 0])
        before += window.starts.size
    return np.concatenate(rows)


def _all_places(data: bytes, text: bytes) -> Iterator[int]:
    at = data.find(text)
    while at >= 0:
        yield at
        at = data.find(text, at + 1)
