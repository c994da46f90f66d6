"""Keeps unfinished trainings: in a folder of this machine, or at a URL where another one finds them again.

At a URL nothing keeps two machines from the same training, so no file there is changed but one per writer:

    <work_root>/<key>/files/<digest>         a file, named by its content
    <work_root>/<key>/kept/<writer>.json     which of them a writer kept together, by their names, and when

The second is written when all that it names is there, and whoever resumes compares each file with its name.
So what a writer kept is whole or ignored, whatever others write, delete, or leave half-done.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mlplatform.components.model_trainer.errors import TrainingInProgressError
from mlplatform.storage import Storage, open_storage
from mlplatform.storage.trees import checked
from mlplatform.storage.urls import is_local, join

_LOCK = ".lock"
_FILES, _KEPT = "files", "kept"


@dataclass(frozen=True)
class Unfinished:
    """One training that may not be finished.

    Attributes:
        folder: Its folder on this machine.
        save: Keeps what is in the folder now. Costs nothing where the folder itself is kept.
        remove: Removes it: the training is done.
    """

    folder: Path
    save: Callable[[], None]
    remove: Callable[[], None]


@contextmanager
def unfinished(work_root: str, key: str) -> Iterator[Unfinished]:
    """Give the folder of a training, with what an earlier try of it left there.

    Args:
        work_root: Folder or URL of all unfinished trainings.
        key: The training's name.

    Raises:
        TrainingInProgressError: Another process of this machine is at the same training. At a URL, two
            may be at the same one; both finish it, and neither reads what the other has half written.
    """
    if is_local(work_root):
        folder = Path(work_root) / key
        with held(folder):
            yield Unfinished(folder, save=lambda: None, remove=lambda: shutil.rmtree(folder))
        return
    with tempfile.TemporaryDirectory(prefix="mlplatform-", ignore_cleanup_errors=True) as place:
        copy = _Copy(open_storage(join(work_root, key)), Path(place))
        copy.fetch()
        yield Unfinished(copy.folder, save=copy.publish, remove=copy.remove)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; a killed process lets go by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingInProgressError(str(folder)) from error
        yield
    finally:
        os.close(descriptor)


@dataclass
class _Copy:
    """A folder on this machine whose files are kept at a URL.

    Attributes:
        storage: Where all writers of this training keep them.
        folder: The folder.
        writer: Tells this writer from others.
        resumed: The record that this one resumed from, until it has one of its own.
        kept: The digests of the files that were kept last, by name.
        stamps: The sizes and times of these files then.
    """

    storage: Storage
    folder: Path
    writer: str = field(default_factory=lambda: uuid.uuid4().hex)
    resumed: str = ""
    kept: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict)

    def fetch(self) -> None:
        """Take what was kept last, where that is whole; else what another writer kept before."""
        records = [(*self._read(name), name) for name in self.storage.names(_KEPT)]
        for _, kept, name in sorted(records, key=lambda record: -record[0]):
            if self._is_taken(kept):
                self.kept, self.resumed = kept, name
                self.stamps = {name: _stamp(self.folder / name) for name in kept}
                return
            shutil.rmtree(self.folder)
            self.folder.mkdir()

    def publish(self) -> None:
        """Keep the files as they are now."""
        # Looked up each time: who finishes the same training elsewhere deletes what is kept of it.
        there = set(self.storage.names(_FILES))
        before, self.kept = self.kept, {}
        for file in sorted(self.folder.rglob("*")):
            if file.is_file():
                name = file.relative_to(self.folder).as_posix()
                is_known = self.stamps.get(name) == _stamp(file) and before.get(name) in there
                self.kept[name] = before[name] if is_known else self._upload(name, file, there)
        self.storage.put(f"{_KEPT}/{self.writer}.json", self._record())
        if self.resumed:
            self.storage.delete(f"{_KEPT}/{self.resumed}")
            self.resumed = ""
        if gone := {*before.values()} - {*self.kept.values()}:
            for digest in gone.difference(*map(self._digests_of, self.storage.names(_KEPT))):
                self.storage.delete(f"{_FILES}/{digest}")

    def remove(self) -> None:
        """Delete what any writer kept of this training: it is done."""
        for path in self.storage.paths(""):
            self.storage.delete(path)

    def _record(self) -> bytes:
        return json.dumps({"at": time.time(), "files": self.kept}).encode()

    def _upload(self, name: str, file: Path, there: set[str]) -> str:
        self.stamps[name], copy = _stamp(file), self.storage.aside("")
        with file.open("rb") as source:
            digest = _copied(source, copy)
        if digest in there:
            copy.unlink()
        else:
            self.storage.put_file(f"{_FILES}/{digest}", copy)
            there.add(digest)
        return digest

    def _is_taken(self, kept: dict[str, str]) -> bool:
        """Copy what a record names into the folder; return whether that is something, and whole."""
        for name, digest in kept.items():
            target = self.folder / checked(self.storage.url, name, is_written=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self.storage.open(f"{_FILES}/{digest}") as source:
                    is_whole = _copied(source, target) == digest
            except FileNotFoundError:
                is_whole = False
            if not is_whole:
                return False
        return bool(kept)

    def _read(self, name: str) -> tuple[float, dict[str, str]]:
        """Return when a record was made, and the digests by name in it; none where it was just deleted."""
        try:
            found = json.loads(self.storage.read(f"{_KEPT}/{name}"))
            return float(found["at"]), dict(found["files"])
        except FileNotFoundError:
            return 0.0, {}

    def _digests_of(self, name: str) -> set[str]:
        return set(self._read(name)[1].values())


def _copied(source: BinaryIO, target: Path) -> str:
    """Copy a file; return the digest of what was copied."""
    digest = hashlib.sha256()
    with target.open("wb") as copy:
        while block := source.read(1 << 20):
            digest.update(block)
            copy.write(block)
    return digest.hexdigest()


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
