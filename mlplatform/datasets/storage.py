"""Where a store's files lie: a local folder, or any fsspec URL that can create a file exactly once."""

import contextlib
import errno
import os
import re
import stat
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from mlplatform.datasets.errors import CorruptStoreError, NoAtomicCreateError, StoreAccessError
from mlplatform.datasets.remote import file_system, reaching
from mlplatform.progress import track

ASIDE = "aside"  # folder of files that are being written; never read
PROBE = re.compile("probe-[0-9a-f]{32}")  # file by which a backend is tried
_LOOK_EVERY_S = 0.05  # whether a lock is free by now
# How S3 says that a name is taken, and that another request for it is under way and this one may come again.
# Source: Amazon S3 API reference, PutObject, conditional writes.
_TAKEN = ("PreconditionFailed", "412")
_IN_FLIGHT = ("ConditionalRequestConflict", "409")
_WAITS_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


class Storage(Protocol):
    """Files below one root, named by '/'-separated paths. A file is there in full or not at all."""

    url: str

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a file, or of a range of it. Raises FileNotFoundError."""

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Return the bytes of several files, in order. Raises FileNotFoundError."""

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading. Raises FileNotFoundError."""

    def put(self, path: str, data: bytes) -> None:
        """Write a file, over one that may be there."""

    def put_file(self, path: str, source: Path) -> None:
        """Move a local file, made by `aside`, to its place, over one that may be there."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a file if there is none, in one atomic step; return whether this call did."""

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the files and folders in a folder; none where it is missing."""

    def size(self, path: str) -> int:
        """Return the bytes of a file. Raises FileNotFoundError."""

    def age_s(self, path: str) -> float:
        """Return the seconds since a file was written."""

    def delete(self, path: str) -> None:
        """Delete a file; nothing happens where it is missing."""

    def delete_folder(self, path: str) -> None:
        """Delete an empty folder; nothing happens where it is missing, or where there are only files."""

    def local(self, path: str) -> Path | None:
        """Return the file's place on this machine's file system, None for a remote one."""

    def aside(self, folder: str) -> Path:
        """Return a new local file name to write to, for `put_file`; `gc` finds what is left there."""

    def hold(self, folder: str, *, alone: bool) -> contextlib.AbstractContextManager[None]:
        """Keep `gc` (`alone=False`), or everybody (`alone=True`), away from a folder, where locks exist."""


def open_storage(url: str | os.PathLike[str]) -> Storage:
    """Return the storage at a local path or an fsspec URL (`s3://bucket/path`, `memory://...`)."""
    text = os.fspath(url)
    if text.startswith("file://"):
        text = text[len("file://") :]
    if "://" in text:
        return FsspecStorage(text)
    return LocalStorage(Path(text))


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


class FsspecStorage:
    """An fsspec URL. Uploads are atomic there; only a create that refuses a taken name is asked for.

    Writing is refused where the backend has no such create, or does not keep to it: this is tried once.
    """

    # Backends whose `pipe_file(mode="create")` is one conditional request, and memory, one process's own.
    _CREATES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"})
    _memory = threading.Lock()

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._protocol = url.split("://", 1)[0]
        self._fs, self._root = file_system(self.url)
        self._is_tried = False

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with reaching(self.url):
            if start == 0 and end is None:
                return cast(bytes, self._fs.cat_file(self._at(path)))
            if end is not None and end <= start:
                return b""  # object stores refuse a range of nothing
            return cast(bytes, self._fs.cat_file(self._at(path), start=start, end=end))

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        if not paths:
            return []
        with reaching(self.url):
            places = [self._at(path) for path in paths]
            found = self._fs.cat(places)  # all requests under way at once
            return [cast(bytes, found[place]) for place in places]

    def open(self, path: str) -> BinaryIO:
        with reaching(self.url):
            return cast(BinaryIO, self._fs.open(self._at(path), "rb"))

    def put(self, path: str, data: bytes) -> None:
        self._require_create()
        with reaching(self.url):
            self._fs.pipe_file(self._at(path), data)

    def put_file(self, path: str, source: Path) -> None:
        self._require_create()
        with reaching(self.url):
            self._fs.put_file(str(source), self._at(path))
        source.unlink(missing_ok=True)

    def create(self, path: str, data: bytes) -> bool:
        self._require_create()
        return self._create(path, data)

    def names(self, folder: str) -> list[str]:
        place = self._at(folder)
        try:
            with reaching(self.url):
                self._fs.invalidate_cache()
                found = self._fs.ls(place, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(
            {name.rstrip("/").rsplit("/", 1)[-1] for name in found if name.rstrip("/") != place.rstrip("/")}
        )

    def size(self, path: str) -> int:
        with reaching(self.url):
            self._fs.invalidate_cache()
            return int(self._fs.info(self._at(path))["size"])

    def age_s(self, path: str) -> float:
        with reaching(self.url):
            return float(time.time() - self._fs.modified(self._at(path)).timestamp())

    def delete(self, path: str) -> None:
        with reaching(self.url), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(path))

    def delete_folder(self, path: str) -> None:
        del path  # a folder is but the beginning of its files' names

    def local(self, path: str) -> Path | None:
        return None

    def aside(self, folder: str) -> Path:
        import tempfile

        descriptor, name = tempfile.mkstemp(prefix="mlplatform-")
        os.close(descriptor)
        return Path(name)

    @contextmanager
    def hold(self, folder: str, *, alone: bool) -> Iterator[None]:
        yield  # no locks there: gc spares what is younger than its grace period

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}" if path else self._root

    def _create(self, path: str, data: bytes) -> bool:
        if self._protocol == "memory":
            with self._memory:
                if self._fs.exists(self._at(path)):
                    return False
                self._fs.pipe_file(self._at(path), data)
                return True
        waits_s = iter(_WAITS_S)
        while True:
            try:
                with reaching(self.url):
                    self._fs.pipe_file(self._at(path), data, mode="create")
                return True
            except FileExistsError:
                return False
            except FileNotFoundError as error:
                raise StoreAccessError(self.url, "the bucket or container does not exist") from error
            except StoreAccessError as error:
                code = _refusal(error)
                if code in _TAKEN:
                    return False
                wait_s = next(waits_s, None)
                if code not in _IN_FLIGHT or wait_s is None:
                    raise
                time.sleep(wait_s)

    def _require_create(self) -> None:
        if self._is_tried:
            return
        if self._protocol not in self._CREATES:
            raise NoAtomicCreateError(
                self.url, f"{self._protocol}:// has no create that refuses a taken name"
            )
        probe = f"probe-{uuid.uuid4().hex}"
        try:
            created = (self._create(probe, b"1"), self._create(probe, b"2"))
        finally:
            self.delete(probe)
        if created != (True, False):
            raise NoAtomicCreateError(
                self.url, "it overwrote a file that it was asked to create only if missing"
            )
        self._is_tried = True


def _refusal(error: BaseException | None) -> str:
    """Return the code with which a server refused a request, "" where there is none: what botocore tells."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


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
