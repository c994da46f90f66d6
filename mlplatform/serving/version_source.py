"""Where a model's versions come from: a folder of this machine, or what was pushed to a URL."""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from mlplatform.registry import ModelVersion
from mlplatform.registry.contents import tree_digest
from mlplatform.registry.errors import ModelChangedError, ModelNotFoundError
from mlplatform.serving.version_folders import Fingerprint, fingerprint, version_folders
from mlplatform.storage import open_storage
from mlplatform.storage.urls import name, parent

log = logging.getLogger(__name__)

_INCOMING, _EVICTED = ".incoming-", ".evicted-"


class VersionSource(Protocol):
    """The versions of one model."""

    def folders(self) -> Mapping[int, Path]:
        """Return the folder of each version, on this machine.

        Raises:
            OSError: They cannot be listed now.
            MlplatformError: They cannot be listed now.
        """

    def fetch(self, version: int) -> None:
        """See that a version's files are in its folder.

        Raises:
            OSError: They cannot be fetched now.
            MlplatformError: They cannot be fetched now, or are not what was pushed.
        """

    def fingerprint(self, version: int) -> Fingerprint:
        """Return what changes when any of a version's files does."""


class FolderSource:
    """Version folders below a local base path."""

    def __init__(self, base_path: Path) -> None:
        self._base_path = base_path
        self._found: Mapping[int, Path] = {}

    def folders(self) -> Mapping[int, Path]:
        self._found = version_folders(self._base_path)
        return self._found

    def fetch(self, version: int) -> None:
        pass

    def fingerprint(self, version: int) -> Fingerprint:
        return fingerprint(self._found[version])


class ModelCache:
    """Versions that were fetched from a URL, below one local folder: those used last, up to some bytes.

    Servers may share it: a version appears whole, by a rename, and disappears so.

    Args:
        folder: The folder.
        max_bytes: Bytes of all versions together. The one that was fetched last stays, whatever its size.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def place(self, model: str, version: int) -> Path:
        """Return the folder of a version, there or not."""
        return self._folder / model / str(version)

    def fetch(self, model: str, version: ModelVersion) -> None:
        """See that a version is there, as it was pushed.

        Raises:
            ModelChangedError: Its files are not those that were pushed.
            StoreAccessError: They cannot be reached.
            FileNotFoundError: They are missing.
        """
        place = self.place(model, version.version)
        digest = version.push.digest if version.push else ""
        if place.is_dir() and tree_digest(place) != digest:
            self._evict(place)  # damaged here, or another root's
        if not place.is_dir():
            self._download(version, digest, place)
        now = time.time_ns()
        os.utime(place, ns=(now, now))  # of its last use; the system's own clock for files ticks slowly
        self._make_room(place)

    def _download(self, version: ModelVersion, digest: str, place: Path) -> None:
        aside = self._folder / f"{_INCOMING}{uuid.uuid4().hex}"
        aside.mkdir(parents=True)
        try:
            open_storage(parent(version.url)).fetch_tree(name(version.url), aside / "files")
            if (found := tree_digest(aside / "files")) != digest:
                raise ModelChangedError(version.url, digest, found)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                (aside / "files").rename(place)
            except OSError:  # another server that shares the folder was quicker
                if not place.is_dir():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _make_room(self, newest: Path) -> None:
        places = [path for path in self._folder.glob("[!.]*/*") if path.is_dir()]
        by_use = sorted(places, key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in [newest, *(path for path in by_use if path != newest)]:
            total += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            if total > self._max_bytes and path != newest:
                self._evict(path)

    def _evict(self, place: Path) -> None:
        aside = self._folder / f"{_EVICTED}{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):
            place.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


class PushedSource:
    """Versions of a model that were pushed to a URL, as its ledger has them.

    Args:
        model: The model's name there.
        versions: Returns its versions, as they are now.
        cache: Where they are fetched to.
    """

    def __init__(self, model: str, versions: Callable[[], list[ModelVersion]], cache: ModelCache) -> None:
        self._model = model
        self._versions = versions
        self._cache = cache
        self._known: dict[int, ModelVersion] = {}

    def folders(self) -> Mapping[int, Path]:
        try:
            versions = self._versions()
        except ModelNotFoundError:
            versions = []
        self._known = {version.version: version for version in versions if not version.is_withdrawn}
        return {number: self._cache.place(self._model, number) for number in self._known}

    def fetch(self, version: int) -> None:
        self._cache.fetch(self._model, self._known[version])

    def fingerprint(self, version: int) -> Fingerprint:
        return ()  # a version at a URL never changes
