"""Commits on Beam: the same version as `commit`, for any size, in bounded memory, on any runner.

    shards, known packs | ids and rows, cut into 4096 buckets by the first bits of the id
                        | group by bucket: what is known, what is new, the bucket's part of the digest
                        | group by pack and by shard: live rows; new packs

Only ids and rows, 20 bytes a record, are shuffled; payloads are read where they are written. A step that runs
twice writes the same files: their names come from their content.
"""

import os
import pickle
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from mlplatform.datasets.commit import CommitOptions, Committed, finish, source_of
from mlplatform.datasets.digest import BUCKETS, bucket_digest, empty_bucket, join_buckets, version_digest
from mlplatform.datasets.examples_folder import Shard, list_shards, open_records
from mlplatform.datasets.forgotten import check_none_forgotten
from mlplatform.datasets.hashing import Ids
from mlplatform.datasets.line import Line, begin_store
from mlplatform.datasets.live import Live, Rows
from mlplatform.datasets.manifest import PackFacts
from mlplatform.datasets.pack import read_index
from mlplatform.datasets.placement import NewPack, first_occurrences, loose_packs
from mlplatform.datasets.scan import ShardScan, scan_shard
from mlplatform.datasets.storage import ASIDE, Storage, open_storage
from mlplatform.datasets.tfrecord import Int64s, UInt64s, read_windows
from mlplatform.datasets.write_packs import check_unchanged, write_packs
from mlplatform.progress import track

_BUCKET_SHIFT = np.uint64(52)


@dataclass(frozen=True)
class Job:
    """What the workers need to know.

    Attributes:
        store: The store's URL.
        dataset: The dataset's name.
        splits: Split names; a number stands for one below.
        shards: The shards to commit; a number stands for one below.
        packs: The known packs; a number stands for one below.
        notes: Folder in the store where the workers leave what the last step collects.
    """

    store: str
    dataset: str
    splits: list[str]
    shards: list[Shard]
    packs: list[PackFacts]
    notes: str


@dataclass(frozen=True)
class Piece:
    """Some records of a shard or pack: `rows` uint32 and `ids`, side by side."""

    is_known: bool
    number: int
    ids: bytes
    rows: bytes


@dataclass(frozen=True)
class NewRows:
    """New records of a shard, with how often each occurs in each split.

    Attributes:
        rows: uint32, shape (records,): places in the shard.
        ids: Their ids.
        copies: uint32, shape (records, splits).
    """

    rows: bytes
    ids: bytes
    copies: bytes


def commit_with_beam(
    storage: Storage,
    dataset: str,
    folder: str | os.PathLike[str],
    options: CommitOptions,
    beam_options: Sequence[str] = (),
) -> Committed:
    """Commit the Examples in a folder on a Beam runner; see `DatasetStore.commit`.

    Args:
        storage: The store's files; the workers must reach them, and the folder, under the same names.
        dataset: The dataset's name.
        folder: Folder or URL with `Split-<name>/` folders.
        options: How to commit.
        beam_options: Beam's own flags, such as `--runner=FlinkRunner`; none runs in this process.
    """
    splits, shards = list_shards(folder)
    Line.read(storage, dataset)
    begin_store(storage)
    while True:
        with storage.hold(dataset, alone=False):
            line = Line.read(storage, dataset)
            notes = f"{dataset}/{ASIDE}-{uuid.uuid4().hex}"
            job = Job(storage.url, dataset, splits, shards, line.packs, notes)
            try:
                with track("commit on Beam"):
                    _run(job, beam_options)
                committed = _finish(storage, line, job, source_of(folder), options)
            finally:
                for name in storage.names(notes):
                    storage.delete(f"{notes}/{name}")
                storage.delete_folder(notes)
            if committed is not None:
                return committed


def _run(job: Job, beam_options: Sequence[str]) -> None:
    with beam.Pipeline(options=PipelineOptions(list(beam_options))) as pipeline:
        new = (
            pipeline
            | "Shards" >> beam.Create(range(len(job.shards)))
            | "Spread shards" >> beam.Reshuffle()
            | "Scan" >> beam.FlatMap(scan_into_buckets, job)
        )
        known = (
            pipeline
            | "Packs" >> beam.Create(range(len(job.packs)))
            | "Spread packs" >> beam.Reshuffle()
            | "Read indexes" >> beam.FlatMap(index_into_buckets, job)
        )
        matched = (
            (new, known)
            | beam.Flatten()
            | "By bucket" >> beam.GroupByKey()
            | "Match" >> beam.FlatMap(match_bucket, job).with_outputs("live", "new", "digest")
        )
        _ = matched.live | "By pack" >> beam.GroupByKey() | "Live rows" >> beam.Map(note_live, job)
        _ = matched.digest | "By split" >> beam.GroupByKey() | "Digests" >> beam.Map(note_digest, job)
        written = (
            matched.new
            | "By shard" >> beam.GroupByKey()
            | "Whole or loose" >> beam.FlatMap(whole_or_loose, job).with_outputs("loose", main="whole")
        )
        _ = written.whole | "Adopt shards" >> beam.Map(write_new, job)
        _ = (
            written.loose
            | "By split and kind" >> beam.GroupByKey()
            | "Write packs" >> beam.Map(write_new, job)
        )


