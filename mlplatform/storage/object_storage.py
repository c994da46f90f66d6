"""An fsspec URL as a storage."""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from mlplatform.storage.errors import NoAtomicCreateError, StoreAccessError
from mlplatform.storage.file_systems import OBJECT_STORES, file_system, reaching
from mlplatform.storage.trees import appearing, checked, local_files
from mlplatform.storage.urls import absolute, scheme

_T = TypeVar("_T")

PROBE = re.compile("probe-[0-9a-f]{32}")  # file by which a backend is tried
# How S3 says that a name is taken, and that another request for it is under way and this one may come again.
# Source: Amazon S3 API reference, PutObject, conditional writes.
_TAKEN = ("PreconditionFailed", "412")
_IN_FLIGHT = ("ConditionalRequestConflict", "409")
_AT_ONCE = 16  # requests under way for the files of one tree
_WAITS_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


class FsspecStorage:
    """An fsspec URL. Uploads are atomic there; only a create that refuses a taken name is asked for.

    Writing is refused where the backend has no such create, or does not keep to it: this is tried once.
    """

    # Their `pipe_file(mode="create")` is one conditional request; memory is one process's own.
    _CREATES = OBJECT_STORES
    _memory = threading.Lock()

    def __init__(self, url: str) -> None:
        self.url = absolute(url)
        self._protocol = scheme(url)
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
            # All requests are under way at once. Not `cat`: to it, a name with a star is a pattern.
            found = self._fs.cat_ranges(places, None, None)
            for one in found:
                if isinstance(one, BaseException):
                    raise one
            return [cast(bytes, one) for one in found]

    def open(self, path: str) -> BinaryIO:
        with reaching(self.url):
            return cast(BinaryIO, self._fs.open(self._at(path), "rb"))

    def put(self, path: str, data: bytes) -> None:
        self._require_create()
        with reaching(self.url):
            self._fs.pipe_file(self._at(path, is_written=True), data)

    def put_file(self, path: str, source: Path) -> None:
        self._require_create()
        with reaching(self.url):
            self._fs.put_file(str(source), self._at(path, is_written=True))
        source.unlink(missing_ok=True)

    def create(self, path: str, data: bytes) -> bool:
        self._at(path, is_written=True)
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

    def paths(self, folder: str) -> list[str]:
        start = f"{self._at(folder).rstrip('/')}/"
        try:
            with reaching(self.url):
                self._fs.invalidate_cache()
                found = self._fs.find(start.rstrip("/"))
        except (FileNotFoundError, NotADirectoryError):
            return []
        # A name that ends in '/' is a marker that some tools leave for a folder.
        return sorted(
            name.removeprefix(start) for name in found if name.startswith(start) and not name.endswith("/")
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

    def put_tree(self, path: str, source: Path, last: Sequence[str] = ()) -> None:
        self._at(path, is_written=True)
        self._require_create()
        files = local_files(source)
        there = self.paths(path)
        # What readers look for is gone before anything changes, and there again when everything else is.
        for name in last:
            if name in there:
                self.delete(f"{path}/{name}")

        def put(name: str) -> None:
            with reaching(self.url):
                self._fs.put_file(str(files[name]), self._at(f"{path}/{name}"))

        _at_once(put, [name for name in files if name not in last])
        _at_once(lambda name: self.delete(f"{path}/{name}"), [name for name in there if name not in files])
        for name in last:
            if name in files:
                put(name)

    def fetch_tree(self, path: str, target: Path) -> None:
        names = self.paths(path)
        if not names:
            raise FileNotFoundError(f"there is no file below {self.url}/{path}".rstrip("/"))
        # Each is checked before any is written: a store made by others may have names that lead elsewhere.
        places = [checked(self.url, f"{path}/{name}" if path else name) for name in names]
        with appearing(target) as partial:

            def fetch(file: tuple[str, str]) -> None:
                name, place = file
                copy = partial / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                with reaching(self.url):
                    self._fs.get_file(self._at(place), str(copy))

            _at_once(fetch, list(zip(names, places, strict=True)))

    def delete_tree(self, path: str) -> None:
        self._at(path, is_written=True)
        _at_once(lambda name: self.delete(f"{path}/{name}"), self.paths(path))

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

    def _at(self, path: str, *, is_written: bool = False) -> str:
        checked(self.url, path, is_written=is_written)
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
        probe = f"probe-{os.urandom(16).hex()}"
        try:
            created = (self._create(probe, b"1"), self._create(probe, b"2"))
        finally:
            self.delete(probe)
        if created != (True, False):
            raise NoAtomicCreateError(
                self.url, "it overwrote a file that it was asked to create only if missing"
            )
        self._is_tried = True


def _at_once(function: Callable[[_T], None], items: Sequence[_T]) -> None:
    """Call a function for each of many items, several at once; the first error is raised."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="storage") as threads:
        for done in [threads.submit(function, item) for item in items]:
            done.result()


def _refusal(error: BaseException | None) -> str:
    """Return the code with which a server refused a request, "" where there is none: what botocore tells."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
