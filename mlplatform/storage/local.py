"""A folder of this machine as a storage."""

import contextlib
import errno
import os
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mlplatform.progress import track
from mlplatform.storage.errors import CorruptStoreError, NoAtomicCreateError

ASIDE = "aside"  # folder of files that are being written; never read
_LOOK_EVERY_S = 0.05  # whether a lock is free by now


class LocalStorage:
    """A folder on this machine: files are written aside, synced, and renamed or linked to their place."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self.url = str(self._root)

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with self.open(path) as file, naming(self._root / path):
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
        descriptor = os.open(self._root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise CorruptStoreError(str(self._root / path), "it is not a regular file")
        return open(descriptor, "rb", buffering=0)

    def put(self, path: str, data: bytes) -> None:
        self.put_file(path, self._written_aside(path, data))

    def put_file(self, path: str, source: Path) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with naming(source):
            _sync(source)
        source.replace(target)
        _sync(target.parent)

    def create(self, path: str, data: bytes) -> bool:
        target = self._root / path
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
            return sorted(path.name for path in (self._root / folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def size(self, path: str) -> int:
        return (self._root / path).stat().st_size

    def age_s(self, path: str) -> float:
        return time.time() - (self._root / path).stat().st_mtime

    def delete(self, path: str) -> None:
        (self._root / path).unlink(missing_ok=True)

    def delete_folder(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._root / path).rmdir()

    def local(self, path: str) -> Path | None:
        return self._root / path

    def aside(self, folder: str) -> Path:
        place = self._root / folder / ASIDE
        place.mkdir(parents=True, exist_ok=True)
        return place / uuid.uuid4().hex

    @contextmanager
    def hold(self, folder: str, *, alone: bool) -> Iterator[None]:
        import fcntl  # the lock ends with the process, however that ends

        lock = self._root / folder / "lock"
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

    def _written_aside(self, path: str, data: bytes) -> Path:
        partial = self.aside(path.split("/", 1)[0] if "/" in path else "")
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
