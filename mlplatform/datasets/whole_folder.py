"""Writes a folder that is there in full or not at all."""

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlplatform.datasets.errors import CheckoutTargetError, MountPointError, RemoteTargetError
from mlplatform.storage.urls import is_local

_STALE_AFTER_S = 24 * 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_folder(folder: str | os.PathLike[str]) -> Iterator[tuple[Path, Path]]:
    """Let the block fill a folder aside, and give it its name when the block ends well.

    What killed writers of the same folder left aside is deleted once it is a day old.

    Args:
        folder: A new or an empty local folder.

    Yields:
        The folder that the block creates and fills, and the folder that it becomes.

    Raises:
        CheckoutTargetError: The folder is not empty, or a mount point.
        RemoteTargetError: It is a URL.
        OSError: It cannot be written; `filename` is named, also where the disk is full.
    """
    text = os.fspath(folder).removeprefix("file://")
    if not is_local(text):
        raise RemoteTargetError(text)
    target = Path(text).expanduser().absolute()
    place = target.resolve()  # a link to a folder stays what it is
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CheckoutTargetError(str(target))
    if os.path.ismount(place):
        raise MountPointError(str(target))
    place.parent.mkdir(parents=True, exist_ok=True)
    _delete_stale(place)
    partial = place.parent / f".{place.name}.{uuid.uuid4().hex}"
    try:
        with naming_a_full_disk(target):
            yield partial, target
            partial.replace(place)  # over an empty folder, too
    finally:
        if partial.exists():
            shutil.rmtree(partial)


@contextmanager
def naming_a_full_disk(path: Path) -> Iterator[None]:
    """Name the path in an error that says that the disk is full: a write through a descriptor names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _FULL:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def _delete_stale(place: Path) -> None:
    prefix = f".{place.name}."
    for left in place.parent.iterdir():
        if not left.name.startswith(prefix) or len(left.name) != len(prefix) + 32 or not left.is_dir():
            continue
        with contextlib.suppress(OSError):  # somebody else deletes it, or may not read it
            newest = max(path.stat().st_mtime for path in (left, *left.rglob("*")))
            if time.time() - newest > _STALE_AFTER_S:
                shutil.rmtree(left)
