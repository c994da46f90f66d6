"""File systems of fsspec, whose own errors become ones that say what could not be reached."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from mlplatform.errors import MissingExtraError, MlplatformError
from mlplatform.storage.errors import StoreAccessError

_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), ("s3fs", "s3")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "gcs")),
    **dict.fromkeys(("abfs", "abfss", "az"), ("adlfs", "azure")),
}
# Kinds of URLs whose files are objects that appear whole, and where a create can refuse a taken name.
OBJECT_STORES = frozenset({*_EXTRAS, "memory"})
# What says which bytes a file has, the best first; listings and look-ups of one backend give the same ones.
_IDENTITIES = ("generation", "ETag", "etag", "LastModified", "last_modified", "mtime", "created")


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the place on it.

    Raises:
        MissingExtraError: Its package is not installed.
        StoreAccessError: There is no such kind of URL, or it cannot be reached.
    """
    import fsspec

    with reaching(url):
        files, place = fsspec.core.url_to_fs(url)
        if files.protocol == "memory":
            from mlplatform.storage.memory import SafeMemoryFileSystem

            files = SafeMemoryFileSystem()
        return files, cast(str, place)


def identity(info: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Return what changes when a file does: its size, and what the backend tells of its content or time."""
    found = next((str(info[name]) for name in _IDENTITIES if info.get(name)), "")
    return int(info["size"]), found


def identities(url: str) -> Iterator[tuple[str, tuple[int | str, ...]]]:
    """Yield the name and the `identity` of each file below a folder, in order; of a file, its own.

    Raises:
        MissingExtraError: The package of this kind of URL is not installed.
        StoreAccessError: It cannot be listed.
    """
    with reaching(url):
        files, folder = file_system(url)
        files.invalidate_cache()
        found = files.find(folder, detail=True)
    for name, info in sorted(found.items()):
        yield name.removeprefix(folder).strip("/"), identity(info)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Name the URL in a backend's errors; that a file is missing or there already stays what it is.

    Raises:
        MissingExtraError: The backend's package is not installed.
        StoreAccessError: Anything else that the backend complains of: no permission, no network, no bucket.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, NotADirectoryError, MlplatformError):
        raise
    except Exception as error:
        protocol = url.split("://", 1)[0]
        if isinstance(error, ImportError) and protocol in _EXTRAS:
            raise MissingExtraError(*_EXTRAS[protocol], f"A {protocol}:// URL") from error
        raise StoreAccessError(url, f"{type(error).__name__}: {error}") from error
