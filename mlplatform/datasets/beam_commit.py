"""Commits on Beam: the same version as `commit`, for any size, in bounded memory, on any runner.

    every shard, every known pack | scan: its records, sorted by id, to a file
    every range of ids            | match: compare its part of those files; what is new, what is live, digests
    every pack to be              | write: the new records of a shard, or of some shards
    every pack that holds         | hash the keys, where the firewall needs them
      something new or held out   |

The engine moves numbers only. Records' ids and places, 32 bytes a record, go from step to step through files
below `.aside-*` in the store, of which a worker reads the ranges that it needs; payloads are read where they
are written. A step that runs twice writes the same files. The process that starts the work checks that every
file of a step is there before it goes on, and itself holds some bytes per record (the bitmaps).
"""

import io
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from mlplatform.beam.job_server import require_job_server
from mlplatform.beam.runners import pipeline_options
from mlplatform.datasets.commit import (
    CommitOptions,
    Committed,
    check_key,
    check_named_splits,
    check_training_splits,
    declared_for,
    finish,
    known_version,
    read_live,
    source_of,
)
from mlplatform.datasets.errors import CommitFilesLostError, CommitRecordsLostError
from mlplatform.datasets.examples_folder import Shard, list_shards
from mlplatform.datasets.firewall import check_by_content
from mlplatform.datasets.forgotten import check_none_forgotten
from mlplatform.datasets.format.digest import BUCKETS, bucket_bounds, bucket_digests, join_buckets
from mlplatform.datasets.format.hashing import Ids
from mlplatform.datasets.format.live import HELD_OUT, Live, Rows
from mlplatform.datasets.format.manifest import Declared, PackFacts, version_digest
from mlplatform.datasets.format.pack import read_index
from mlplatform.datasets.format.tfrecord import FRAME_BYTES, Int64s
from mlplatform.datasets.keys import key_hashes, keys_path
from mlplatform.datasets.line import Line, begin_store, forgotten_folder
from mlplatform.datasets.notes import printable
from mlplatform.datasets.placement import NewPack, ShardPart, cut_packs, loose_groups
from mlplatform.datasets.scan import ShardScan, scan_shard
from mlplatform.datasets.write_packs import check_unchanged, write_packs
from mlplatform.progress import Task, track
from mlplatform.storage import ASIDE, Storage, open_storage

_MATCHED_RECORDS = 1 << 20  # compared at a time by a worker: about 150 bytes each
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("offset", "<i8"), ("row", "<u4"), ("size", "<u4")])
_RECORDS_AT = 8 * (BUCKETS + 1)  # behind the table that says where each bucket begins

Records = npt.NDArray[np.void]


@dataclass(frozen=True)
class Job:
    """What the workers need to know.

    Attributes:
        store: The store's URL.
        dataset: The dataset's name.
        notes: Folder in the store where the workers leave what later steps read.
        splits: Split names.
        shards: The shards to commit.
        packs: The known packs.
        ranges: Parts into which the ids are cut.
        hashes: Per shard the SHA-256 of a gzip file; known once the shards are scanned.
        tasks: Per pack to be, or group of such packs: its shards.
        whole: How many of the first tasks are shards that are new altogether.
        key: Features that identify an item.
    """

    store: str
    dataset: str
    notes: str
    splits: list[str]
    shards: list[Shard]
    packs: list[PackFacts]
    ranges: int = 0
    hashes: tuple[bytes, ...] = ()
    tasks: tuple[tuple[int, ...], ...] = ()
    whole: int = 0
    key: tuple[str, ...] = ()

    @property
    def storage(self) -> Storage:
        """The store's files."""
        return _storage(self.store)

    @property
    def matched(self) -> np.dtype[np.void]:
        """A new record, with how often it occurs in each split."""
        return np.dtype([*_RECORD.descr, ("copies", "<u4", (len(self.splits),))])

    def buckets(self, number: int) -> tuple[int, int]:
        """Return the first bucket of a range of ids, and the one behind its last."""
        return number * BUCKETS // self.ranges, (number + 1) * BUCKETS // self.ranges

    def path(self, name: str) -> str:
        """Return the path of a note."""
        return f"{self.notes}/{name}"


