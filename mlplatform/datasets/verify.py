"""Reads everything that a dataset has and reports whatever is not what was written."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from mlplatform.datasets.commit import difference, read_live
from mlplatform.datasets.errors import CorruptRecordsError, StoreFormatError
from mlplatform.datasets.examples_folder import uncompressed
from mlplatform.datasets.firewall import held_out_rows
from mlplatform.datasets.forgotten import Erasure, erased_path, forgotten_ids, is_forgotten, read_erased
from mlplatform.datasets.format.digest import split_digest
from mlplatform.datasets.format.features import hash_values
from mlplatform.datasets.format.hashing import Ids, payload_checksums, record_ids
from mlplatform.datasets.format.live import HELD_OUT, Live
from mlplatform.datasets.format.manifest import Manifest, PackFacts, unsealed
from mlplatform.datasets.format.pack import PackIndex, index_path, read_index, records_path
from mlplatform.datasets.format.pack_records import cut, pack_windows
from mlplatform.datasets.format.tfrecord import (
    FOOTER_BYTES,
    HEADER_BYTES,
    SLACK_BYTES,
    Int64s,
    headers,
    mask,
    word32,
)
from mlplatform.datasets.format.walk import Bools
from mlplatform.datasets.keys import is_key_file_whole, kept_hashes, keys_path
from mlplatform.datasets.line import (
    STORE_FILE,
    Declaration,
    Line,
    first_gap,
    manifest_numbers,
    tagged_number,
    version_path,
)
from mlplatform.datasets.notes import Copy, Use
from mlplatform.datasets.reading import reading
from mlplatform.datasets.seen import read_seen
from mlplatform.errors import MlplatformError
from mlplatform.machine import usable_threads
from mlplatform.progress import Task, track
from mlplatform.storage import Storage
from mlplatform.storage.errors import CorruptStoreError

_NAMED = 20


@dataclass(frozen=True)
class Damage:
    """Something that is not what was written.

    Attributes:
        path: The file, below the store.
        what: What is wrong with it.
        records: Ids of the damaged records, in hexadecimal, where it is about records.
        versions: Versions that need the file.
    """

    path: str
    what: str
    records: list[str]
    versions: list[str]


@dataclass(frozen=True)
class Verified:
    """What a verification found.

    Attributes:
        dataset: The dataset.
        records: Records that were read and checked.
        problems: Everything that is wrong; nothing is where it is empty.
    """

    dataset: str
    records: int
    problems: list[Damage]

    @property
    def is_whole(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def verify(storage: Storage, dataset: str, version: str | None = None) -> Verified:
    """Check a dataset; see `DatasetStore.verify`."""
    with reading(storage, dataset):
        return _verify(storage, dataset, version)


def _verify(storage: Storage, dataset: str, version: str | None) -> Verified:
    problems: list[Damage] = []
    if version is not None:
        manifests = [Line.read(storage, dataset).resolve(version)]
    else:
        manifests = _manifests(storage, dataset, problems)
        problems += _notes(storage, dataset)
    line = Line(storage, dataset, manifests)
    needed: dict[str, tuple[PackFacts, list[str]]] = {}
    for manifest in manifests:
        for pack in manifest.packs:
            needed.setdefault(pack.name, (pack, []))[1].append(manifest.version)
    try:
        forgotten = forgotten_ids(storage, dataset)
    except MlplatformError:  # one of the notes' problems
        forgotten = Ids.none()
    indexes: dict[str, PackIndex] = {}
    with (
        track("verify records", sum(pack.records for pack, _ in needed.values())) as bar,
        ThreadPoolExecutor(usable_threads()) as threads,
    ):
        for index, found in threads.map(
            lambda item: _pack(storage, dataset, item[0], item[1], forgotten, bar), needed.values()
        ):
            problems += found
            if index is not None:
                indexes[index[0]] = index[1]
    for manifest in manifests:
        problems += _version(line, manifest, indexes)
    problems += _kept_keys(line, forgotten, indexes)
    return Verified(dataset, sum(len(index.ids) for index in indexes.values()), problems)


def _manifests(storage: Storage, dataset: str, problems: list[Damage]) -> list[Manifest]:
    """Read the manifests that can be read; where one cannot, those after it still are."""
    numbers = manifest_numbers(storage, dataset)
    if (missing := first_gap(numbers)) is not None:
        problems.append(Damage(version_path(dataset, missing), "it is missing", [], []))
    manifests: list[Manifest] = []

    def read(data: bytes) -> None:
        manifests.append(Manifest.from_json(data, ""))

    for number in numbers:
        path = version_path(dataset, number)
        found = _checked(storage, path, read)
        if not found and (manifests[-1].dataset, manifests[-1].number) != (dataset, number):
            wrong = manifests.pop()
            found = [Damage(path, f"it describes {wrong.dataset}@{wrong.version}", [], [])]
        problems += found
    for before, after in itertools.pairwise(manifests):
        if after.number == before.number + 1 and after.parent != before.digest:
            what = f"its parent is {after.parent[:12]}, and {before.version} is {before.digest[:12]}"
            problems.append(Damage(version_path(dataset, after.number), what, [], [after.version]))
    return manifests


def _notes(storage: Storage, dataset: str) -> Iterator[Damage]:
    yield from _checked(storage, STORE_FILE, lambda data: unsealed(data, ""))
    readers: list[tuple[str, Callable[[bytes], object]]] = [
        (f"{dataset}/declared", lambda data: Declaration.from_json(data, "")),
        (f"{dataset}/forgotten", lambda data: Erasure.from_json(data, "")),
        (f"{dataset}/erased", lambda data: read_erased(data, "")),
        (f"{dataset}/seen", lambda data: read_seen(data, "")),
        (f"{dataset}/uses", lambda data: Use.from_json(data, "")),
        (f"{dataset}/copies", lambda data: Copy.from_json(data, "")),
    ]
    readers += [
        (f"{dataset}/tags/{tag}", partial(tagged_number, path="", tag=tag))
        for tag in storage.names(f"{dataset}/tags")
    ]
    for folder, read in readers:
        for name in storage.names(folder):
            if name.endswith(".json"):  # nothing else is ever read
                yield from _checked(storage, f"{folder}/{name}", read)
    for name in storage.names(f"{dataset}/keys"):
        if name.endswith(".keys"):
            yield from _checked(storage, f"{dataset}/keys/{name}", _check_keys)


def _kept_keys(line: Line, forgotten: Ids, indexes: dict[str, PackIndex]) -> Iterator[Damage]:
    """Compare the hashes of keys that commits kept with the records: the firewall and `blame` trust them."""
    keys = {tuple(manifest.key) for manifest in line.manifests if manifest.key}
    for pack in line.packs:
        for key in sorted(keys):
            kept = kept_hashes(line.storage, line.dataset, pack, key)
            if kept is None or pack.name not in indexes:
                continue
            path = keys_path(line.dataset, pack.name, key)
            try:
                windows = pack_windows(line.storage, line.dataset, pack)
                parts = [hash_values(w.buffer, w.starts, w.ends, key) for w in windows]
            except (MlplatformError, OSError):  # reported with the pack
                continue
            is_wrong = np.concatenate([np.zeros(0, np.uint64), *parts]) != kept
            is_wrong &= ~is_forgotten(indexes[pack.name].ids, forgotten)
            if is_wrong.any():
                names = indexes[pack.name].ids[np.flatnonzero(is_wrong)[:_NAMED]].names()
                yield Damage(path, "it has not the keys of its records; it can be deleted", names, [])


def _check_keys(data: bytes) -> None:
    if not is_key_file_whole(data):
        raise CorruptStoreError("", "its bytes do not fit their checksum; it can be deleted")


def _checked(storage: Storage, path: str, read: Callable[[bytes], object]) -> list[Damage]:
    try:
        read(storage.read(path))
    except FileNotFoundError:
        return [Damage(path, "it is missing", [], [])]
    except CorruptStoreError as error:
        return [Damage(path, error.problem, [], [])]
    except (StoreFormatError, OSError) as error:
        return [Damage(path, str(error), [], [])]
    return []


def _version(line: Line, manifest: Manifest, indexes: dict[str, PackIndex]) -> list[Damage]:
    """Compare what a manifest says of its records with those that its bitmaps choose."""
    path = f"{line.dataset}/bitmaps/{manifest.bitmaps}"
    try:
        live = read_live(line, manifest)
        if any(pack not in indexes for split, pack in live if split != HELD_OUT):
            return []  # the damaged index is reported already
        what = _not_the_records(manifest, live, indexes) or _not_the_change(line, manifest, live)
    except CorruptStoreError as error:
        what = error.problem
    except (StoreFormatError, OSError) as error:
        what = str(error)
    return [Damage(path, what, [], [manifest.version])] if what else []


def _not_the_records(manifest: Manifest, live: Live, indexes: dict[str, PackIndex]) -> str:
    for split, facts in manifest.splits.items():
        rows = [(indexes[pack].ids, rows.copies()) for (owner, pack), rows in live.items() if owner == split]
        ids = Ids.join([Ids(np.repeat(ids.high, copies), np.repeat(ids.low, copies)) for ids, copies in rows])
        if split_digest(ids).hex() != facts.digest:  # the manifest's own digest is that of its splits
            return f"the records that it chooses for {split!r} do not have the version's digest"
    return ""


def _not_the_change(line: Line, manifest: Manifest, live: Live) -> str:
    """Compare with the version before; nothing is wrong where that one cannot be read."""
    before: Live = {}
    if manifest.number > 1:
        try:
            before = read_live(line, Line.read(line.storage, line.dataset).manifests[manifest.number - 2])
        except (MlplatformError, OSError):
            return ""  # reported with that version
    held_out = {place: rows for place, rows in live.items() if place[0] == HELD_OUT}
    others = {place: rows for place, rows in live.items() if place[0] != HELD_OUT}
    if not _is_same(held_out, held_out_rows(before, others, manifest.training_splits)):
        return "the records that it marks as held out are not those of its splits and of the version before"
    if difference(before, live) != (manifest.added, manifest.removed):
        return "other records came and went since the version before than the manifest says"
    return ""


def _is_same(found: Live, expected: Live) -> bool:
    one, other = (
        {place: rows.is_live for place, rows in live.items() if rows.is_live.any()}
        for live in (found, expected)
    )
    return one.keys() == other.keys() and all(
        np.array_equal(mask, other[place]) for place, mask in one.items()
    )


def _pack(
    storage: Storage, dataset: str, pack: PackFacts, versions: list[str], forgotten: Ids, bar: Task
) -> tuple[tuple[str, PackIndex] | None, list[Damage]]:
    path = index_path(dataset, pack.name)
    try:
        index = read_index(storage, dataset, pack)
        if hashlib.sha256(storage.read(path)).hexdigest() != pack.index_sha256 or index.name != pack.name:
            raise CorruptStoreError(path, "it is not the index that the manifest names")
    except (CorruptStoreError, StoreFormatError, OSError) as error:
        what = error.problem if isinstance(error, CorruptStoreError) else str(error)
        return None, [Damage(path, what, [], versions)]
    gone = is_forgotten(index.ids, forgotten)
    path = records_path(dataset, pack)
    try:
        if pack.is_gzip:
            file_sha256 = (
                _erased_sha256(storage, dataset, pack.name, index) if gone.any() else index.file_sha256
            )
            is_bad, what = _gzip_records(storage, path, pack, index, file_sha256, gone, bar)
        else:
            is_bad, what = _plain_records(storage, path, index, gone, bar)
    except FileNotFoundError:
        is_bad, what = np.ones(len(index.ids), np.bool_), "it is missing"
    except (
        CorruptStoreError,
        OSError,
    ) as error:  # a pipe or a folder in the file's place; an unreadable disk
        problem = error.problem if isinstance(error, CorruptStoreError) else f"it cannot be read: {error}"
        is_bad, what = np.ones(len(index.ids), np.bool_), problem
    if not what:
        return (pack.name, index), []
    bad = np.flatnonzero(is_bad)
    names = index.ids[bad[:_NAMED]].names()
    more = f" ({bad.size:,} records)" if bad.size > _NAMED else ""
    return (pack.name, index), [Damage(path, what + more, names, versions)]


def _erased_sha256(storage: Storage, dataset: str, pack: str, index: PackIndex) -> bytes:
    """Return the SHA-256 of a gzip pack as it is since records were erased from it."""
    try:
        return read_erased(storage.read(erased_path(dataset, pack)), "")
    except (FileNotFoundError, CorruptStoreError):  # not erased yet; damaged: one of the notes' problems
        return index.file_sha256


def _plain_records(
    storage: Storage, path: str, index: PackIndex, gone: Bools, bar: Task
) -> tuple[Bools, str]:
    """Check the frames where the index says that they are: damage in one does not hide the others."""
    bounds = index.frames()
    is_bad = np.zeros(len(index.ids), np.bool_)
    for begin, end in cut(bounds):
        data = storage.read(path, int(bounds[begin]), int(bounds[end]))
        size = int(bounds[end] - bounds[begin])
        buffer = np.zeros(size + SLACK_BYTES, np.uint8)
        buffer[: len(data)] = np.frombuffer(data, np.uint8)
        is_bad[begin:end] = _bad_frames(
            buffer, bounds[begin : end + 1] - bounds[begin], index, begin, end, gone
        )
        is_bad[begin:end] |= (bounds[begin + 1 : end + 1] - bounds[begin]) > len(data)
        bar.advance(end - begin)
    what = "records are not what was written" if is_bad.any() else ""
    if storage.size(path) != bounds[-1]:
        what = what or "it has another size than its records"
    return is_bad, what


def _bad_frames(
    buffer: "np.typing.NDArray[np.uint8]", bounds: Int64s, index: PackIndex, begin: int, end: int, gone: Bools
) -> Bools:
    frames = bounds[:-1]
    starts, ends = frames + HEADER_BYTES, bounds[1:] - FOOTER_BYTES
    words = word32(buffer)
    wanted = headers(index.sizes[begin:end])
    is_bad = (words[frames] != wanted[0]) | (words[frames + 4] != 0) | (words[frames + 8] != wanted[1])
    is_bad |= mask(payload_checksums(buffer, starts, ends)) != words[ends]
    ids = record_ids(buffer, starts, ends)
    is_other = (ids.high != index.ids.high[begin:end]) | (ids.low != index.ids.low[begin:end])
    erased = np.flatnonzero(gone[begin:end])
    for row in erased.tolist():  # a forgotten record's payload is zeros
        is_other[row] = buffer[starts[row] : ends[row]].any()
    bad: Bools = is_bad | is_other
    return bad


def _gzip_records(
    storage: Storage, path: str, pack: PackFacts, index: PackIndex, file_sha256: bytes, gone: Bools, bar: Task
) -> tuple[Bools, str]:
    bounds = index.frames()
    is_bad = np.ones(len(index.ids), np.bool_)
    try:
        with storage.open(path) as file, uncompressed(file, True, path) as stream:
            for begin, end in cut(bounds):
                size = int(bounds[end] - bounds[begin])
                buffer = np.zeros(size + SLACK_BYTES, np.uint8)
                filled = 0
                while filled < size and (got := stream.readinto(buffer.data[filled:size])):
                    filled += got
                is_bad[begin:end] = _bad_frames(
                    buffer, bounds[begin : end + 1] - bounds[begin], index, begin, end, gone
                )
                bar.advance(end - begin)
            rest = bytearray(1)
            if stream.readinto(rest):
                return is_bad, "it has more records than its index"
            digest = stream.digest()
    except CorruptRecordsError as error:
        return is_bad, error.problem
    if is_bad.any():
        return is_bad, "records are not what was written"
    if not gone.any() and storage.size(path) != pack.stored_bytes:
        return is_bad, "it has another size than the manifest names"
    if digest != file_sha256:
        return is_bad, "its compressed bytes are not what was written"
    return is_bad, ""
