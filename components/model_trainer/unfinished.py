"""Keeps unfinished trainings: in a folder of this machine, or at a URL where another one finds them again."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlplatform.components.model_trainer.errors import TrainingInProgressError
from mlplatform.storage import Storage, open_storage
from mlplatform.storage.urls import is_local, join

_LOCK = ".lock"


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
            machines may be at the same one; both finish it.
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
    """A folder on this machine whose files are kept at a URL."""

    storage: Storage
    folder: Path
    kept: dict[str, tuple[int, int]] = field(default_factory=dict)  # size and time of what was uploaded

    def fetch(self) -> None:
        for path in self.storage.paths(""):
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with self.storage.open(path) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
            self.kept[path] = _stamp(target)

    def publish(self) -> None:
        """Upload what changed, then delete what is gone.

        The files go in the order in which they were written: the one that completes a checkpoint is written
        last, so whoever finds it finds the others; and the checkpoint before is there until then.
        """
        found = {
            path.relative_to(self.folder).as_posix(): path
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        for path, file in sorted(found.items(), key=lambda item: (item[1].stat().st_mtime_ns, item[0])):
            if self.kept.get(path) != (stamp := _stamp(file)):
                aside = self.storage.aside("")
                shutil.copyfile(file, aside)
                self.storage.put_file(path, aside)
                self.kept[path] = stamp
        for path in self.kept.keys() - found.keys():
            self.storage.delete(path)
            del self.kept[path]

    def remove(self) -> None:
        for path in self.storage.paths(""):
            self.storage.delete(path)


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