def scan_into_buckets(number: int, job: Job) -> Iterator[tuple[int, Piece]]:
    """Read a shard; yields its ids and rows per bucket."""
    for step in scan_shard(job.shards[number]):
        if isinstance(step, ShardScan):
            check_unchanged([step])
            yield from _cut(step.ids, is_known=False, number=number)


def index_into_buckets(number: int, job: Job) -> Iterator[tuple[int, Piece]]:
    """Read the index of a known pack; yields its ids and rows per bucket."""
    index = read_index(open_storage(job.store), job.dataset, job.packs[number])
    yield from _cut(index.ids, is_known=True, number=number)


def _cut(ids: Ids, *, is_known: bool, number: int) -> Iterator[tuple[int, Piece]]:
    order = np.argsort(ids.high, kind="stable")
    ids, rows = ids[order], order.astype("<u4")
    bounds = np.searchsorted(ids.high, np.arange(BUCKETS, dtype=np.uint64) << _BUCKET_SHIFT).tolist()
    bounds.append(len(ids))
    data, places = memoryview(ids.to_bytes()), memoryview(rows.tobytes())
    for bucket in range(BUCKETS):
        begin, end = bounds[bucket], bounds[bucket + 1]
        if end > begin:
            yield (
                bucket,
                Piece(
                    is_known, number, bytes(data[16 * begin : 16 * end]), bytes(places[4 * begin : 4 * end])
                ),
            )


