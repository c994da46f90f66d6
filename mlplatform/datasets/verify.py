"""Reads everything that a dataset has and reports whatever is not what was written."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mlplatform.datasets.canonical import canonical_window
from mlplatform.datasets.commit import read_live
from mlplatform.datasets.digest import split_digest, version_digest
from mlplatform.datasets.errors import CorruptRecordsError, CorruptStoreError, StoreFormatError
from mlplatform.datasets.examples_folder import uncompressed
from mlplatform.datasets.forgotten import erased_path, forgotten_ids, is_forgotten
from mlplatform.datasets.hashing import Ids, payload_checksums, record_ids
from mlplatform.datasets.keys import is_key_file_whole
from mlplatform.datasets.line import STORE_FILE, Line, version_path
from mlplatform.datasets.live import HELD_OUT
from mlplatform.datasets.manifest import Manifest, PackFacts, unsealed
from mlplatform.datasets.pack import PackIndex, index_path, read_index, records_path
from mlplatform.datasets.pack_records import cut
from mlplatform.datasets.reading import reading
from mlplatform.datasets.storage import Storage
from mlplatform.datasets.tfrecord import (
    FOOTER_BYTES,
    HEADER_BYTES,
    SLACK_BYTES,
    Int64s,
    headers,
    mask,
    word32,
)
from mlplatform.datasets.walk import Bools
from mlplatform.progress import Task, track

_NAMED = 20
_MANIFEST = re.compile(r"v([1-9][0-9]*)\.json")


@dataclass(frozen=True)
class Problem:
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
    problems: list[Problem]

    @property
    def is_whole(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def verify(storage: Storage, dataset: str, version: str | None = None) -> Verified:
    """Check a dataset; see `DatasetStore.verify`."""
    with reading(storage, dataset):
        return _verify(storage, dataset, version)


def _verify(storage: Storage, dataset: str, version: str | None) -> Verified:
    problems: list[Problem] = []
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
    except CorruptStoreError:  # one of the notes' problems
        forgotten = Ids.none()
    indexes: dict[str, PackIndex] = {}
    with (
        track("verify records", sum(pack.records for pack, _ in needed.values())) as bar,
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads,
    ):
        for index, found in threads.map(
            lambda item: _pack(storage, dataset, item[0], item[1], forgotten, bar), needed.values()
        ):
            problems += found
            if index is not None:
                indexes[index[0]] = index[1]
    for manifest in manifests:
        problems += _version(line, manifest, indexes)
    return Verified(dataset, sum(len(index.ids) for index in indexes.values()), problems)


def _manifests(storage: Storage, dataset: str, problems: list[Problem]) -> list[Manifest]:
    """Read the manifests that can be read; where one cannot, those after it still are."""
    matches = [_MANIFEST.fullmatch(name) for name in storage.names(f"{dataset}/versions")]
    numbers = [int(match[1]) for match in matches if match]
    manifests: list[Manifest] = []

    def read(data: bytes) -> None:
        manifests.append(Manifest.from_json(data, ""))

    for number in range(1, max(numbers, default=0) + 1):
        path = version_path(dataset, number)
        found = _checked(storage, path, read)
        if not found and (manifests[-1].dataset, manifests[-1].number) != (dataset, number):
            other = manifests.pop()
            found = [Problem(path, f"it describes {other.dataset}@{other.version}", [], [])]
        problems += found
    return manifests


def _notes(storage: Storage, dataset: str) -> Iterator[Problem]:
    yield from _checked(storage, STORE_FILE, lambda data: unsealed(data, STORE_FILE))
    kinds = ("declared", "forgotten", "erased", "seen", "uses")
    folders = [f"{dataset}/{kind}" for kind in kinds]
    folders += [f"{dataset}/tags/{tag}" for tag in storage.names(f"{dataset}/tags")]
    for folder in folders:
        for name in storage.names(folder):
            if name.endswith(".json"):  # nothing else is ever read
                yield from _checked(storage, f"{folder}/{name}", lambda data: unsealed(data, ""))
    for name in storage.names(f"{dataset}/keys"):
        if name.endswith(".keys"):
            yield from _checked(storage, f"{dataset}/keys/{name}", _check_keys)


def _check_keys(data: bytes) -> None:
    if not is_key_file_whole(data):
        raise CorruptStoreError("", "its bytes do not fit their checksum; it can be deleted")


def _checked(storage: Storage, path: str, read: Callable[[bytes], object]) -> list[Problem]:
    try:
        read(storage.read(path))
    except FileNotFoundError:
        return [Problem(path, "it is missing", [], [])]
    except CorruptStoreError as error:
        return [Problem(path, error.problem, [], [])]
    except (StoreFormatError, TypeError, KeyError, OSError) as error:
        return [Problem(path, str(error), [], [])]
    return []


def _version(line: Line, manifest: Manifest, indexes: dict[str, PackIndex]) -> list[Problem]:
    """Compare the digest with the ids that the bitmaps choose."""
    path = f"{line.dataset}/bitmaps/{manifest.bitmaps}"
    try:
        live = read_live(line, manifest)
    except CorruptStoreError as error:
        return [Problem(path, error.problem, [], [manifest.version])]
    except (StoreFormatError, OSError) as error:
        return [Problem(path, str(error), [], [manifest.version])]
    if any(pack not in indexes for split, pack in live if split != HELD_OUT):
        return []  # the damaged index is reported already
    digests = {}
    for split in manifest.splits:
        rows = [(indexes[pack].ids, rows.copies()) for (owner, pack), rows in live.items() if owner == split]
        ids = Ids.join([Ids(np.repeat(ids.high, copies), np.repeat(ids.low, copies)) for ids, copies in rows])
        digests[split] = len(ids), split_digest(ids)
    if version_digest(digests) != manifest.digest:
        return [
            Problem(
                path, "the records that it chooses do not have the version's digest", [], [manifest.version]
            )
        ]
    return []


def _pack(
    storage: Storage, dataset: str, pack: PackFacts, versions: list[str], forgotten: Ids, bar: Task
) -> tuple[tuple[str, PackIndex] | None, list[Problem]]:
    path = index_path(dataset, pack.name)
    try:
        index = read_index(storage, dataset, pack)
        if hashlib.sha256(storage.read(path)).hexdigest() != pack.index_sha256 or index.name != pack.name:
            raise CorruptStoreError(path, "it is not the index that the manifest names")
    except (CorruptStoreError, StoreFormatError, OSError) as error:
        what = error.problem if isinstance(error, CorruptStoreError) else str(error)
        return None, [Problem(path, what, [], versions)]
    gone = is_forgotten(index.ids, forgotten)
    path = records_path(dataset, pack)
    try:
        if pack.is_gzip:
            file_sha256 = (
                _erased_sha256(storage, dataset, pack.name, index) if gone.any() else index.file_sha256
            )
            is_bad, what = _gzip_records(storage, path, index, file_sha256, gone, bar)
        else:
            is_bad, what = _plain_records(storage, path, index, gone, bar)
    except FileNotFoundError:
        is_bad, what = np.ones(len(index.ids), np.bool_), "it is missing"
    except OSError as error:
        is_bad, what = np.ones(len(index.ids), np.bool_), f"it cannot be read: {error}"
    if not what:
        return (pack.name, index), []
    bad = np.flatnonzero(is_bad)
    names = index.ids[bad[:_NAMED]].names()
    more = f" ({bad.size:,} records)" if bad.size > _NAMED else ""
    return (pack.name, index), [Problem(path, what + more, names, versions)]


def _erased_sha256(storage: Storage, dataset: str, pack: str, index: PackIndex) -> bytes:
    """Return the SHA-256 of a gzip pack as it is since records were erased from it."""
    try:
        note = unsealed(storage.read(erased_path(dataset, pack)), "")
    except (FileNotFoundError, CorruptStoreError):  # not erased yet; damaged: one of the notes' problems
        return index.file_sha256
    return bytes.fromhex(note["file_sha256"])


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
    ids = record_ids(canonical_window(buffer, starts, ends), starts, ends)
    is_other = (ids.high != index.ids.high[begin:end]) | (ids.low != index.ids.low[begin:end])
    erased = np.flatnonzero(gone[begin:end])
    for row in erased.tolist():  # a forgotten record's payload is zeros
        is_other[row] = buffer[starts[row] : ends[row]].any()
    bad: Bools = is_bad | is_other
    return bad


def _gzip_records(
    storage: Storage, path: str, index: PackIndex, file_sha256: bytes, gone: Bools, bar: Task
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
    if digest != file_sha256:
        return is_bad, "its compressed bytes are not what was written"
    return is_bad, ""
