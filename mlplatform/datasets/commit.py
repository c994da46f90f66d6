"""Commits Examples as a version: scan, compare, write what is new, and show it by its manifest."""

import datetime
import getpass
import hashlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlplatform.datasets.digest import split_digest, version_digest
from mlplatform.datasets.examples_folder import list_shards
from mlplatform.datasets.firewall import check_by_content, check_firewall, held_out_rows
from mlplatform.datasets.forgotten import check_none_forgotten
from mlplatform.datasets.hashing import Ids
from mlplatform.datasets.known import KnownIds
from mlplatform.datasets.line import Line, begin_store, version_path
from mlplatform.datasets.live import HELD_OUT, Live, decode, encode
from mlplatform.datasets.manifest import Manifest, PackFacts, SplitFacts
from mlplatform.datasets.pack import read_index
from mlplatform.datasets.placement import place
from mlplatform.datasets.scan import ShardScan, scan_shards
from mlplatform.datasets.seen import note_seen, seen_digest, seen_path
from mlplatform.datasets.storage import Storage
from mlplatform.datasets.write_packs import check_unchanged, write_packs


@dataclass(frozen=True)
class CommitOptions:
    """How to commit.

    Attributes:
        key: Features that identify an item; None keeps what the version before declared.
        label: Feature that holds the class; None keeps what the version before declared.
        message: Why, for the log.
        training_splits: Splits that are trained on; items of all others are held out.
        is_firewall_on: Fail where an item that was held out would enter training.
        workers: Processes that read; 0 takes one per usable processor.
    """

    key: Sequence[str] | None = None
    label: str | None = None
    message: str = ""
    training_splits: Sequence[str] = ("train",)
    is_firewall_on: bool = True
    workers: int = 0


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
    seen = seen_path(dataset, splits, shards)
    line = Line.read(storage, dataset)
    if (same := line.with_digest(seen_digest(storage, seen) or "")) is not None:
        return _known(same)
    begin_store(storage)
    with storage.hold(dataset, alone=False):
        line = Line.read(storage, dataset)
        known = KnownIds.of(_ids_of(line))
        scans = scan_shards(shards, known, options.workers)
        check_unchanged(scans)
        digests = {split: _split(scans, split) for split in splits}
        digest = version_digest(digests)
        while True:
            if (same := line.with_digest(digest)) is not None:
                note_seen(storage, seen, digest)
                return _known(same)
            check_none_forgotten(line, [scan.ids for scan in scans])
            placement = place(scans, splits, known)
            if options.is_firewall_on and line.latest:  # by content, before anything is written
                before, known_live = read_live(line, line.latest), placement.live(line.packs)
                check_by_content(
                    line, line.packs, before, known_live, options.training_splits, _key(options, line)
                )
            new_packs = write_packs(storage, dataset, placement.new_packs)
            packs = [*line.packs, *new_packs]
            committed = finish(
                line, packs, new_packs, placement.live(packs), digests, digest, source_of(folder), options
            )
            if committed is not None:
                note_seen(storage, seen, digest)
                return committed
            line = Line.read(
                storage, dataset
            )  # another writer was first: place the records anew, behind its own
            known = KnownIds.of(_ids_of(line))


def source_of(folder: str | os.PathLike[str]) -> str:
    """Return where a commit comes from, for its manifest: an absolute path, or a URL."""
    text = os.fspath(folder)
    return text if "://" in text else str(Path(text).expanduser().absolute())


def _known(manifest: Manifest) -> Committed:
    return Committed(manifest, is_new=False, added=0, removed=0, stored_bytes=0)


def read_live(line: Line, manifest: Manifest) -> Live:
    """Read which records of which packs are in a version, the records held out so far included."""
    path = f"{line.dataset}/bitmaps/{manifest.bitmaps}"
    return decode(
        line.storage.read(path),
        [(pack.name, pack.records) for pack in manifest.packs],
        f"{line.storage.url}/{path}",
    )


def finish(
    line: Line,
    packs: Sequence[PackFacts],
    new_packs: Sequence[PackFacts],
    live: Live,
    digests: dict[str, tuple[int, bytes]],
    digest: str,
    source: str,
    options: CommitOptions,
) -> Committed | None:
    """Make the version visible.

    Args:
        line: The versions so far.
        packs: Known packs and then new ones.
        new_packs: The new ones.
        live: Rows per split and pack.
        digests: Records and digest per split.
        digest: The version's digest.
        source: What was committed.
        options: How.

    Returns:
        None where another writer took the version's number first.
    """
    storage, dataset, parent = line.storage, line.dataset, line.latest
    before = read_live(line, parent) if parent else {}
    key = _key(options, line)
    label = options.label if options.label is not None else parent.label if parent else ""
    if options.is_firewall_on:
        check_firewall(line, packs, before, live, options.training_splits, key)
    shown = {**live, **held_out_rows(before, live, options.training_splits)}
    used = [pack for pack in packs if any(name == pack.name for _, name in shown)]
    bitmaps = encode(shown, [pack.name for pack in used])
    bitmaps_name = f"{hashlib.sha256(bitmaps).hexdigest()[:32]}.live"
    added, removed = _difference(before, live)
    stored = sum(pack.stored_bytes + _index_bytes(pack) for pack in new_packs) + len(bitmaps)
    manifest = Manifest(
        dataset=dataset,
        number=parent.number + 1 if parent else 1,
        digest=digest,
        parent=parent.digest if parent else "",
        splits={name: _split_facts(name, digests[name], live) for name in sorted(digests)},
        packs=used,
        bitmaps=bitmaps_name,
        key=key,
        label=label,
        added=added,
        removed=removed,
        stored_bytes=stored,
        created_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
        created_by=f"{_user()}@{socket.gethostname()}",
        message=options.message,
        source=source,
    )
    storage.put(f"{dataset}/bitmaps/{bitmaps_name}", bitmaps)
    if not storage.create(version_path(dataset, manifest.number), manifest.to_json()):
        return None
    return Committed(manifest, is_new=True, added=added, removed=removed, stored_bytes=stored)


def _key(options: CommitOptions, line: Line) -> list[str]:
    if options.key is not None:
        return list(options.key)
    return list(line.latest.key) if line.latest else []


def _ids_of(line: Line) -> Ids:
    return Ids.join([read_index(line.storage, line.dataset, pack).ids for pack in line.packs])


def _split(scans: Sequence[ShardScan], split: str) -> tuple[int, bytes]:
    ids = Ids.join([scan.ids for scan in scans if scan.shard.split == split])
    return len(ids), split_digest(ids)


def _split_facts(name: str, digest: tuple[int, bytes], live: Live) -> SplitFacts:
    mine = {pack: rows for (split, pack), rows in live.items() if split == name}
    return SplitFacts(
        records=digest[0],
        distinct=sum(rows.distinct for rows in mine.values()),
        digest=digest[1].hex(),
        live={pack: rows.distinct for pack, rows in mine.items()},
    )


def _difference(before: Live, after: Live) -> tuple[int, int]:
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


def _index_bytes(pack: PackFacts) -> int:
    return 60 + 20 * pack.records


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for this user id, as in some containers
        return str(os.getuid())
