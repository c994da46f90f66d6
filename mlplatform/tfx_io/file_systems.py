"""Object storage for TFX's own file layer, through fsspec like everything else.

TFX hands the URLs that it has no file system for to TensorFlow, which reads `gs://` itself and `s3://` only
with a package that does not exist for newer versions of Python. Importing this module registers the others,
as TFX registers its own: `tfx.dsl.io.fileio` then reads and writes them. `gs://` stays TensorFlow's.
"""

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tfx.dsl.io import filesystem, filesystem_registry

from mlplatform.storage.file_systems import file_system

_BEFORE_TENSORFLOW = 5  # TFX registers TensorFlow's file systems with priority 10, and the lower one is taken


@dataclass(frozen=True)
class Stat:
    """What `fileio.stat` gives of a file: its size in bytes, and its time of change in nanoseconds."""

    length: int
    mtime_nsec: int


class FsspecFileSystem(filesystem.Filesystem):
    """URLs that TensorFlow does not read, for `tfx.dsl.io.fileio`."""

    SUPPORTED_SCHEMES = ["s3://", "s3a://", "az://", "abfs://", "abfss://", "memory://"]  # noqa: RUF012

    @staticmethod
    def open(name: str, mode: str = "r") -> Any:
        files, place = file_system(name)
        return _or_not_found(lambda: files.open(place, mode))

    @staticmethod
    def copy(src: str, dst: str, overwrite: bool = False) -> None:
        files, source = file_system(src)
        target = file_system(dst)[1]
        if not overwrite and files.exists(target):
            raise OSError(f"{dst} exists already, and it is not to be overwritten")
        _or_not_found(lambda: files.copy(source, target))

    @staticmethod
    def exists(path: str) -> bool:
        files, place = _fresh(path)
        return bool(files.exists(place))

    @staticmethod
    def glob(pattern: str) -> list[str]:
        files, place = _fresh(pattern)
        return [files.unstrip_protocol(found) for found in sorted(files.glob(place))]

    @staticmethod
    def isdir(path: str) -> bool:
        files, place = _fresh(path)
        return bool(files.isdir(place))

    @staticmethod
    def listdir(path: str) -> list[str]:
        files, place = _fresh(path)
        found = _or_not_found(lambda: files.ls(place, detail=False))
        return sorted(posixpath.basename(name.rstrip("/")) for name in found)

    @staticmethod
    def makedirs(path: str) -> None:
        """Do nothing: a folder there is but the beginning of its files' names."""

    mkdir = makedirs

    @staticmethod
    def remove(path: str) -> None:
        files, place = file_system(path)
        _or_not_found(lambda: files.rm_file(place))

    @staticmethod
    def rename(src: str, dst: str, overwrite: bool = False) -> None:
        FsspecFileSystem.copy(src, dst, overwrite=overwrite)
        FsspecFileSystem.remove(src)

    @staticmethod
    def rmtree(path: str) -> None:
        files, place = _fresh(path)
        _or_not_found(lambda: files.rm(place, recursive=True))

    @staticmethod
    def stat(path: str) -> Stat:
        files, place = _fresh(path)
        found = _or_not_found(lambda: files.info(place))
        try:
            changed_ns = int(files.modified(place).timestamp() * 1e9)
        except (NotImplementedError, FileNotFoundError):  # of a folder
            changed_ns = 0
        return Stat(int(found["size"] or 0), changed_ns)

    @staticmethod
    def walk(
        top: str, topdown: bool = True, onerror: Callable[..., None] | None = None
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        del topdown, onerror
        files, place = _fresh(top)
        for parent, folders, names in files.walk(place):
            yield files.unstrip_protocol(parent), list(folders), list(names)


def _fresh(url: str) -> tuple[Any, str]:
    """Return the file system of a URL without what it remembers of its listings: others write there."""
    files, place = file_system(url)
    files.invalidate_cache()
    return files, place


def _or_not_found(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except FileNotFoundError as error:
        raise filesystem.NotFoundError(*error.args) from error


filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(FsspecFileSystem, priority=_BEFORE_TENSORFLOW)
