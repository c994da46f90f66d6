"""Corrects labels as a version that is a delta: only the records that change are read and written."""

import csv
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlplatform.datasets.blame import wanted_values
from mlplatform.datasets.commit import CommitOptions, Committed, declared_for, finish, read_live
from mlplatform.datasets.errors import CorrectionsError, NoKeyError
from mlplatform.datasets.examples_folder import list_shards
from mlplatform.datasets.forgotten import check_none_forgotten
from mlplatform.datasets.format.digest import sorted_digest
from mlplatform.datasets.format.features import feature_values, hash_feature_values, with_text
from mlplatform.datasets.format.hashing import Ids
from mlplatform.datasets.format.live import HELD_OUT, Live, Rows
from mlplatform.datasets.format.manifest import Manifest, version_digest
from mlplatform.datasets.format.pack import read_index
from mlplatform.datasets.format.pack_records import read_batches
from mlplatform.datasets.format.tfrecord import frame
from mlplatform.datasets.keys import key_hashes
from mlplatform.datasets.line import Line
from mlplatform.datasets.notes import printable
from mlplatform.datasets.placement import place
from mlplatform.datasets.scan import scan_shards
from mlplatform.datasets.write_packs import write_packs
from mlplatform.storage import Storage
from mlplatform.storage.urls import absolute

DEFAULT_LABEL = "label"


@dataclass(frozen=True)
class Corrections:
    """New labels of items, as a file gives them.

    Attributes:
        source: The file.
        key: Features that identify an item: its columns before the label's.
        labels: Key values to the new label.
        rows: Key values to the row that they were read from, 2 for the first below the header.
    """

    source: str
    key: tuple[str, ...]
    labels: Mapping[tuple[str, ...], str]
    rows: Mapping[tuple[str, ...], int]


def read_corrections(file: str | os.PathLike[str], key: Sequence[str], label: str) -> Corrections:
    """Read a CSV file with a column for each key feature, and one for the label; others are ignored.

    Raises:
        CorrectionsError: It cannot be read, a column is missing, a value is empty, or an item has two labels.
    """
    source = str(file)
    labels: dict[tuple[str, ...], str] = {}
    rows: dict[tuple[str, ...], int] = {}
    problems = []
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in (*key, label) if name not in (reader.fieldnames or ())]
            if missing:
                has = ", ".join(reader.fieldnames or ()) or "no header"
                raise CorrectionsError(source, [f"it has no column {missing[0]!r}; it has {has}"])
            for row in reader:
                number = reader.line_num
                item, text = tuple(row[name] or "" for name in key), row[label] or ""
                if not all(item) or not text:
                    problems.append(f"row {number} has no {label if all(item) else 'key'}")
                elif labels.setdefault(item, text) != text:
                    problems.append(
                        f"row {number} calls {','.join(item)!r} {text!r}, row {rows[item]} {labels[item]!r}"
                    )
                rows.setdefault(item, number)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorrectionsError(source, [f"it cannot be read: {error}"]) from error
    if problems:
        raise CorrectionsError(source, problems)
    if not labels:
        raise CorrectionsError(source, ["it has no rows"])
    return Corrections(source, tuple(key), labels, rows)


def relabel(
    storage: Storage,
    dataset: str,
    file: str | os.PathLike[str],
    *,
    key: Sequence[str] | None = None,
    label: str | None = None,
    message: str = "",
) -> Committed:
    """Commit the newest version with other labels; see `DatasetStore.relabel`."""
    with storage.hold(dataset, alone=False):
        while True:
            line = Line.read(storage, dataset)
            latest = line.resolve()
            names = tuple(latest.key if key is None else key)
            if not names:
                raise NoKeyError(dataset, "relabel")
            feature = label or latest.label or DEFAULT_LABEL
            corrections = read_corrections(file, names, feature)
            committed = _relabelled(line, latest, corrections, feature, message)
            if committed is not None:
                return committed
            # Another writer was first: correct what it wrote.


@dataclass(frozen=True)
class _Changed:
    """A record with another label.

    Attributes:
        pack: Name of the pack that holds the old record.
        row: Its place there.
        payload: The new record.
    """

    pack: str
    row: int
    payload: bytes