def match_bucket(group: tuple[int, Iterable[Piece]], job: Job) -> Iterator[Any]:
    """Compare the records of a bucket with the known ones."""
    bucket, pieces = group
    ordered = sorted(pieces, key=lambda piece: (not piece.is_known, piece.number))
    coming = [piece for piece in ordered if not piece.is_known]
    if not coming:
        return
    ids = Ids.join([Ids.from_bytes(piece.ids) for piece in ordered])
    rows = np.concatenate([np.frombuffer(piece.rows, "<u4") for piece in ordered]).astype(np.int64)
    lengths = [len(piece.rows) // 4 for piece in ordered]
    owner = np.repeat(np.arange(len(ordered)), lengths)
    # Known records come first, then shard by shard and row by row: the first of a kind is its place.
    order = np.lexsort((rows, owner))
    ids, rows, owner = ids[order], rows[order], owner[order]
    first = first_occurrences(ids)
    split_of = np.array(
        [-1 if piece.is_known else job.splits.index(job.shards[piece.number].split) for piece in ordered]
    )
    split = split_of[owner]
    for number in range(len(job.splits)):
        mine = ids[split == number]
        if len(mine):
            yield beam.pvalue.TaggedOutput("digest", (number, (bucket, len(mine), bucket_digest(mine))))
    comes = split >= 0
    counts = np.zeros((len(ids), len(job.splits)), np.int64)
    np.add.at(counts, (first[comes], split[comes]), 1)
    places = np.flatnonzero(counts.any(axis=1))
    for place in np.unique(owner[places]).tolist():
        piece = ordered[place]
        chosen = places[owner[places] == place]
        found = NewRows(
            rows[chosen].astype("<u4").tobytes(),
            ids[chosen].to_bytes(),
            counts[chosen].astype("<u4").tobytes(),
        )
        yield beam.pvalue.TaggedOutput("live" if piece.is_known else "new", (piece.number, found))


def note_live(group: tuple[int, Iterable[NewRows]], job: Job) -> None:
    """Leave the live rows of a known pack for the last step."""
    number, found = group
    pack = job.packs[number]
    rows, _, counts = _joined(found, job)
    _note(job, f"live-{number}", [(pack, _live_rows(pack.records, rows, counts, job))])


def note_digest(group: tuple[int, Iterable[tuple[int, int, bytes]]], job: Job) -> None:
    """Leave a split's records and digest for the last step."""
    number, parts = group
    digests = [empty_bucket()] * BUCKETS
    records = 0
    for bucket, count, digest in parts:
        digests[bucket] = digest
        records += count
    _note(job, f"digest-{number}", (job.splits[number], records, join_buckets(digests)))


def whole_or_loose(group: tuple[int, Iterable[NewRows]], job: Job) -> Iterator[Any]:
    """Send a shard that is new altogether one way, and loose records together with those of other shards."""
    number, found = group
    shard = job.shards[number]
    rows, ids, counts = _joined(found, job)
    part = (number, rows, ids.to_bytes(), counts)
    if rows.size == rows[-1] + 1 and rows.size == _records(shard):
        yield (f"whole-{number}", [part])
    else:
        yield beam.pvalue.TaggedOutput("loose", (f"loose-{shard.split}-{shard.is_gzip:d}", part))


def write_new(group: tuple[str, Iterable[Any]], job: Job) -> None:
    """Write the new packs of a shard, or of the loose records of a split."""
    name, found = group
    parts = sorted(found, key=lambda part: int(part[0]))
    scans: list[tuple[ShardScan, Int64s]] = []
    for number, rows, ids, _ in parts:
        scans.append((_scan_of(job.shards[number], rows, Ids.from_bytes(ids)), rows))
    is_whole = name.startswith("whole-")
    packs = [NewPack(scans, is_whole=True)] if is_whole else loose_packs(scans)
    storage = open_storage(job.store)
    facts = write_packs(storage, job.dataset, packs)
    counts = np.concatenate([part[3] for part in parts])
    notes, begin = [], 0
    for fact in facts:
        rows = np.arange(fact.records)
        notes.append((fact, _live_rows(fact.records, rows, counts[begin : begin + fact.records], job)))
        begin += fact.records
    _note(job, f"new-{name}", notes)


def _joined(found: Iterable[NewRows], job: Job) -> tuple[Int64s, Ids, Int64s]:
    parts = list(found)
    rows = np.concatenate([np.frombuffer(part.rows, "<u4") for part in parts]).astype(np.int64)
    ids = Ids.join([Ids.from_bytes(part.ids) for part in parts])
    copies = np.concatenate([np.frombuffer(part.copies, "<u4") for part in parts])
    counts = copies.reshape(-1, len(job.splits)).astype(np.int64)
    order = np.argsort(rows)
    return rows[order], ids[order], counts[order]


def _live_rows(records: int, rows: Int64s, counts: Int64s, job: Job) -> dict[str, Rows]:
    live = {}
    for number, split in enumerate(job.splits):
        copies = np.zeros(records, np.int64)
        copies[rows] = counts[:, number]
        if copies.any():
            live[split] = Rows.from_copies(copies)
    return live


def _records(shard: Shard) -> int:
    with open_records(shard) as stream:
        return sum(window.starts.size for window in read_windows(stream, shard.path))


def _scan_of(shard: Shard, rows: Int64s, ids: Ids) -> ShardScan:
    """Make a scan again of what was shuffled: ids of the chosen rows, and the sizes of all."""
    sizes = []
    with open_records(shard) as stream:
        for window in read_windows(stream, shard.path):
            sizes.append(window.sizes.astype(np.uint32))
        file_sha256 = stream.digest() if shard.is_gzip else bytes(32)
    every = np.concatenate(sizes)
    high: UInt64s = np.zeros(every.size, np.uint64)
    low: UInt64s = np.zeros(every.size, np.uint64)
    high[rows], low[rows] = ids.high, ids.low
    return ShardScan(shard, Ids(high, low), every, file_sha256)


def _note(job: Job, name: str, what: Any) -> None:
    open_storage(job.store).put(f"{job.notes}/{name}", pickle.dumps(what))


def _finish(storage: Storage, line: Line, job: Job, source: str, options: CommitOptions) -> Committed | None:
    """Collect the workers' notes, and make the version visible."""
    notes = {name: pickle.loads(storage.read(f"{job.notes}/{name}")) for name in storage.names(job.notes)}
    digests = {split: (0, join_buckets([empty_bucket()] * BUCKETS)) for split in job.splits}
    for name, note in notes.items():
        if name.startswith("digest-"):
            digests[note[0]] = note[1], note[2]
    digest = version_digest(digests)
    if (same := line.with_digest(digest)) is not None:
        return Committed(same, is_new=False, added=0, removed=0, stored_bytes=0)
    live: Live = {}
    new_packs: list[PackFacts] = []
    for name in sorted(notes, key=_order):
        if name.startswith("digest-"):
            continue
        for pack, rows_of in notes[name]:
            live.update({(split, pack.name): rows for split, rows in rows_of.items()})
            if name.startswith("new-"):
                new_packs.append(pack)
    for pack in job.packs:
        rows = [found.is_live for (_, name), found in live.items() if name == pack.name]
        if rows:
            ids = read_index(storage, job.dataset, pack).ids
            check_none_forgotten(line, [ids[np.logical_or.reduce(rows)]])
    packs = [*line.packs, *new_packs]
    return finish(line, packs, new_packs, live, digests, digest, source, options)


def _order(name: str) -> tuple[int, str, int]:
    """Packs in the order in which `placement.place` would write them: whole shards first."""
    kind, _, rest = name.partition("-")
    number = rest.rpartition("-")[2]
    return (
        0 if rest.startswith("whole") else 1,
        kind if kind != "new" else rest.rpartition("-")[0],
        int(number),
    )
