"""Examples as TFX writes them: a folder with `Split-<name>/` folders of TFRecord shards."""

import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlplatform.datasets.errors import CorruptRecordsError, NoExamplesError

_PREFIX = "Split-"


@dataclass(frozen=True)
class Shard:
    """A TFRecord file of a split.

    Attributes:
        split: The split's name.
        path: Local path, or fsspec URL.
        is_gzip: The file is gzip-compressed (its name ends in `.gz`).
        size: Bytes of the file.
        stamp: Changes when the file does: its size, and where known its time and inode.
    """

    split: str
    path: str
    is_gzip: bool
    size: int
    stamp: tuple[int, ...]

    @property
    def is_local(self) -> bool:
        """The file is on this machine."""
        return "://" not in self.path


def list_shards(folder: str | os.PathLike[str]) -> tuple[list[str], list[Shard]]:
    """Return the split names and the shards below a folder, both sorted by name.

    Raises:
        NoExamplesError: There is no `Split-<name>` folder.
    """
    text = os.fspath(folder).removeprefix("file://")
    found = _remote(text) if "://" in text else _local(Path(text).expanduser().absolute())
    splits = sorted(
        name[len(_PREFIX) :] for name in found if name.startswith(_PREFIX) and len(name) > len(_PREFIX)
    )
    if not splits:
        raise NoExamplesError(text, sorted(found))
    return splits, [shard for split in splits for shard in found[_PREFIX + split]]


@contextmanager
def open_records(shard: Shard) -> Iterator[Any]:
    """Open a shard for reading its uncompressed bytes; `.digest()` is the SHA-256 of a gzip file, once read.

    Raises:
        CorruptRecordsError: The file is no gzip stream, or damaged.
    """
    with _open(shard.path) as file, uncompressed(file, shard.is_gzip, shard.path) as stream:
        yield stream


@contextmanager
def uncompressed(file: BinaryIO, is_gzip: bool, name: str) -> Iterator[Any]:
    """Read a plain or gzip file's records; `.digest()` is the SHA-256 of a gzip file, once read.

    Raises:
        CorruptRecordsError: The file is no gzip stream, or damaged.
    """
    if not is_gzip:
        yield file
        return
    from isal import igzip, igzip_lib

    hashed = _Hashed(file)
    try:
        with igzip.IGzipFile(fileobj=hashed, mode="rb") as stream:
            yield _Gzip(stream, hashed)
    except (OSError, EOFError, zlib.error, igzip_lib.IsalError) as error:  # type: ignore[misc]
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CorruptRecordsError(name, 0, f"the gzip stream is damaged ({error})") from error


def stamp(path: str) -> tuple[int, ...]:
    """Return numbers that change when the file does. Raises FileNotFoundError."""
    if "://" in path:
        import fsspec

        fs, place = fsspec.core.url_to_fs(path)
        fs.invalidate_cache()
        return (int(fs.info(place)["size"]),)
    status = Path(path).stat()
    return (status.st_size, status.st_mtime_ns, status.st_ino)


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def digest(self) -> bytes:
        while self.read(1 << 20):
            pass
        return self._digest.digest()


class _Gzip:
    def __init__(self, stream: Any, hashed: _Hashed) -> None:
        self._stream, self._hashed = stream, hashed

    def readinto(self, buffer: Any) -> int:
        return int(self._stream.readinto(buffer))

    def digest(self) -> bytes:
        return self._hashed.digest()


def _open(path: str) -> Any:
    if "://" not in path:
        return open(path, "rb", buffering=0)
    import fsspec

    return fsspec.open(path, "rb").open()


def _is_shard(name: str) -> bool:
    return not name.startswith((".", "_"))


def _local(folder: Path) -> dict[str, list[Shard]]:
    if not folder.is_dir():
        raise NoExamplesError(str(folder), [])
    found: dict[str, list[Shard]] = {}
    for entry in folder.iterdir():
        if not entry.is_dir():
            continue
        found[entry.name] = [
            Shard(
                entry.name[len(_PREFIX) :],
                str(file),
                file.suffix == ".gz",
                file.stat().st_size,
                stamp(str(file)),
            )
            for file in sorted(entry.iterdir())
            if file.is_file() and _is_shard(file.name)
        ]
    return found


def _remote(url: str) -> dict[str, list[Shard]]:
    import fsspec

    fs, place = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    found: dict[str, list[Shard]] = {}
    try:
        entries = fs.ls(place, detail=True)
    except FileNotFoundError as error:
        raise NoExamplesError(url, []) from error
    for entry in entries:
        name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
        if entry["type"] != "directory":
            continue
        found[name] = [
            Shard(
                name[len(_PREFIX) :],
                fs.unstrip_protocol(file["name"]),
                file["name"].endswith(".gz"),
                int(file["size"]),
                (int(file["size"]),),
            )
            for file in sorted(fs.ls(entry["name"], detail=True), key=lambda file: str(file["name"]))
            if file["type"] == "file" and _is_shard(file["name"].rsplit("/", 1)[-1])
        ]
    return found