def _relabelled(
    line: Line, latest: Manifest, corrections: Corrections, feature: str, message: str
) -> Committed | None:
    before = read_live(line, latest)
    live = {where: rows for where, rows in before.items() if where[0] != HELD_OUT}
    changed = _changed(line, latest, live, corrections, feature)
    options = CommitOptions(message=message or f"labels from {Path(corrections.source).name}")
    if not changed:
        return Committed(latest, is_new=False, added=0, removed=0, stored_bytes=0)
    with tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch:
        _write_shards(Path(scratch), live, changed)
        _, shards = list_shards(scratch)
        scans = scan_shards(shards)
        splits = sorted(latest.splits)
        declared = declared_for(line, options)
        check_none_forgotten(line, [scan.ids for scan in scans], shards, declared.key)
        ids = {pack.name: read_index(line.storage, line.dataset, pack).ids for pack in line.packs}
        known = Ids.join([ids[pack.name] for pack in line.packs]).sorted()
        placement = place(scans, splits, Ids.join([scan.ids for scan in scans]).sorted(), known)
        new_packs = write_packs(line.storage, line.dataset, placement.new_packs)
        ids |= {facts.name: new.ids for facts, new in zip(new_packs, placement.new_packs, strict=True)}
        packs = [*line.packs, *new_packs]
        after = _joined(_without(live, changed), placement.live(packs))
    digests = {split: _digest(split, after, ids) for split in splits}
    if (same := line.with_digest(version_digest(digests))) is not None:
        return Committed(same, is_new=False, added=0, removed=0, stored_bytes=0)
    source = printable(absolute(corrections.source))
    return finish(line, new_packs, after, digests, declared, source, options)


def _changed(
    line: Line, latest: Manifest, live: Live, corrections: Corrections, feature: str
) -> list[_Changed]:
    """Return the records of the version that get another label.

    Raises:
        CorrectionsError: The version has no record of an item.
    """
    wanted = {values: item for item in corrections.labels for values in wanted_values(item, corrections.key)}
    hashes = np.array([hash_feature_values(values) for values in wanted], np.uint64)
    chosen: dict[str, Rows] = {}
    for (_, name), rows in live.items():
        chosen[name] = Rows(chosen[name].is_live | rows.is_live) if name in chosen else Rows(rows.is_live)
    packs = [pack for pack in latest.packs if pack.name in chosen]
    of_keys = key_hashes(line.storage, line.dataset, packs, corrections.key)
    changed: list[_Changed] = []
    seen: set[tuple[str, ...]] = set()
    for pack in packs:
        rows_of = np.flatnonzero(chosen[pack.name].is_live & np.isin(of_keys[pack.name], hashes))
        for batch in read_batches(line.storage, line.dataset, pack, rows_of) if rows_of.size else ():
            keys = feature_values(batch.buffer, batch.starts, batch.ends, corrections.key)
            for row, values, record in zip(batch.rows.tolist(), keys, batch.payloads(), strict=True):
                item = wanted.get(values) if values is not None else None
                if item is None:
                    continue
                seen.add(item)
                payload = with_text(record, feature, corrections.labels[item])
                if payload != record:
                    changed.append(_Changed(pack.name, row, payload))
    if missing := [item for item in corrections.labels if item not in seen]:
        raise CorrectionsError(
            corrections.source,
            [
                f"row {corrections.rows[item]}: {latest.dataset}@{latest.version} has no record with "
                f"{', '.join(corrections.key)} {','.join(item)!r}"
                for item in missing
            ],
        )
    return changed


def _write_shards(folder: Path, live: Live, changed: Sequence[_Changed]) -> None:
    """Write the new records, in each split as often as the old ones are there."""
    frames: dict[str, list[bytes]] = defaultdict(list)
    copies = {where: rows.copies() for where, rows in live.items()}
    for one in changed:
        for (split, name), counts in copies.items():
            if name == one.pack and counts[one.row]:
                frames[split] += [frame(one.payload)] * int(counts[one.row])
    for split, written in frames.items():
        shard = folder / f"Split-{split}" / "data_tfrecord-00000-of-00001"
        shard.parent.mkdir(parents=True)
        shard.write_bytes(b"".join(written))


def _without(live: Live, changed: Sequence[_Changed]) -> Live:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for one in changed:
        rows_of[one.pack].append(one.row)
    left: Live = {}
    for (split, name), rows in live.items():
        counts = rows.copies()
        counts[rows_of[name]] = 0
        if counts.any():
            left[split, name] = Rows.from_copies(counts)
    return left


def _joined(live: Live, more: Live) -> Live:
    joined = dict(live)
    for where, rows in more.items():
        counts = rows.copies() + (joined[where].copies() if where in joined else 0)
        joined[where] = Rows.from_copies(counts)
    return joined


def _digest(split: str, live: Live, ids: Mapping[str, Ids]) -> tuple[int, bytes]:
    """Return the records of a split, and its digest."""
    parts = []
    for (owner, name), rows in live.items():
        if owner == split:
            counts = rows.copies()
            parts.append(ids[name][np.repeat(np.arange(counts.size), counts)])
    found = Ids.join(parts).sorted().ids
    return len(found), sorted_digest(found)
