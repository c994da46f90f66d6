"""Reads everything that a dataset has and reports whatever is not what was written."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mlplatform.datasets.canonical import canonical_window
from mlplatform.datasets.commit import read_live
from mlplatform.datasets.digest import split_digest, version_digest
from mlplatform.datasets.errors import CorruptRecordsError, CorruptStoreError, StoreFormatError
from mlplatform.datasets.examples_folder import uncompressed
from mlplatform.datasets.forgotten import forgotten_ids, is_forgotten
from mlplatform.datasets.hashing import Ids, payload_checksums, record_ids
from mlplatform.datasets.keys import is_key_file_whole
from mlplatform.datasets.line import STORE_FILE, Line, version_path
from mlplatform.datasets.live import HELD_OUT
from mlplatform.datasets.manifest import Manifest, PackFacts, unsealed
from mlplatform.datasets.pack import PackIndex, index_path, read_index, records_path
from mlplatform.datasets.storage import Storage
from mlplatform.datasets.tfrecord import (
    FOOTER_BYTES,
    HEADER_BYTES,
    SLACK_BYTES,
    WINDOW_BYTES,
    Int64s,
    headers,
    mask,
    word32,
)
from mlplatform.datasets.walk import Bools
from mlplatform.progress import Task, track

_NAMED = 20


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
    problems: list[Problem] = []
    manifests = _manifests(storage, dataset, problems)
    line = Line(storage, dataset, manifests)
    if version is not None:
        problems = []
        manifests = [Line.read(storage, dataset).resolve(version)]
    else:
        problems += _notes(storage, dataset)
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
    names = [name for name in storage.names(f"{dataset}/versions") if name.endswith(".json")]
    manifests: list[Manifest] = []

    def read(data: bytes) -> None:
        manifests.append(Manifest.from_json(data, ""))

    for number in range(1, max((int(name[1:-5]) for name in names), default=0) + 1):
        path = version_path(dataset, number)
        found = _checked(storage, path, read)
        if not found and (manifests[-1].dataset, manifests[-1].number) != (dataset, number):
            other = manifests.pop()
            found = [Problem(path, f"it describes {other.dataset}@{other.version}", [], [])]
        problems += found
    return manifests


def _notes(storage: Storage, dataset: str) -> Iterator[Problem]:
    yield from _checked(storage, STORE_FILE, lambda data: unsealed(data, STORE_FILE))
    folders = [f"{dataset}/{kind}" for kind in ("declared", "forgotten", "seen", "uses")]
    folders += [f"{dataset}/tags/{tag}" for tag in storage.names(f"{dataset}/tags")]
    for folder in folders:
        for name in storage.names(folder):
            yield from _checked(storage, f"{folder}/{name}", lambda data: unsealed(data, ""))
    for name in storage.names(f"{dataset}/keys"):
        if not is_key_file_whole(storage.read(f"{dataset}/keys/{name}")):
            yield Problem(
                f"{dataset}/keys/{name}", "its bytes do not fit their checksum; it can be deleted", [], []
            )


def _checked(storage: Storage, path: str, read: Callable[[bytes], object]) -> list[Problem]:
    try:
        read(storage.read(path))
    except FileNotFoundError:
        return [Problem(path, "it is missing", [], [])]
    except CorruptStoreError as error:
        return [Problem(path, error.problem, [], [])]
    except (StoreFormatError, TypeError, KeyError) as error:
        return [Problem(path, str(error), [], [])]
    return []


def _version(line: Line, manifest: Manifest, indexes: dict[str, PackIndex]) -> list[Problem]:
    """Compare the digest with the ids that the bitmaps choose."""
    path = f"{line.dataset}/bitmaps/{manifest.bitmaps}"
    try:
        live = read_live(line, manifest)
    except FileNotFoundError:
        return [Problem(path, "it is missing", [], [manifest.version])]
    except CorruptStoreError as error:
        return [Problem(path, error.problem, [], [manifest.version])]
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
    except (CorruptStoreError, StoreFormatError) as error:
        what = error.problem if isinstance(error, CorruptStoreError) else str(error)
        return None, [Problem(path, what, [], versions)]
    gone = is_forgotten(index.ids, forgotten)
    path = records_path(dataset, pack)
    try:
        check = _gzip_records if pack.is_gzip else _plain_records
        is_bad, what = check(storage, path, index, gone, bar)
    except FileNotFoundError:
        is_bad, what = np.ones(len(index.ids), np.bool_), "it is missing"
    if not what:
        return (pack.name, index), []
    bad = np.flatnonzero(is_bad)
    names = index.ids[bad[:_NAMED]].names()
    more = f" ({bad.size:,} records)" if bad.size > _NAMED else ""
    return (pack.name, index), [Problem(path, what + more, names, versions)]


def _plain_records(
    storage: Storage, path: str, index: PackIndex, gone: Bools, bar: Task
) -> tuple[Bools, str]:
    """Check the frames where the index says that they are: damage in one does not hide the others."""
    bounds = index.frames()
    is_bad = np.zeros(len(index.ids), np.bool_)
    begin = 0
    while begin < len(index.ids):
        end = max(begin + 1, int(np.searchsorted(bounds, bounds[begin] + WINDOW_BYTES, "right")) - 1)
        data = storage.read(path, int(bounds[begin]), int(bounds[end]))
        size = int(bounds[end] - bounds[begin])
        buffer = np.zeros(size + SLACK_BYTES, np.uint8)
        buffer[: len(data)] = np.frombuffer(data, np.uint8)
        is_bad[begin:end] = _bad_frames(
            buffer, bounds[begin : end + 1] - bounds[begin], index, begin, end, gone
        )
        is_bad[begin:end] |= (bounds[begin + 1 : end + 1] - bounds[begin]) > len(data)
        bar.advance(end - begin)
        begin = end
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


def _gzip_records(storage: Storage, path: str, index: PackIndex, gone: Bools, bar: Task) -> tuple[Bools, str]:
    bounds = index.frames()
    is_bad = np.ones(len(index.ids), np.bool_)
    begin = 0
    try:
        with storage.open(path) as file, uncompressed(file, True, path) as stream:
            while begin < len(index.ids):
                end = max(begin + 1, int(np.searchsorted(bounds, bounds[begin] + WINDOW_BYTES, "right")) - 1)
                size = int(bounds[end] - bounds[begin])
                buffer = np.zeros(size + SLACK_BYTES, np.uint8)
                filled = 0
                while filled < size and (got := stream.readinto(buffer.data[filled:size])):
                    filled += got
                is_bad[begin:end] = _bad_frames(
                    buffer, bounds[begin : end + 1] - bounds[begin], index, begin, end, gone
                )
                bar.advance(end - begin)
                begin = end
            rest = bytearray(1)
            if stream.readinto(rest):
                return is_bad, "it has more records than its index"
            digest = stream.digest()
    except CorruptRecordsError as error:
        return is_bad, error.problem
    if is_bad.any():
        return is_bad, "records are not what was written"
    if digest != index.file_sha256 and not gone.any():  # a file that records were erased from is another
        return is_bad, "its compressed bytes are not what was written"
    return is_bad, ""
