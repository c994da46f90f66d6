"""Build the index of a model's photos, judge it, and put it beside the model."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from mlplatform.beam.gathered import WriteGathered, read_gathered
from mlplatform.components.index_builder.embedding import (
    GOLDEN_PHOTOS,
    EmbeddedPhotos,
    EmbedPhotos,
    PhotoRecord,
    Work,
    embed,
    read_record,
)
from mlplatform.errors import MlplatformError
from mlplatform.progress import report_line
from mlplatform.registry import ModelStore
from mlplatform.registry.errors import ModelNotFoundError, ModelVersionNotFoundError
from mlplatform.registry.version_files import fetched
from mlplatform.search.build import BuildPlan, GoldenPhotos, IndexEntry, Source, photo_digest, write_index
from mlplatform.search.errors import IndexNotGoodEnoughError, NoIndexError
from mlplatform.search.fingerprint import INDEX_FOLDER, embedding_fingerprint
from mlplatform.search.gate import IndexLimits, judge_index
from mlplatform.search.index import LENGTH_TOLERANCE, SearchIndex, open_index, photo_digests
from mlplatform.search.segments import Segments

Array = NDArray[Any]

_SHARD_BYTES = 4 << 20
_MOST_QUERIES = 2000
MakePipeline = Callable[[], beam.Pipeline]


@dataclass(frozen=True, kw_only=True)
class BuildJob:
    """What to build.

    Attributes:
        files: TFRecord files of Examples, or patterns of them, by split.
        query_splits: Splits whose photos the index is measured with, each itself left out.
        model_dir: SavedModel with the signature `embed_image_bytes`.
        records: Records that the splits hold, as counted before; None where that is not known.
        plan: Kind and goal.
        limits: What the index must reach.
        columns: Features that searches can be filtered by; None for all that have one value.
        dataset: The dataset version.
        models_dir: Pushed models, where the index that serves now, and what was added to it, is found.
        model_name: The model's name there.
        cache: Folder or URL where vectors are kept while a run lasts and from run to run.
        scratch: Folder or URL for what Beam gathers; every worker can write to it.
    """

    files: Mapping[str, Sequence[str]]
    query_splits: Sequence[str]
    model_dir: Path
    cache: str
    scratch: str
    records: int | None = None
    plan: BuildPlan = field(default_factory=BuildPlan)
    limits: IndexLimits = field(default_factory=IndexLimits)
    columns: Sequence[str] | None = None
    dataset: str = ""
    models_dir: str = ""
    model_name: str = ""


@dataclass(frozen=True)
class Built:
    """The index, and why it may not serve; no reason where it may."""

    index: SearchIndex
    reasons: list[str]
    embedded: int  # photos that the model was asked about


def build_index(job: BuildJob, make_pipeline: MakePipeline, folder: Path) -> Built:
    """Embed what is new, write the index to `folder`, which must not exist, and judge it.

    Raises:
        TooFewQueriesError: It is to be approximate, and too few photos are held out.
        MissingExtraError: It is to be approximate, and faiss is not installed.
        IndexNotGoodEnoughError: No record can be indexed.
    """
    fingerprint = embedding_fingerprint(job.model_dir)
    with _serving_index(job) as baseline:
        segments = _Segments.read(job, fingerprint)
        photos = EmbeddedPhotos(job.cache, fingerprint)
        vectors = {**_vectors_of(baseline, fingerprint), **photos.read()}
        known = len(vectors)
        records, golden = _run_beam(job, make_pipeline, fingerprint, vectors)
        vectors.update(photos.read())
        embedded = len(vectors) - known
        vectors.update(segments.vectors(job, vectors))
        collected = _Collected.of(records, segments, vectors, job)
        if not collected.entries:
            raise IndexNotGoodEnoughError([f"none of {len(records)} records can be indexed"])
        report_line(f"{embedded:,} of {len(records):,} photos were embedded; the others were known")
        source = Source(
            fingerprint=fingerprint,
            records=(len(records) if job.records is None else job.records) + segments.photos,
            duplicates=collected.duplicates,
            rejected=collected.rejected,
            removed=collected.removed,
            dataset=job.dataset,
            segment=segments.last,
        )
        index = write_index(
            folder, collected.vectors, collected.entries, _golden(golden, collected, job), source, job.plan
        )
        return Built(index, judge_index(index, job.limits, baseline), embedded)


def bundle(model_dir: Path, index: Path, target: Path) -> None:
    """Put an index beside its model: `target` becomes the SavedModel with `assets.extra/index`.

    Files are hard links where the file system has them.
    """
    ignored = {str(model_dir / INDEX_FOLDER.parent): {INDEX_FOLDER.name}}
    shutil.copytree(
        model_dir,
        target,
        copy_function=_link,
        ignore=lambda path, _: ignored.get(path, set()),
        dirs_exist_ok=True,
    )
    shutil.copytree(index, target / INDEX_FOLDER, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class _serving_index:  # noqa: N801 - used as a context manager
    """Gives the index of the newest pushed version; None where there is none that can be opened."""

    def __init__(self, job: BuildJob) -> None:
        self._job = job
        self._version: Any = None

    def __enter__(self) -> SearchIndex | None:
        job = self._job
        if not (job.models_dir and job.model_name):
            return None
        try:
            version = ModelStore(job.models_dir).version(job.model_name, "latest")
        except (ModelNotFoundError, ModelVersionNotFoundError):
            return None
        self._version = fetched(version.url)
        folder = self._version.__enter__()
        try:
            return open_index(folder / INDEX_FOLDER)
        except NoIndexError:
            return None
        except MlplatformError as error:
            report_line(f"the index that serves cannot be compared with: {error}")
            return None

    def __exit__(self, *_: object) -> None:
        if self._version is not None:
            self._version.__exit__(None, None, None)


def _vectors_of(baseline: SearchIndex | None, fingerprint: str) -> dict[bytes, Array]:
    """Return the vectors that the serving index has of the same embedding, by photo."""
    if baseline is None or baseline.manifest.fingerprint != fingerprint:
        return {}
    found = {}
    for digest, row in zip(photo_digests(baseline), baseline.item_rows.tolist(), strict=True):
        vector = np.asarray(baseline.vectors[row], np.float32)
        found[digest.tobytes()] = vector / np.linalg.norm(vector)
    return found


@dataclass(frozen=True)
class _Added:
    """A photo of an item that was added since the index was built."""

    item_id: str
    photo: bytes
    digest: bytes
    columns: Mapping[str, Any]
    vector: Array | None  # None where another model embedded it


@dataclass(frozen=True)
class _Segments:
    """What was added and removed since: the last word about each item."""

    last: int
    added: Mapping[str, list[_Added]]
    named: frozenset[str]  # items whose records do not count: removed, or added anew

    @property
    def photos(self) -> int:
        """Photos of the items that were added."""
        return sum(len(some) for some in self.added.values())

    @classmethod
    def read(cls, job: BuildJob, fingerprint: str) -> "_Segments":
        if not (job.models_dir and job.model_name):
            return cls(0, {}, frozenset())
        segments = Segments(ModelStore(job.models_dir).base_path(job.model_name))
        added: dict[str, list[_Added]] = {}
        named: set[str] = set()
        number = 0
        while (segment := segments.read(number + 1)) is not None:
            number += 1
            named |= set(segment.item_ids)
            for item_id in segment.item_ids:
                added.pop(item_id, None)
            if segment.is_removal:
                continue
            is_same = segment.fingerprint == fingerprint
            for place, item_id in enumerate(segment.item_ids):
                photo = segment.photos[place]
                columns = {name: values[place] for name, values in segment.columns.items()}
                vector = segment.vectors[place] if is_same else None
                one = _Added(item_id, photo, photo_digest(photo), columns, vector)
                added.setdefault(item_id, []).append(one)
        return cls(number, added, frozenset(named))

    def vectors(self, job: BuildJob, known: Mapping[bytes, Array]) -> dict[bytes, Array]:
        """Return their vectors by photo; what another model embedded is embedded with this one."""
        every = [one for some in self.added.values() for one in some]
        found = {one.digest: one.vector for one in every if one.vector is not None}
        missing = {o.digest: o.photo for o in every if o.digest not in found and o.digest not in known}
        if missing:
            found.update(zip(missing, embed(str(job.model_dir), list(missing.values())), strict=True))
        return found


def _run_beam(
    job: BuildJob, make_pipeline: MakePipeline, fingerprint: str, vectors: Mapping[bytes, Array]
) -> tuple[list[PhotoRecord], list[bytes]]:
    """Read all records and embed the photos that are not known; return the records, and some photos."""
    records_file, golden_file = f"{job.scratch}/records", f"{job.scratch}/golden"
    work = Work(str(job.model_dir), job.cache, fingerprint)
    with make_pipeline() as pipeline:
        read = [
            pipeline
            | f"Files of {split}" >> beam.Create(list(files))
            | f"Read {split}" >> beam.io.ReadAllFromTFRecord()
            | f"Parse {split}" >> beam.Map(read_record, split)
            for split, files in job.files.items()
        ]
        records = read | beam.Flatten()
        photos = records | "WithPhoto" >> beam.FlatMap(_photo)
        _ = records | "Facts" >> beam.Map(lambda pair: pair[0]) | "Gather" >> WriteGathered(records_file)
        _ = (
            photos
            | "Golden" >> beam.combiners.Top.Smallest(2 * GOLDEN_PHOTOS)
            | "EachGolden" >> beam.FlatMap(lambda found: [photo for _, photo in found])
            | "GatherGolden" >> WriteGathered(golden_file)
        )
        _ = photos | EmbedPhotos(work, vectors.keys(), _shards(job))
    return read_gathered(records_file), sorted(set(read_gathered(golden_file)))


def _photo(pair: tuple[PhotoRecord, bytes]) -> list[tuple[bytes, bytes]]:
    record, photo = pair
    return [(record.photo, photo)] if record.photo and record.item_id else []


def _shards(job: BuildJob) -> int:
    from apache_beam.io.filesystems import FileSystems

    patterns = [pattern for files in job.files.values() for pattern in files]
    total = sum(facts.size_in_bytes for match in FileSystems.match(patterns) for facts in match.metadata_list)
    return int(max(1, -(-total // _SHARD_BYTES)))


@dataclass(frozen=True)
class _Collected:
    """Distinct vectors, and the items that have them."""

    vectors: Array
    entries: list[IndexEntry]
    duplicates: int
    rejected: int
    removed: int
    by_photo: Mapping[bytes, IndexEntry]

    @classmethod
    def of(
        cls,
        records: Sequence[PhotoRecord],
        segments: _Segments,
        vectors: Mapping[bytes, Array],
        job: BuildJob,
    ) -> "_Collected":
        rows: dict[bytes, int] = {}
        kept: list[Array] = []
        entries: dict[tuple[str, int], IndexEntry] = {}
        indexed = rejected = removed = 0
        # In the order of photos and ids, whatever order Beam gave them in: the same data, the same index.
        for record in sorted(records, key=lambda one: (one.photo, one.item_id)):
            vector = vectors.get(record.photo)
            if record.item_id in segments.named:
                removed += 1
            elif not record.item_id or vector is None or not _is_unit(vector):
                rejected += 1
            else:
                indexed += 1
                is_query = record.split in job.query_splits
                entry = IndexEntry(
                    record.item_id, _row(vector, rows, kept), record.photo, record.columns, is_query
                )
                entries.setdefault((entry.item_id, entry.row), _of_columns(entry, job.columns))
        for some in segments.added.values():
            for one in some:
                vector = vectors.get(one.digest)
                if vector is None or not _is_unit(vector):
                    rejected += 1
                    continue
                indexed += 1
                entry = IndexEntry(one.item_id, _row(vector, rows, kept), one.digest, one.columns)
                entries.setdefault((entry.item_id, entry.row), _of_columns(entry, job.columns))
        found = _with_fewer_queries(list(entries.values()))
        stacked = np.stack(kept) if kept else np.zeros((0, 1), np.float32)
        by_photo = {entry.photo: entry for entry in found}
        return cls(stacked, found, indexed - len(kept), rejected, removed, by_photo)


def _is_unit(vector: Array) -> bool:
    return bool(abs(float(np.linalg.norm(vector)) - 1) <= LENGTH_TOLERANCE)


def _row(vector: Array, rows: dict[bytes, int], kept: list[Array]) -> int:
    """Return the row of a vector; one that is stored as another is has that one's."""
    stored = vector.astype(np.float16).tobytes()
    if stored not in rows:
        rows[stored] = len(kept)
        kept.append(vector.astype(np.float32))
    return rows[stored]


def _of_columns(entry: IndexEntry, columns: Sequence[str] | None) -> IndexEntry:
    if columns is None:
        return entry
    return replace(entry, columns={name: entry.columns.get(name) for name in columns})


def _with_fewer_queries(entries: list[IndexEntry]) -> list[IndexEntry]:
    queries = [place for place, entry in enumerate(entries) if entry.is_query]
    for place in queries[_MOST_QUERIES:]:
        entries[place] = replace(entries[place], is_query=False)
    return entries


def _golden(photos: Sequence[bytes], collected: _Collected, job: BuildJob) -> GoldenPhotos:
    """Return photos of the index with the vectors that the model gives them, and their items."""
    known = [photo for photo in photos if photo_digest(photo) in collected.by_photo]
    if not known:
        raise IndexNotGoodEnoughError(["no photo of the data is left in the index to check it by"])
    kept = known[:GOLDEN_PHOTOS]
    item_ids = [collected.by_photo[photo_digest(photo)].item_id for photo in kept]
    return GoldenPhotos(kept, embed(str(job.model_dir), kept), item_ids)
