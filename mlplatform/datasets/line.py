"""The line of versions of a dataset: its manifests, their names, and what the dataset holds altogether."""

import re
from dataclasses import dataclass
from functools import cached_property

from mlplatform.datasets.errors import (
    AmbiguousVersionError,
    BadNameError,
    CorruptStoreError,
    DatasetNotFoundError,
    StoreFormatError,
    VersionNotFoundError,
)
from mlplatform.datasets.manifest import FORMAT, Manifest, PackFacts, sealed, unsealed
from mlplatform.datasets.storage import Storage

STORE_FILE = "store.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_NUMBER = re.compile(r"v[1-9][0-9]*")
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


def check_store(storage: Storage) -> None:
    """Check that the store has a format that this code reads; a store without a file of its own is new."""
    try:
        unsealed(storage.read(STORE_FILE), f"{storage.url}/{STORE_FILE}")
    except FileNotFoundError:
        if any(storage.names(f"{name}/versions") for name in storage.names("")):
            raise StoreFormatError(
                f"{storage.url}/{STORE_FILE}", "none (it is missing)", str(FORMAT)
            ) from None


def begin_store(storage: Storage) -> None:
    """Write the store's own file where there is none yet."""
    if not storage.exists(STORE_FILE):
        storage.create(STORE_FILE, sealed({"format": FORMAT, "kind": "mlplatform dataset store"}))


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
    manifests: list[Manifest]

    @classmethod
    def read(cls, storage: Storage, dataset: str) -> "Line":
        """Read the manifests of a dataset; there are none where it is new."""
        check_dataset_name(dataset)
        check_store(storage)
        numbers = sorted(
            int(name[1:-5])
            for name in storage.names(f"{dataset}/versions")
            if name.endswith(".json") and _NUMBER.fullmatch(name[:-5])
        )
        if numbers != list(range(1, len(numbers) + 1)):
            missing = min(set(range(1, numbers[-1])) - set(numbers))
            raise CorruptStoreError(f"{storage.url}/{version_path(dataset, missing)}", "it is missing")
        manifests = []
        for number in numbers:
            path = version_path(dataset, number)
            manifest = Manifest.from_json(storage.read(path), f"{storage.url}/{path}")
            if (manifest.dataset, manifest.number) != (dataset, number):
                raise CorruptStoreError(
                    f"{storage.url}/{path}", f"it describes {manifest.dataset}@{manifest.version}"
                )
            manifests.append(manifest)
        return cls(storage, dataset, manifests)

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
        found = {}
        for tag in self.storage.names(f"{self.dataset}/tags"):
            moves = sorted(int(name[:-5]) for name in self.storage.names(f"{self.dataset}/tags/{tag}"))
            if moves:
                path = f"{self.dataset}/tags/{tag}/{moves[-1]}.json"
                number = unsealed(self.storage.read(path), f"{self.storage.url}/{path}")["number"]
                found[tag] = self.manifests[number - 1]
        return found

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
        if (tagged := self.tags().get(version)) is not None:
            return tagged
        matches = [manifest for manifest in self.manifests if manifest.digest.startswith(version)]
        if len(matches) > 1:
            raise AmbiguousVersionError(self.dataset, version, [manifest.version for manifest in matches])
        if not matches or not _DIGEST.fullmatch(version.ljust(8, "0")):
            known = [manifest.version for manifest in reversed(self.manifests)]
            raise VersionNotFoundError(self.dataset, version, known)
        return matches[0]


def dataset_names(storage: Storage) -> list[str]:
    """Return the names of the datasets in a store."""
    return [name for name in storage.names("") if _NAME.fullmatch(name) and storage.names(f"{name}/versions")]
