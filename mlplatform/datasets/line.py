"""The line of versions of a dataset: its manifests, their names, and what the dataset holds altogether."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

from mlplatform.datasets.errors import (
    AmbiguousVersionError,
    BadNameError,
    DatasetNotFoundError,
    StoreFormatError,
    VersionNotFoundError,
)
from mlplatform.datasets.format.manifest import FORMAT, Manifest, PackFacts, sealed, unsealed
from mlplatform.storage import Storage
from mlplatform.storage.errors import CorruptStoreError

STORE_FILE = "store.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_NUMBER = re.compile(r"v[1-9][0-9]*")
_VERSION_FILE = re.compile(r"v([1-9][0-9]*)\.json")
_MOVE_FILE = re.compile(r"([1-9][0-9]*)\.json")
_DIGEST = re.compile(r"[0-9a-f]{8,64}")


def check_dataset_name(name: str) -> str:
    """Return the name. Raises BadNameError where it is none."""
    if not _NAME.fullmatch(name):
        raise BadNameError("dataset", name)
    return name


def check_tag_name(name: str) -> str:
    """Return the name. Raises BadNameError where it is none, or would hide another way to name a version."""
    if not _NAME.fullmatch(name) or name == "latest" or _NUMBER.fullmatch(name) or _DIGEST.fullmatch(name):
        raise BadNameError("tag", name)
    return name


def version_path(dataset: str, number: int) -> str:
    """Return the path of a manifest in the store."""
    return f"{dataset}/versions/v{number}.json"


def is_version_number(name: str) -> bool:
    """Return whether a name means one version for ever, as `v3` does; a tag and `latest` move."""
    return _NUMBER.fullmatch(name) is not None


def forgotten_folder(dataset: str) -> str:
    """Return the folder of the notes on what was forgotten."""
    return f"{dataset}/forgotten"


def check_store(storage: Storage) -> None:
    """Check that the store has a format that this code reads; a store without a file of its own is new."""
    try:
        unsealed(storage.read(STORE_FILE), f"{storage.url}/{STORE_FILE}")
    except FileNotFoundError:
        if dataset_names(storage):
            raise StoreFormatError(
                f"{storage.url}/{STORE_FILE}", "none (it is missing)", str(FORMAT)
            ) from None


def begin_store(storage: Storage) -> None:
    """Write the store's own file where there is none yet."""
    try:
        storage.size(STORE_FILE)
    except FileNotFoundError:
        storage.create(STORE_FILE, sealed({"format": FORMAT, "kind": "mlplatform dataset store"}))


class Manifests(Sequence[Manifest]):
    """The manifests of a dataset, the oldest first, each read when it is first asked for.

    Their key and label are those that were declared last.
    """

    def __init__(self, storage: Storage, dataset: str, count: int) -> None:
        self._storage, self._dataset, self._count = storage, dataset, count
        self._read: dict[int, Manifest] = {}

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Manifest: ...
    @overload
    def __getitem__(self, place: slice) -> list[Manifest]: ...
    def __getitem__(self, place: int | slice) -> Manifest | list[Manifest]:
        places = range(self._count)[place]
        if isinstance(places, int):
            return self._of([places + 1])[0]
        return self._of([one + 1 for one in places])

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self[:])

    def __reversed__(self) -> Iterator[Manifest]:
        return reversed(self[:])

    @cached_property
    def _declared(self) -> "dict[int, Declaration]":
        """What was declared later, by version."""
        paths = [
            f"{self._dataset}/declared/{move}.json" for move in declarations(self._storage, self._dataset)
        ]
        notes = [
            Declaration.from_json(data, f"{self._storage.url}/{path}")
            for path, data in zip(paths, self._storage.read_all(paths), strict=True)
        ]
        return {note.number: note for note in notes}

    def _of(self, numbers: Sequence[int]) -> list[Manifest]:
        missing = [number for number in numbers if number not in self._read]
        paths = [version_path(self._dataset, number) for number in missing]
        for number, path, data in zip(missing, paths, self._storage.read_all(paths), strict=True):
            manifest = Manifest.from_json(data, f"{self._storage.url}/{path}")
            if (manifest.dataset, manifest.number) != (self._dataset, number):
                raise CorruptStoreError(
                    f"{self._storage.url}/{path}", f"it describes {manifest.dataset}@{manifest.version}"
                )
            if (later := self._declared.get(number)) is not None:
                manifest = replace(manifest, key=later.key, label=later.label, taxonomy=later.taxonomy)
            self._read[number] = manifest
        return [self._read[number] for number in numbers]


@dataclass(frozen=True)
class Declaration:
    """A key, label and taxonomy that were declared for a version later.

    Attributes:
        number: The version's number.
        key: Features that identify an item.
        label: Feature that holds the class.
        taxonomy: The design of its classes, a YAML document; "" where none is declared.
    """

    number: int
    key: list[str]
    label: str
    taxonomy: str = ""

    @classmethod
    def from_json(cls, data: bytes, path: str) -> "Declaration":
        """Read its file. Raises CorruptStoreError."""
        fields = unsealed(data, path)
        taxonomy = fields.text("taxonomy") if "taxonomy" in fields else ""
        return cls(fields.count("number", 1), fields.texts("key"), fields.text("label"), taxonomy)