Work = Callable[[int, Job, Task], None]


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

    Raises:
        JobServerUnreachableError: The flags name a job server that does not answer.
        CommitFilesLostError: What a worker left in the store did not arrive there.
    """
    require_job_server(beam_options)
    splits, shards = list_shards(folder)
    check_named_splits(Line.read(storage, dataset), splits, options)
    begin_store(storage)
    notes = f"{dataset}/{ASIDE}-{uuid.uuid4().hex}"
    with storage.hold(dataset, alone=False), _deleted_in_the_end(storage, notes):
        line = Line.read(storage, dataset)
        job = Job(storage.url, dataset, notes, splits, shards, [])
        _each("read records", ("shard", "facts"), len(shards), scan, job, beam_options)
        paths = [job.path(f"facts-{number}") for number in range(len(shards))]
        facts = [json.loads(data) for data in storage.read_all(paths)]
        records = np.array([fact["records"] for fact in facts], np.int64)
        job = replace(job, hashes=tuple(bytes.fromhex(fact["file_sha256"]) for fact in facts))
        while True:
            committed = _compared(line, job, records, printable(source_of(folder)), options, beam_options)
            if committed is not None:
                return committed
            # Another writer was first: compare anew, with what it wrote.
            _delete(storage, notes, but=("shard-", "facts-"))
            line = Line.read(storage, dataset)


def _compared(
    line: Line, job: Job, records: Int64s, source: str, options: CommitOptions, beam_options: Sequence[str]
) -> Committed | None:
    """Compare scanned shards with what is known, write what is new, and make the version visible."""
    declared = declared_for(line, options)
    total = int(records.sum()) + sum(pack.records for pack in line.packs)
    ranges = min(BUCKETS, 1 + total // _MATCHED_RECORDS)
    job = replace(job, packs=line.packs, key=tuple(declared.key), ranges=ranges)
    _each("read indexes", ("pack",), len(job.packs), sort_index, job, beam_options)
    _each("look records up", ("new", "match"), job.ranges, match, job, beam_options)
    digests, live, new_records, new_bytes = _matched(job, records)
    if (same := line.with_digest(version_digest(digests))) is not None:
        return known_version(line, same, job.shards, source, options)
    check_training_splits(line, job.splits, options)
    check_key(line.dataset, job.shards, declared.key)
    _check_none_forgotten(line, live, job.shards, declared.key)
    before = read_live(line, line.latest) if line.latest else {}
    if options.is_firewall_on and before:  # by content, before anything is written
        check_by_content(line, line.packs, before, live, declared)
    job = _planned(job, records, new_records, new_bytes)
    _each("write new records", ("written",), len(job.tasks), write, job, beam_options)
    new_packs = _written(job, live)
    if options.is_firewall_on and before:
        _hash_keys(job, new_packs, before, declared, beam_options)
    return finish(line, new_packs, live, digests, declared, source, options)


def _each(
    description: str, notes: Sequence[str], count: int, work: Work, job: Job, beam_options: Sequence[str]
) -> None:
    """Do some work for each of `count` numbers, on Beam; each has to leave its notes, `<name>-<number>`.

    Raises:
        CommitFilesLostError: Some did not.
    """
    if not count:
        return
    with beam.Pipeline(options=pipeline_options(beam_options)) as pipeline:
        _ = (
            pipeline
            | beam.Create(range(count))
            | beam.Reshuffle()
            | beam.ParDo(_Work(description, work, job)).with_output_types(int)
        )
    there = set(job.storage.names(job.notes))
    missing = sorted({f"{note}-{number}" for note in notes for number in range(count)} - there)
    if missing:
        raise CommitFilesLostError(job.dataset, [f"{job.store}/{job.path(name)}" for name in missing])


class _Work(beam.DoFn):
    """Does some work for each number, and reports its progress where it runs."""

    def __init__(self, description: str, work: Work, job: Job) -> None:
        self._description, self._work, self._job = description, work, job

    def setup(self) -> None:
        self._opened = ExitStack()
        self._bar = self._opened.enter_context(track(self._description))

    def process(self, number: int) -> Iterator[int]:
        self._work(number, self._job, self._bar)
        yield number

    def teardown(self) -> None:
        self._opened.close()


def scan(number: int, job: Job, bar: Task) -> None:
    """Read a shard; leave its records, sorted by id."""
    shard, before = job.shards[number], 0
    for step in scan_shard(shard):
        if isinstance(step, ShardScan):
            check_unchanged([shard])
            _note_records(job, f"shard-{number}", step.ids, step.offsets(), step.sizes)
            fact = {"records": len(step.ids), "file_sha256": step.file_sha256.hex()}
            job.storage.put(job.path(f"facts-{number}"), json.dumps(fact).encode())
        else:
            bar.advance(step - before)
            before = step


def sort_index(number: int, job: Job, bar: Task) -> None:
    """Read the index of a known pack; leave its records, sorted by id."""
    index = read_index(job.storage, job.dataset, job.packs[number])
    _note_records(job, f"pack-{number}", index.ids, index.frames()[:-1], index.sizes)
    bar.advance(len(index.ids))


def _note_records(job: Job, name: str, ids: Ids, offsets: Int64s, sizes: npt.NDArray[np.uint32]) -> None:
    order = np.argsort(ids.high, kind="stable")
    found = np.empty(len(ids), _RECORD)
    found["high"], found["low"] = ids.high[order], ids.low[order]
    found["offset"], found["size"], found["row"] = offsets[order], sizes[order], order
    table = bucket_bounds(ids.high[order], 0, BUCKETS).astype("<i8")
    job.storage.put(job.path(name), b"".join([table.tobytes(), found.view(np.uint8).data]))


def _records_of(job: Job, name: str, first: int, last: int) -> Records:
    """Read the records of some buckets."""
    path = job.path(name)
    table = np.frombuffer(job.storage.read(path, 8 * first, 8 * last + 8), "<i8")
    begin, end = int(table[0]), int(table[-1])
    size = _RECORD.itemsize
    return np.frombuffer(
        job.storage.read(path, _RECORDS_AT + size * begin, _RECORDS_AT + size * end), _RECORD
    )


def match(number: int, job: Job, bar: Task) -> None:
    """Compare the records of a range of ids: leave what is live, what is new, and the digests."""
    buckets = job.buckets(number)
    sources = [f"pack-{n}" for n in range(len(job.packs))] + [f"shard-{n}" for n in range(len(job.shards))]
    parts = [_records_of(job, name, *buckets) for name in sources]
    # Known records come first, then shard by shard and row by row: the first of a kind is its place.
    parts = [part[np.argsort(part["row"])] for part in parts]
    owner = np.repeat(np.arange(len(parts)), np.array([part.size for part in parts], np.int64))
    records = np.concatenate([np.empty(0, _RECORD), *parts])
    del parts
    ids = Ids(records["high"].astype(np.uint64), records["low"].astype(np.uint64))
    repeats, firsts = ids.sorted().repeats()
    first = np.arange(len(ids))
    first[repeats] = firsts
    split_of = [-1] * len(job.packs) + [job.splits.index(shard.split) for shard in job.shards]
    split = np.array(split_of, np.int64)[owner]
    count = len(job.splits)
    comes = split >= 0
    copies = np.bincount(first[comes] * count + split[comes], minlength=records.size * count)
    copies = copies.reshape(-1, count).astype("<u4")
    digests = [b"".join(bucket_digests(ids[split == n].sorted().ids, *buckets)) for n in range(count)]

    is_used = copies.any(axis=1)
    known = np.flatnonzero(is_used & (owner < len(job.packs)))
    new = np.flatnonzero(is_used & (owner >= len(job.packs)))
    shard = owner[new] - len(job.packs)
    found = np.empty(new.size, job.matched)
    for name in _RECORD.names or ():
        found[name] = records[name][new]
    found["copies"] = copies[new]
    # The new records of each shard lie together, and a table says where.
    table = np.searchsorted(shard, np.arange(len(job.shards) + 1)).astype("<i8")
    job.storage.put(job.path(f"new-{number}"), b"".join([table.tobytes(), found.view(np.uint8).data]))
    sizes = found["size"].astype(np.int64) + FRAME_BYTES
    out = io.BytesIO()
    np.savez(
        out,
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(count, -1),
        records=np.bincount(split[comes], minlength=count),
        new_records=np.bincount(shard, minlength=len(job.shards)),
        new_bytes=np.bincount(shard, sizes, len(job.shards)).astype(np.int64),
        pack=owner[known].astype("<u4"),
        row=records["row"][known],
        copies=copies[known],
    )
    job.storage.put(job.path(f"match-{number}"), out.getvalue())
    bar.advance(records.size)


def _matched(job: Job, records: Int64s) -> tuple[dict[str, tuple[int, bytes]], Live, Int64s, Int64s]:
    """Collect what was found: digests per split, live rows of known packs, new records and bytes per shard.

    Raises:
        CommitRecordsLostError: It is not about all the records that were read.
    """
    found = [0] * len(job.splits)
    digests: list[list[bytes]] = [[] for _ in job.splits]
    new_records, new_bytes = np.zeros((2, len(job.shards)), np.int64)
    live: Live = {}
    for number in range(job.ranges):
        with np.load(io.BytesIO(job.storage.read(job.path(f"match-{number}")))) as note:
            for n in range(len(job.splits)):
                found[n] += int(note["records"][n])
                digests[n].append(note["digests"][n].tobytes())
            new_records += note["new_records"]
            new_bytes += note["new_bytes"]
            owner, row, copies = note["pack"], note["row"], note["copies"]
        for place in np.unique(owner).tolist():
            mine = owner == place
            _add(live, job, job.packs[place], row[mine].astype(np.int64), copies[mine])
    for n, split in enumerate(job.splits):
        wanted = sum(int(records[s]) for s, shard in enumerate(job.shards) if shard.split == split)
        if wanted != found[n]:
            raise CommitRecordsLostError(job.dataset, split, wanted, found[n])
    return (
        {split: (found[n], join_buckets(digests[n])) for n, split in enumerate(job.splits)},
        live,
        new_records,
        new_bytes,
    )


def _add(live: Live, job: Job, pack: PackFacts, rows: Int64s, copies: npt.NDArray[np.uint32]) -> None:
    """Add rows of a pack to those that are live."""
    for n, split in enumerate(job.splits):
        mine = np.flatnonzero(copies[:, n])
        if mine.size:
            more = Rows.of(pack.records, rows[mine], copies[mine, n])
            live[split, pack.name] = live[split, pack.name] + more if (split, pack.name) in live else more


def _check_none_forgotten(line: Line, live: Live, shards: Sequence[Shard], key: Sequence[str]) -> None:
    if not line.storage.names(forgotten_folder(line.dataset)):
        return
    for pack in line.packs:
        masks = [rows.is_live for (_, name), rows in live.items() if name == pack.name]
        if masks:
            ids = read_index(line.storage, line.dataset, pack).ids
            check_none_forgotten(line, [ids[np.logical_or.reduce(masks)]], shards, key)


def _planned(job: Job, records: Int64s, new_records: Int64s, new_bytes: Int64s) -> Job:
    """Say which packs are to be written, the same and in the same order as `placement.place` does."""
    whole = [(n,) for n in range(len(job.shards)) if 0 < new_records[n] == records[n]]
    loose: dict[tuple[str, bool], list[int]] = {}
    for n, shard in enumerate(job.shards):
        if 0 < new_records[n] < records[n]:
            loose.setdefault((shard.split, shard.is_gzip), []).append(n)
    groups = [
        tuple(numbers[place] for place in group)
        for numbers in loose.values()
        for group in loose_groups([int(new_bytes[n]) for n in numbers])
    ]
    return replace(job, tasks=(*whole, *groups), whole=len(whole))


def write(number: int, job: Job, bar: Task) -> None:
    """Write the new records of a shard that is new altogether, or the loose ones of some shards."""
    records = [_new_records(job, shard) for shard in job.tasks[number]]
    parts = [
        ShardPart(
            job.shards[shard],
            job.hashes[shard],
            found["row"].astype(np.int64),
            Ids(found["high"].astype(np.uint64), found["low"].astype(np.uint64)),
            found["size"].astype(np.uint32),
            found["offset"].astype(np.int64),
        )
        for shard, found in zip(job.tasks[number], records, strict=True)
    ]
    packs = [NewPack(parts, is_whole=True)] if number < job.whole else cut_packs(parts)
    facts = write_packs(job.storage, job.dataset, packs)
    out = io.BytesIO()
    text = json.dumps([asdict(fact) for fact in facts]).encode()
    copies = np.concatenate([found["copies"] for found in records])
    np.savez(out, facts=np.frombuffer(text, np.uint8), copies=copies)
    job.storage.put(job.path(f"written-{number}"), out.getvalue())
    bar.advance(len(copies))


def _new_records(job: Job, shard: int) -> Records:
    """Read the new records of a shard, in file order."""
    size, begin_at = job.matched.itemsize, 8 * (len(job.shards) + 1)
    parts = []
    for number in range(job.ranges):
        path = job.path(f"new-{number}")
        begin, end = np.frombuffer(job.storage.read(path, 8 * shard, 8 * shard + 16), "<i8").tolist()
        data = job.storage.read(path, begin_at + size * begin, begin_at + size * end)
        parts.append(np.frombuffer(data, job.matched))
    found = np.concatenate(parts)
    return found[np.argsort(found["row"])]


def _written(job: Job, live: Live) -> list[PackFacts]:
    """Collect the packs that were written, and add their rows to those that are live."""
    packs = []
    for number in range(len(job.tasks)):
        with np.load(io.BytesIO(job.storage.read(job.path(f"written-{number}")))) as note:
            facts, copies = json.loads(note["facts"].tobytes()), note["copies"]
        begin = 0
        for fact in facts:
            pack = PackFacts(**fact)
            _add(live, job, pack, np.arange(pack.records), copies[begin : begin + pack.records])
            begin += pack.records
            packs.append(pack)
    return packs


def _hash_keys(
    job: Job,
    new_packs: Sequence[PackFacts],
    before: Live,
    declared: Declared,
    beam_options: Sequence[str],
) -> None:
    """Hash the keys of what is new or was held out, for the firewall, where they are not hashed yet."""
    held_out = {pack for split, pack in before if split == HELD_OUT}
    if not declared.key or not held_out:
        return
    there = set(job.storage.names(f"{job.dataset}/keys"))
    packs = [
        pack
        for pack in [*(pack for pack in job.packs if pack.name in held_out), *new_packs]
        if keys_path(job.dataset, pack.name, declared.key).rpartition("/")[2] not in there
    ]
    _each("hash keys", ("keys",), len(packs), hash_keys, replace(job, packs=packs), beam_options)


def hash_keys(number: int, job: Job, bar: Task) -> None:
    """Hash the keys of a pack's records."""
    key_hashes(job.storage, job.dataset, [job.packs[number]], job.key)
    job.storage.put(job.path(f"keys-{number}"), b"")
    bar.advance(job.packs[number].records)


@cache
def _storage(url: str) -> Storage:
    return open_storage(url)  # once per worker: it tries whether the backend keeps its promises


@contextmanager
def _deleted_in_the_end(storage: Storage, notes: str) -> Iterator[None]:
    try:
        yield
    finally:
        _delete(storage, notes)
        storage.delete_folder(notes)


def _delete(storage: Storage, notes: str, but: tuple[str, ...] = ()) -> None:
    for name in storage.names(notes):
        if not name.startswith(but or "/"):
            storage.delete(f"{notes}/{name}")
