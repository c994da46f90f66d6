"""A folder of this machine as a storage."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mlplatform.progress import track
from mlplatform.storage.errors import CorruptStoreError, NoAtomicCreateError
from mlplatform.storage.trees import ASIDE, EARLIER_ASIDE, appearing, checked, local_files

_LEFT_ASIDE = re.compile("([0-9a-f]{16}-)?[0-9a-f]{32}")  # how what is written aside is named
_LOOK_EVERY_S = 0.05  # whether a lock is free by now


class LocalStorage:
    """A folder on this machine: files are written aside, synced, and renamed or linked to their place."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self.url = str(self._root)

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with self.open(path) as file, naming(self._at(path)):
            file.seek(start)
            if end is None:
                return file.read()
            pieces = []
            while start < end and (piece := file.read(end - start)):
                pieces.append(piece)
                start += len(piece)
            return b"".join(pieces)

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        return [self.read(path) for path in paths]

    def open(self, path: str) -> BinaryIO:
        # Without waiting: a store made by others may have a pipe where a file belongs, and no writer.
        place = self._at(path)
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise CorruptStoreError(str(place), "it is not a regular file")
        return open(descriptor, "rb", buffering=0)

    def put(self, path: str, data: bytes) -> None:
        self.put_file(path, self._written_aside(path, data))

    def put_file(self, path: str, source: Path) -> None:
        target = self._at(path, is_written=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with naming(source):
            _sync(source)
        source.replace(target)
        _sync(target.parent)

    def create(self, path: str, data: bytes) -> bool:
        target = self._at(path, is_written=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = self._written_aside(path, data)
        try:
            with naming(partial):
                _sync(partial)
            os.link(partial, target)  # fails where the name is taken, and shows the whole file at once
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise NoAtomicCreateError(self.url, "its file system has no hard links") from error
            raise
        finally:
            partial.unlink(missing_ok=True)
        _sync(target.parent)
        return True

    def names(self, folder: str) -> list[str]:
        try:
            with os.scandir(self._at(folder)) as entries:
                return sorted(entry.name for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def paths(self, folder: str) -> list[str]:
        start = self._at(folder)
        found = []
        for place, folders, names in os.walk(start, onerror=_raise_unless_gone, followlinks=True):
            # What is being written lies aside in the root, and in each folder of the root.
            above = Path(place).relative_to(self._root).parts
            if ASIDE in folders and len(above) < 2:
                folders.remove(ASIDE)
            if len(above) <= 2 and above[-1:] == (EARLIER_ASIDE,):
                folders[:] = [name for name in folders if not _LEFT_ASIDE.fullmatch(name)]
                names = [name for name in names if not _LEFT_ASIDE.fullmatch(name)]
            below = "" if place == str(start) else f"{Path(place).relative_to(start).as_posix()}/"
            found += [f"{below}{name}" for name in names]
        return sorted(found)

    def size(self, path: str) -> int:
        return self._at(path).stat().st_size

    def age_s(self, path: str) -> float:
        return time.time() - self._at(path).stat().st_mtime

    def delete(self, path: str) -> None:
        self._at(path).unlink(missing_ok=True)

    def delete_folder(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._at(path).rmdir()

    def put_tree(self, path: str, source: Path, last: Sequence[str] = ()) -> None:
        del last  # all files appear at once
        target = self._at(path, is_written=True)
        files = local_files(source)
        partial = self._tree_aside(path)
        try:
            for name, file in files.items():
                copy = partial / checked(self.url, name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                with naming(copy):
                    shutil.copyfile(file, copy)
                    _sync(copy)
            for folder, _, _ in os.walk(partial):
                _sync(Path(folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            self._remove(path)
            if files:
                partial.rename(target)
                _sync(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def fetch_tree(self, path: str, target: Path) -> None:
        names = self.paths(path)
        if not names:
            raise FileNotFoundError(f"there is no file below {self._at(path)}")
        with appearing(target) as partial:
            for name in names:
                copy = partial / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                with naming(copy):
                    shutil.copyfile(self._at(path) / name, copy)

    def delete_tree(self, path: str) -> None:
        self._at(path, is_written=True)
        for left in self._trees_aside(path):
            shutil.rmtree(left, ignore_errors=True)
        self._remove(path)

    def local(self, path: str) -> Path | None:
        return self._at(path)

    def aside(self, folder: str) -> Path:
        place = self._at(folder) / ASIDE
        place.mkdir(parents=True, exist_ok=True)
        return place / os.urandom(16).hex()

    @contextmanager
    def hold(self, folder: str, *, alone: bool) -> Iterator[None]:
        import fcntl  # the lock ends with the process, however that ends

        lock = self._at(folder) / "lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        # As `open` does, and never through a link, which in a store made by others may lead anywhere.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(lock, flags, 0o666), "rb+", buffering=0) as file:
            kind = (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB
            with track(f"wait for others to be done with {lock.parent}", unit="s") as bar:
                while True:
                    try:
                        fcntl.flock(file, kind)
                        break
                    except BlockingIOError:
                        time.sleep(_LOOK_EVERY_S)
                        bar.advance(_LOOK_EVERY_S)
            yield

    def _at(self, path: str, *, is_written: bool = False) -> Path:
        return self._root / checked(self.url, path, is_written=is_written)

    def _tree_aside(self, path: str) -> Path:
        """Return a new empty folder for a tree that is written or removed, after those of killed writers."""
        for left in self._trees_aside(path):
            shutil.rmtree(left, ignore_errors=True)
        aside = self.aside(_top(path))
        aside = aside.with_name(f"{_tree_mark(path)}{aside.name}")
        aside.mkdir()
        return aside

    def _trees_aside(self, path: str) -> list[Path]:
        return sorted((self._at(_top(path)) / ASIDE).glob(f"{_tree_mark(path)}*"))

    def _remove(self, path: str) -> None:
        """Take a folder out of sight in one step, then delete it."""
        if not self._at(path).is_dir():
            return
        aside = self.aside(_top(path))
        aside = aside.with_name(f"{_tree_mark(path)}{aside.name}")
        self._at(path).rename(aside)
        _sync(self._at(path).parent)
        shutil.rmtree(aside)

    def _written_aside(self, path: str, data: bytes) -> Path:
        partial = self.aside(_top(path))
        try:
            with naming(partial):
                partial.write_bytes(data)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        return partial


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name a file in the system's errors that do not name one, such as that the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def _raise_unless_gone(error: OSError) -> None:
    """Let a listing fail for what cannot be read; what is removed while it is made is not in it."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _top(path: str) -> str:
    """Return the folder of the root that a path lies in; "" where it lies in the root itself."""
    return path.split("/", 1)[0] if "/" in path else ""


def _tree_mark(path: str) -> str:
    """Return the beginning of the names by which what is aside of one tree is found again."""
    return f"{hashlib.blake2b(path.encode(), digest_size=8).hexdigest()}-"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
