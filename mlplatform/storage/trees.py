"""Folders of files on this machine, and the paths that a storage takes."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from mlplatform.storage.errors import BadPathError

ASIDE = ".aside"  # folder of files that are being written; never read. No model or dataset can have this name
EARLIER_ASIDE = "aside"  # its name in earlier releases, whose killed writers may have left files there


def checked(url: str, path: str, *, is_written: bool = False) -> str:
    """Return a path below the root `url`; "" is the root.

    Args:
        url: The root, for the error.
        path: The path.
        is_written: Something is to be written there: not at the root, nor among what is being written.

    Raises:
        BadPathError: It would leave the root, or not every backend can hold it.
    """
    if not path and not is_written:
        return path
    names = path.split("/")
    if path.startswith("/"):
        raise BadPathError(url, path, "it is absolute")
    if "\0" in path:
        raise BadPathError(url, path, "it has a NUL character")
    for bad in ("..", ".", ""):
        if bad in names:
            raise BadPathError(url, path, f"it has the name {bad!r}")
    # Folders of the name may lie in the root, such as a dataset's: its own files are not directly in it.
    if is_written and (names[1:2] == [ASIDE] or (names[0] == ASIDE and len(names) <= 2)):
        raise BadPathError(url, path, f"{ASIDE!r} is reserved for files that are being written")
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise BadPathError(url, path, "it is not UTF-8") from error
    return path


def local_files(folder: Path) -> dict[str, Path]:
    """Return every file below a local folder by its '/'-separated relative name, sorted; links are followed.

    Raises:
        NotADirectoryError: It is not a folder.
        OSError: Something in it cannot be read, is neither file nor folder, or links lead in a circle.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    found = {}
    # A circle of links ends in the system's error of too many links, which names the path.
    for place, _, names in os.walk(folder, onerror=_raise, followlinks=True):
        for name in names:
            file = Path(place, name)
            if not stat.S_ISREG(file.stat().st_mode):
                raise OSError(f"{file} is neither a file nor a folder")
            found[file.relative_to(folder).as_posix()] = file
    return dict(sorted(found.items()))


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target` that is renamed to it at the end, and removed where that fails.

    Raises:
        FileExistsError: Something is at `target` already, or appeared there meanwhile.
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    partial = target.with_name(f".{os.urandom(16).hex()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        try:
            partial.rename(target)
        except OSError as error:  # the system's number for it depends on what is there
            if target.exists():
                raise FileExistsError(f"{target} is there already") from error
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _raise(error: OSError) -> NoReturn:
    raise error