@dataclass(frozen=True)
class Line:
    """The versions of a dataset as they were at one moment.

    Attributes:
        storage: The store's files.
        dataset: The dataset's name.
        manifests: All versions, the oldest first.
    """

    storage: Storage
    dataset: str
    manifests: Sequence[Manifest]

    @classmethod
    def read(cls, storage: Storage, dataset: str) -> "Line":
        """List the versions of a dataset, none where it is new; manifests are read when asked for."""
        check_dataset_name(dataset)
        check_store(storage)
        numbers = manifest_numbers(storage, dataset)
        if (missing := first_gap(numbers)) is not None:
            raise CorruptStoreError(f"{storage.url}/{version_path(dataset, missing)}", "it is missing")
        return cls(storage, dataset, Manifests(storage, dataset, len(numbers)))

    @property
    def latest(self) -> Manifest | None:
        """The newest version, None where there is none."""
        return self.manifests[-1] if self.manifests else None

    @cached_property
    def packs(self) -> list[PackFacts]:
        """Every pack that a version reads, in the order in which they came."""
        return list({pack.name: pack for manifest in self.manifests for pack in manifest.packs}.values())

    def with_digest(self, digest: str) -> Manifest | None:
        """Return the version with this content, None where there is none."""
        return next((manifest for manifest in self.manifests if manifest.digest == digest), None)

    def tags(self) -> dict[str, Manifest]:
        """Return the version that each tag names."""
        found = {tag: self._tagged(tag) for tag in self.storage.names(f"{self.dataset}/tags")}
        return {tag: manifest for tag, manifest in found.items() if manifest is not None}

    def _tagged(self, tag: str) -> Manifest | None:
        if not _NAME.fullmatch(tag) or not (moves := tag_moves(self.storage, self.dataset, tag)):
            return None
        path = f"{self.dataset}/tags/{tag}/{moves[-1]}.json"
        number = tagged_number(self.storage.read(path), f"{self.storage.url}/{path}", tag)
        if number > len(self.manifests):  # tagged after the versions were listed
            try:
                return Manifests(self.storage, self.dataset, number)[number - 1]
            except FileNotFoundError as error:
                problem = f"it names version {number:,}, which there is not"
                raise CorruptStoreError(f"{self.storage.url}/{path}", problem) from error
        return self.manifests[number - 1]

    def resolve(self, version: str = "latest") -> Manifest:
        """Return the version that `v3`, a tag, a digest prefix or `latest` names.

        Raises:
            DatasetNotFoundError: The dataset has no version at all.
            VersionNotFoundError: Nothing has that name.
            AmbiguousVersionError: A digest prefix stands for several versions.
        """
        if not self.manifests:
            raise DatasetNotFoundError(self.dataset, self.storage.url, dataset_names(self.storage))
        if version in ("", "latest"):
            return self.manifests[-1]
        if _NUMBER.fullmatch(version) and int(version[1:]) <= len(self.manifests):
            return self.manifests[int(version[1:]) - 1]
        if (tagged := self._tagged(version)) is not None:
            return tagged
        matches = [manifest for manifest in self.manifests if manifest.digest.startswith(version)]
        if len(matches) > 1:
            raise AmbiguousVersionError(self.dataset, version, [manifest.version for manifest in matches])
        if not matches or not _DIGEST.fullmatch(version.ljust(8, "0")):
            known = [manifest.version for manifest in reversed(self.manifests)]
            raise VersionNotFoundError(self.dataset, version, known)
        return matches[0]


def manifest_numbers(storage: Storage, dataset: str) -> list[int]:
    """Return the numbers of a dataset's manifests, ascending."""
    return _numbered(storage, f"{dataset}/versions", _VERSION_FILE)


def first_gap(numbers: Sequence[int]) -> int | None:
    """Return the first version that is missing before the newest one; None where none is."""
    return next((place for place, number in enumerate(numbers, 1) if place != number), None)


def tagged_number(data: bytes, path: str, tag: str) -> int:
    """Read the file of a tag's move: the number of the version that it names. Raises CorruptStoreError."""
    fields = unsealed(data, path)
    if fields.text("tag") != tag:
        raise fields.wrong("tag", f"{tag!r}, as its folder is named")
    return fields.count("number", 1)


def tag_moves(storage: Storage, dataset: str, tag: str) -> list[int]:
    """Return the numbers of a tag's moves, the last one last."""
    return _numbered(storage, f"{dataset}/tags/{tag}", _MOVE_FILE)


def declarations(storage: Storage, dataset: str) -> list[int]:
    """Return the numbers of the declarations of a key and label, the last one last."""
    return _numbered(storage, f"{dataset}/declared", _MOVE_FILE)


def _numbered(storage: Storage, folder: str, pattern: "re.Pattern[str]") -> list[int]:
    """Return the sorted numbers in the names of a folder's files; files of other names are not ours."""
    return sorted(int(found[1]) for name in storage.names(folder) if (found := pattern.fullmatch(name)))


def dataset_names(storage: Storage) -> list[str]:
    """Return the names of the datasets in a store."""
    return [name for name in possible_names(storage) if storage.names(f"{name}/versions")]


def possible_names(storage: Storage) -> list[str]:
    """Return what lies in a store under names that datasets may have; all else is not ours."""
    return [name for name in storage.names("") if _NAME.fullmatch(name)]
