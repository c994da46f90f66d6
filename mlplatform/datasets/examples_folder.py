"""Examples as TFX writes them: a folder with `Split-<name>/` folders of TFRecord shards."""

import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlplatform.datasets.errors import (
    BadNameError,
    CorruptRecordsError,
    IncompleteShardsError,
    NoSplitsError,
)
from mlplatform.datasets.format.fields import is_split_name
from mlplatform.files import EarlyWriter
from mlplatform.storage import naming
from mlplatform.storage.file_systems import file_system, identity, reaching
from mlplatform.storage.urls import is_local

_PREFIX = "Split-"
_ONE_OF_SET = re.compile(r"(?P<begin>.*-)(?P<number>\d{5,})-of-(?P<count>\d{5,})(?P<end>\.gz)?")


@dataclass(frozen=True)
class Shard:
    """A TFRecord file of a split.

    Attributes:
        split: The split's name.
        path: Local path, or fsspec URL.
        is_gzip: The file is gzip-compressed (its name ends in `.gz`).
        size: Bytes of the file.
        stamp: Changes when the file does: of a local file size, time and inode, of a remote one size and what
            its backend tells of its content (an ETag, a generation, a time).
    """

    split: str
    path: str
    is_gzip: bool
    size: int
    stamp: tuple[int | str, ...]

    @property
    def is_local(self) -> bool:
        """The file is on this machine."""
        return is_local(self.path)


def list_shards(folder: str | os.PathLike[str]) -> tuple[list[str], list[Shard]]:
    """Return the split names and the shards below a folder, both sorted by name.

    Raises:
        NoSplitsError: There is no `Split-<name>` folder.
        BadNameError: A split's name has control characters, is no UTF-8, or is too long.
        IncompleteShardsError: A split has files named `...-00000-of-00003`, and not all of them.
    """
    text = os.fspath(folder).removeprefix("file://")
    found = _local(Path(text).expanduser().absolute()) if is_local(text) else _remote(text)
    splits = sorted(
        name[len(_PREFIX) :] for name in found if name.startswith(_PREFIX) and len(name) > len(_PREFIX)
    )
    if not splits:
        raise NoSplitsError(text, sorted(found))
    for split in splits:
        if not is_split_name(split):
            raise BadNameError("split", split)
    for split in splits:
        _check_set(f"{text}/{_PREFIX}{split}", found[_PREFIX + split])
    return splits, [shard for split in splits for shard in found[_PREFIX + split]]


def _check_set(folder: str, shards: list[Shard]) -> None:
    """Check that all of a set of shards are there. Raises IncompleteShardsError."""
    found: dict[tuple[str, str], dict[int, str]] = {}
    for shard in shards:
        if one := _ONE_OF_SET.fullmatch(shard.path.rsplit("/", 1)[-1]):
            found.setdefault((one["begin"], one["count"]), {})[int(one["number"])] = one["end"] or ""
    for (begin, count), ends in found.items():
        end = next(iter(ends.values()))
        missing = [
            f"{begin}{number:0{len(count)}d}-of-{count}{end}"
            for number in range(int(count))
            if number not in ends
        ]
        if missing:
            raise IncompleteShardsError(folder, missing)


@contextmanager
def open_records(shard: Shard, copy: EarlyWriter | None = None) -> Iterator[Any]:
    """Open a shard for reading its uncompressed bytes; `.digest()` is the SHA-256 of a gzip file, once read.

    Args:
        shard: The file.
        copy: A local file that gets the bytes of the shard, as they are read.

    Raises:
        CorruptRecordsError: The file is no gzip stream, or damaged.
    """
    with open_file(shard.path) as file:
        source: Any = file if copy is None else _Copied(file, copy)
        with uncompressed(source, shard.is_gzip, shard.path) as stream:
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


def stamp(path: str) -> tuple[int | str, ...]:
    """Return what changes when the file does; see `Shard.stamp`. Raises FileNotFoundError."""
    if not is_local(path):
        fs, place = file_system(path)
        with reaching(path):
            fs.invalidate_cache()
            return identity(fs.info(place))
    status = Path(path).stat()
    return (status.st_size, status.st_mtime_ns, status.st_ino)


class _Copied:
    """A file that is copied as it is read."""

    def __init__(self, file: Any, copy: EarlyWriter) -> None:
        self._file, self._copy = file, copy

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        self._write(data)
        return data

    def readinto(self, buffer: Any) -> int:
        got = int(self._file.readinto(buffer))
        self._write(memoryview(buffer)[:got])
        return got

    def _write(self, data: bytes | memoryview) -> None:
        with naming(self._copy.name):
            self._copy.write(data)


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._is_begun = file, False
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if not data and not self._is_begun:
            raise EOFError("it is empty, and a gzip file never is")
        self._is_begun = True
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


def open_file(path: str) -> Any:
    """Open a local file, or one at an fsspec URL, for reading bytes."""
    if is_local(path):
        return open(path, "rb", buffering=0)
    fs, place = file_system(path)
    with reaching(path):
        return fs.open(place, "rb")


def _is_shard(name: str) -> bool:
    return not name.startswith((".", "_"))


def _local(folder: Path) -> dict[str, list[Shard]]:
    if not folder.is_dir():
        raise NoSplitsError(str(folder), [])
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
    fs, place = file_system(url)
    found: dict[str, list[Shard]] = {}
    with reaching(url):
        fs.invalidate_cache()
        try:
            entries = fs.ls(place, detail=True)
        except FileNotFoundError as error:
            raise NoSplitsError(url, []) from error
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
                    identity(file),
                )
                for file in sorted(fs.ls(entry["name"], detail=True), key=lambda file: str(file["name"]))
                if file["type"] == "file" and _is_shard(file["name"].rsplit("/", 1)[-1])
            ]
    return found
