"""Commits Examples as a version: scan, compare, write what is new, and show it by its manifest."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import numpy as np

from mlplatform.datasets.copies import Copies
from mlplatform.datasets.errors import (
    CommitFilesLostError,
    CommitRecordsLostError,
    FixedTrainingSplitsError,
    KeyMissingError,
    NoTrainingSplitError,
)
from mlplatform.datasets.examples_folder import Shard, list_shards, open_records
from mlplatform.datasets.firewall import check_by_content, check_by_key, check_by_look, held_out_rows
from mlplatform.datasets.forgotten import check_no_erased_item, check_none_forgotten
from mlplatform.datasets.format.digest import sorted_digest
from mlplatform.datasets.format.features import hash_values
from mlplatform.datasets.format.hashing import Ids, SortedIds
from mlplatform.datasets.format.live import HELD_OUT, Live, decode, encode, union
from mlplatform.datasets.format.manifest import Declared, Manifest, PackFacts, SplitFacts, version_digest
from mlplatform.datasets.format.pack import check_index_size, index_path, read_index, records_path
from mlplatform.datasets.format.tfrecord import read_windows
from mlplatform.datasets.line import Line, begin_store, forgotten_folder, version_path
from mlplatform.datasets.notes import declare, now, printable, record_copy, user_and_host
from mlplatform.datasets.placement import place
from mlplatform.datasets.scan import ShardScan, scan_shards
from mlplatform.datasets.seen import note_seen, seen_path, seen_version
from mlplatform.datasets.write_packs import check_unchanged, write_packs
from mlplatform.progress import track
from mlplatform.storage import Storage
from mlplatform.storage.errors import CorruptStoreError
from mlplatform.storage.urls import absolute

_UNCHECKED_RECORDS = 1 << 24  # that a manifest may claim before its indexes are looked at


@dataclass(frozen=True)
class CommitOptions:
    """How to commit.

    Attributes:
        key: Features that identify an item; None keeps what the version before declared.
        label: Feature that holds the class; None keeps what the version before declared.
        message: Why, for the log.
        training_splits: Splits that are trained on; items of all others are held out. None keeps what the
            version before declared, `train` for the first.
        is_firewall_on: Fail where an item that was held out would enter training.
        near_duplicates_apart: Fail where a photo would be trained on that looks like a held-out one.
        workers: Shards that are read at a time; 0 takes one per usable processor.
    """

    key: Sequence[str] | None = None
    label: str | None = None
    message: str = ""
    training_splits: Sequence[str] | None = None
    is_firewall_on: bool = True
    near_duplicates_apart: bool = False
    workers: int = 0
    taxonomy: str | None = None


@dataclass(frozen=True)
class Committed:
    """What a commit did.

    Attributes:
        manifest: The version that holds the content.
        is_new: This commit made it; otherwise it was there.
        added, removed: Records that came and went against the version before, each as often as it occurs.
        stored_bytes: Bytes added to the store.
    """

    manifest: Manifest
    is_new: bool
    added: int
    removed: int
    stored_bytes: int


def commit(
    storage: Storage, dataset: str, folder: str | os.PathLike[str], options: CommitOptions
) -> Committed:
    """Commit the Examples in a folder; see `DatasetStore.commit`."""
    splits, shards = list_shards(folder)
    source = printable(source_of(folder))
    seen = seen_path(dataset, splits, shards)
    line = Line.read(storage, dataset)
    check_named_splits(line, splits, options)
    if (same := seen_version(line, seen)) is not None:
        return known_version(line, same, shards, source, options)
    begin_store(storage)
    is_first = not line.packs and storage.local(dataset) is not None
    with (
        storage.hold(dataset, alone=False),
        closing(Copies(storage, dataset)) if is_first else nullcontext() as copies,
    ):
        line = Line.read(storage, dataset)
        scans = scan_shards(shards, options.workers, copies)
        check_unchanged(shards)
        found = Ids.join([scan.ids for scan in scans]).sorted()
        digests = _digests(scans, splits, found)
        digest = version_digest(digests)
        while True:
            declared = declared_for(line, options)
            if (same := line.with_digest(digest)) is not None:
                committed = known_version(line, same, shards, source, options)
                break
            check_training_splits(line, splits, options)
            check_key(dataset, shards, declared.key)
            check_none_forgotten(line, [scan.ids for scan in scans], shards, declared.key)
            placement = place(scans, splits, found, _ids_of(line).sorted())
            if options.is_firewall_on and line.latest:  # by content, before anything is written
                before, known_live = read_live(line, line.latest), placement.live(line.packs)
                check_by_content(line, line.packs, before, known_live, declared)
            new_packs = write_packs(storage, dataset, placement.new_packs, copies)
            live = placement.live([*line.packs, *new_packs])
            made = finish(line, new_packs, live, digests, declared, source, options)
            if made is not None:
                committed = made
                break
            line = Line.read(storage, dataset)  # another writer was first: place them behind its own
        note_seen(storage, seen, committed.manifest)
        return committed


def declared_for(line: Line, options: CommitOptions) -> Declared:
    """Return what a commit says of its records: what the version before said where it says nothing."""
    before = line.latest
    return Declared(
        key=list(options.key) if options.key is not None else list(before.key) if before else [],
        label=options.label if options.label is not None else before.label if before else "",
        training_splits=list(options.training_splits)
        if options.training_splits is not None
        else list(before.training_splits)
        if before
        else ["train"],
        taxonomy=options.taxonomy if options.taxonomy is not None else before.taxonomy if before else "",
    )


def check_named_splits(line: Line, splits: Sequence[str], options: CommitOptions) -> None:
    """Check what can be checked before anything is read: content may turn out to be that of a version whose
    training splits are others than the newest one's.

    Raises:
        NoTrainingSplitError: See `check_training_splits`.
    """
    if options.training_splits is not None or not line.manifests:
        check_training_splits(line, splits, options)


def check_training_splits(line: Line, splits: Sequence[str], options: CommitOptions) -> None:
    """Check that the firewall, where it is on, protects something.

    Raises:
        NoTrainingSplitError: None of the splits is trained on.
    """
    training_splits = declared_for(line, options).training_splits
    if options.is_firewall_on and not set(splits) & set(training_splits):
        raise NoTrainingSplitError(line.dataset, splits, training_splits)


def check_key(dataset: str, shards: Sequence[Shard], key: Sequence[str]) -> None:
    """Check that there are records with the key: reads no further than to the first that has it.

    Raises:
        KeyMissingError: There are records, and none has it.
    """
    records = 0
    for shard in shards if key else ():
        with open_records(shard) as stream:
            for window in read_windows(stream, shard.path):
                if hash_values(window.buffer, window.starts, window.ends, key).any():
                    return
                records += window.starts.size
    if records:
        raise KeyMissingError(dataset, key, records)


def known_version(
    line: Line, manifest: Manifest, shards: Sequence[Shard], source: str, options: CommitOptions
) -> Committed:
    """Return what a commit of content that is there already did: it may have declared another key or label.

    Raises:
        ForgottenRecordError: The content has records that were forgotten since.
        KeyMissingError: No record has the key that is declared.
        FixedTrainingSplitsError: Other training splits are named than the version has.
    """
    named = options.training_splits
    if named is not None and set(named) != set(manifest.training_splits):
        raise FixedTrainingSplitsError(line.dataset, manifest.version, manifest.training_splits, named)
    if line.storage.names(forgotten_folder(line.dataset)):
        live = {place: rows for place, rows in read_live(line, manifest).items() if place[0] != HELD_OUT}
        parts = []
        for pack in manifest.packs:
            masks = [rows.is_live for (_, name), rows in live.items() if name == pack.name]
            if masks:
                ids = read_index(line.storage, line.dataset, pack).ids
                parts.append(ids[union(masks, pack.records)])
        check_none_forgotten(line, parts, shards, manifest.key)
    key = manifest.key if options.key is None else list(options.key)
    label = manifest.label if options.label is None else options.label
    if key != manifest.key:
        check_key(line.dataset, shards, key)
    if source != manifest.source:
        record_copy(line, manifest, "source", source)
    taxonomy = manifest.taxonomy if options.taxonomy is None else options.taxonomy
    if (key, label, taxonomy) != (manifest.key, manifest.label, manifest.taxonomy):
        manifest = declare(line, manifest, key, label, taxonomy)
    return Committed(manifest, is_new=False, added=0, removed=0, stored_bytes=0)


def source_of(folder: str | os.PathLike[str]) -> str:
    """Return where a commit comes from, for its manifest: an absolute path, or a URL."""
    return absolute(folder)


def read_live(line: Line, manifest: Manifest) -> Live:
    """Read which records of which packs are in a version, the records held out so far included.

    Raises:
        CorruptStoreError: The file is missing, or does not choose the records that the manifest counts.
    """
    path = f"{line.dataset}/bitmaps/{manifest.bitmaps}"
    name = f"{line.storage.url}/{path}"
    try:
        data = line.storage.read(path)
    except FileNotFoundError as error:
        raise CorruptStoreError(name, "it is missing") from error
    if sum(pack.records for pack in manifest.packs) > _UNCHECKED_RECORDS:
        for pack in manifest.packs:
            check_index_size(line.storage, line.dataset, pack)
    live = decode(data, [(pack.name, pack.records) for pack in manifest.packs], name)
    found: dict[str, dict[str, int]] = {split: {} for split in manifest.splits}
    records = dict.fromkeys(manifest.splits, 0)
    for (split, pack_name), rows in live.items():
        if split != HELD_OUT:
            found.setdefault(split, {})[pack_name] = rows.distinct
            records[split] = records.get(split, 0) + rows.records
    for split, chosen in found.items():
        facts = manifest.splits.get(split)
        counted = {name: count for name, count in facts.live.items() if count} if facts else {}
        if facts is None or chosen != counted or records[split] != facts.records:
            problem = f"it chooses other records for {ascii(split)[:80]} than {manifest.version} counts"
            raise CorruptStoreError(name, problem)
    return live


def finish(
    line: Line,
    new_packs: Sequence[PackFacts],
    live: Live,
    digests: dict[str, tuple[int, bytes]],
    declared: Declared,
    source: str,
    options: CommitOptions,
) -> Committed | None:
    """Make the version visible.

    Args:
        line: The versions so far.
        new_packs: Packs that were written for this one.
        live: Rows per split and pack, known or new.
        digests: Records and digest per split.
        declared: What is said of the records.
        source: What was committed.
        options: How.

    Returns:
        None where another writer took the version's number first.

    Raises:
        CommitRecordsLostError: `live` does not have the records that the digests are of.
        CommitFilesLostError: Something deleted what was written.
        SplitFirewallError: A held-out item would enter training.
        LookAlikeFirewallError: A photo that looks like a held-out one would be trained on.
        ForgottenRecordError: An erased item came back with other content.
    """
    storage, dataset, parent = line.storage, line.dataset, line.latest
    for split, (records, _) in digests.items():
        found = sum(rows.records for (owner, _), rows in live.items() if owner == split)
        if found != records:
            raise CommitRecordsLostError(dataset, split, records, found)
    packs = [*line.packs, *new_packs]
    before = read_live(line, parent) if parent else {}
    check_no_erased_item(line, new_packs, source)
    if options.is_firewall_on:
        check_by_content(line, packs, before, live, declared)
        check_by_key(line, packs, before, live, declared)
    if options.near_duplicates_apart:
        check_by_look(line, packs, before, live, declared)
    shown = {**live, **held_out_rows(before, live, declared.training_splits)}
    names = {name for _, name in shown}
    used = [pack for pack in packs if pack.name in names]
    bitmaps = encode(shown, [pack.name for pack in used])
    bitmaps_name = f"{hashlib.sha256(bitmaps).hexdigest()[:32]}.live"
    added, removed = difference(before, live)
    indexes = sum(storage.size(index_path(dataset, pack.name)) for pack in new_packs)
    stored = sum(pack.stored_bytes for pack in new_packs) + indexes + len(bitmaps)
    manifest = Manifest(
        dataset=dataset,
        number=parent.number + 1 if parent else 1,
        digest=version_digest(digests),
        parent=parent.digest if parent else "",
        splits={name: _split_facts(name, digests[name], live) for name in sorted(digests)},
        packs=used,
        bitmaps=bitmaps_name,
        key=declared.key,
        label=declared.label,
        training_splits=declared.training_splits,
        added=added,
        removed=removed,
        stored_bytes=stored,
        created_at=now(),
        created_by=user_and_host(),
        message=printable(options.message),
        source=source,
        taxonomy=declared.taxonomy,
    )
    storage.put(f"{dataset}/bitmaps/{bitmaps_name}", bitmaps)
    _check_there(storage, dataset, new_packs)
    if not storage.create(version_path(dataset, manifest.number), manifest.to_json()):
        return None
    return Committed(manifest, is_new=True, added=added, removed=removed, stored_bytes=stored)


def _check_there(storage: Storage, dataset: str, new_packs: Sequence[PackFacts]) -> None:
    """Check that the new packs are still there: without locks, `gc` deletes what is older than its grace."""
    there = {f"{dataset}/packs/{name}" for name in storage.names(f"{dataset}/packs")} if new_packs else set()
    needed = {records_path(dataset, pack) for pack in new_packs}
    needed |= {index_path(dataset, pack.name) for pack in new_packs}
    if missing := sorted(needed - there):
        raise CommitFilesLostError(dataset, [f"{storage.url}/{path}" for path in missing])


def _ids_of(line: Line) -> Ids:
    parts = []
    with track("read indexes", sum(pack.records for pack in line.packs)) as bar:
        for pack in line.packs:
            parts.append(read_index(line.storage, line.dataset, pack).ids)
            bar.advance(pack.records)
    return Ids.join(parts)


def _digests(
    scans: Sequence[ShardScan], splits: Sequence[str], found: SortedIds
) -> dict[str, tuple[int, bytes]]:
    """Return the records and the digest of each split; `found` are the ids of all records."""
    numbers = {split: number for number, split in enumerate(splits)}
    of_shard = np.array([numbers[scan.shard.split] for scan in scans], np.min_scalar_type(len(splits)))
    split_of = np.repeat(of_shard, [len(scan.ids) for scan in scans])[found.places]
    digests = {}
    for split, number in numbers.items():
        ids = found.ids[split_of == number] if len(splits) > 1 else found.ids
        digests[split] = len(ids), sorted_digest(ids)
    return digests


def _split_facts(name: str, digest: tuple[int, bytes], live: Live) -> SplitFacts:
    mine = {pack: rows for (split, pack), rows in live.items() if split == name}
    return SplitFacts(
        records=digest[0],
        distinct=sum(rows.distinct for rows in mine.values()),
        digest=digest[1].hex(),
        live={pack: rows.distinct for pack, rows in mine.items()},
    )


def difference(before: Live, after: Live) -> tuple[int, int]:
    """Return how many records came and went, each as often as it occurs; one that moved counts in both."""
    added = removed = 0
    for place_ in {*before, *after}:
        if place_[0] == HELD_OUT:
            continue
        old, new = before.get(place_), after.get(place_)
        if old is None or new is None:
            added += new.records if new else 0
            removed += old.records if old else 0
        elif old.repeated.size or new.repeated.size:
            change = new.copies() - old.copies()
            added += int(change[change > 0].sum())
            removed -= int(change[change < 0].sum())
        else:
            added += int(np.count_nonzero(new.is_live & ~old.is_live))
            removed += int(np.count_nonzero(old.is_live & ~new.is_live))
    return added, removed
