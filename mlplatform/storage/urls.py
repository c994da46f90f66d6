"""Local paths and URLs: the one place that tells them apart, takes them apart and puts them together.

A place is a text: a path of this machine's file system, or a URL of a kind that fsspec knows (`s3://bucket/x`).
"""

import os
import re
from pathlib import Path

from mlplatform.storage.errors import LostSlashError

_SEPARATOR = "://"
_FILE = "file://"
# What becomes of a URL that is taken for a path: without this, its files would be written here, unnoticed.
_LOST_SLASH = re.compile(r"(s3a?|gs|gcs|az|abfss?|memory|file):/[^/]")


def is_local(url: str) -> bool:
    """Return whether a place is a path of this machine's file system, usable as it is.

    A `file://` URL is not: `absolute` makes a path of it.
    """
    return not _scheme(url)


def scheme(url: str) -> str:
    """Return the scheme of a URL, such as `s3`; empty for a local path."""
    return _scheme(url).removesuffix(_SEPARATOR)


def absolute(place: str | os.PathLike[str]) -> str:
    """Return a place as an absolute local path, or as a URL without a '/' at its end.

    Raises:
        LostSlashError: It is a URL whose two slashes became one.
        RuntimeError: It is below the home of a user whom this machine does not know (`~name/x`).
    """
    text = os.fspath(place)
    if text.startswith(_FILE):
        text = text.removeprefix(_FILE)
    start = _scheme(text)
    if start:
        return start + text.removeprefix(start).rstrip("/")
    if _LOST_SLASH.match(text):
        raise LostSlashError(text)
    return str(Path(text).expanduser().absolute())


def join(url: str, *names: str) -> str:
    """Return the place of `names` below a folder."""
    start = _scheme(url)
    rest = url.removeprefix(start)
    folder = rest.rstrip("/")
    if rest and not folder:  # the root of the file system
        return start + "/" + "/".join(names)
    return start + "/".join(part for part in (folder, *names) if part)


def parent(url: str) -> str:
    """Return the folder that a place lies in; that of a bucket or of the file system's root is itself."""
    start = _scheme(url)
    rest = url.removeprefix(start).rstrip("/")
    above, separator, _ = rest.rpartition("/")
    if start:
        return start + (above or rest)
    if separator:
        return above or "/"
    return "/" if url.startswith("/") else "."


def name(url: str) -> str:
    """Return the last part of a place."""
    return url.removeprefix(_scheme(url)).rstrip("/").rpartition("/")[2]


def _scheme(url: str) -> str:
    """Return a URL up to and with '://'; empty for a path, which may hold that further behind."""
    start, separator, _ = url.partition(_SEPARATOR)
    return start + separator if separator and "/" not in start else ""
