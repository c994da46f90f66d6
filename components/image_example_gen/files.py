"""Lists the files of a source.

Local ones by the operating system, since TensorFlow's file layer fails at the first name that is not UTF-8;
such a name holds surrogates here (`os.fsdecode`). URLs go through TFX's file layer.
"""

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfx.dsl.io import fileio

from mlplatform.components.image_example_gen.settings import IngestSettings
from mlplatform.storage.urls import is_local
from mlplatform.tfx_io import file_systems  # noqa: F401 - lets `fileio` read object storage


@dataclass(frozen=True)
class File:
    """A file of a source, with its size in bytes and its time of change in nanoseconds."""

    uri: str
    size: int
    changed_ns: int


def matching(folder: str, pattern: str) -> list[str]:
    """Return what a pattern such as `*/*` names below a folder, ordered; hidden names are passed over."""
    if is_local(folder):
        found = [str(path) for path in Path(folder).glob(pattern)]
    else:
        found = fileio.glob(posixpath.join(folder, pattern))
    return sorted(uri for uri in found if not posixpath.basename(uri.rstrip("/")).startswith("."))


def names_in(folder: str) -> list[str]:
    """Return the names in a folder, ordered. Raises OSError where it cannot be read."""
    if is_local(folder):
        return sorted(path.name for path in Path(folder).iterdir())
    return sorted(name.rstrip("/") for name in fileio.listdir(folder))


def all_below(folder: str, *, root: str | None) -> list[str]:
    """Return every file below a folder, ordered, also those behind links to folders.

    A folder that several ways lead to is looked into once; each further way is listed as `name -> folder`.

    Args:
        folder: Local path or URL.
        root: Local folder that links are followed within; None to follow them anywhere.
    """
    walk = _local_walk(folder, root) if is_local(folder) else fileio.walk(folder)
    return sorted(posixpath.join(parent, name) for parent, _, names in walk for name in names)


def _local_walk(folder: str, root: str | None) -> Iterator[tuple[str, list[str], list[str]]]:
    top = Path(folder).resolve()
    met = {str(top), *map(str, top.parents)}
    bound = Path("/" if root is None else root).resolve()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = {name: os.path.realpath(posixpath.join(parent, name)) for name in sorted(folders)}
        folders.clear()
        for name, place in real.items():
            if place in met or not Path(place).is_relative_to(bound):
                names.append(f"{name} -> {place}")
            else:
                met.add(place)
                folders.append(name)
        yield parent, folders, names


def stats(uris: list[str]) -> Iterator[File]:
    """Yield size and time of each file; a link that leads nowhere has neither."""
    for uri in uris:
        if not is_local(uri):
            found = fileio.stat(uri)
            yield File(uri, found.length, found.mtime_nsec)
            continue
        try:
            local = Path(uri).stat()
        except OSError:
            yield File(uri, 0, 0)
        else:
            yield File(uri, local.st_size, local.st_mtime_ns)


def of_split(input_base: str, pattern: str, settings: IngestSettings) -> Iterator[File]:
    """Yield the files that a split is made of: its photos, or all below the folder of its listing."""
    if settings.layout == "folders":
        return stats(matching(input_base, pattern))
    folder = posixpath.dirname(posixpath.join(input_base, pattern))
    return stats(all_below(folder, root=None if settings.follow_links else input_base))


def is_folder(uri: str) -> bool:
    """Say whether it is a folder."""
    return Path(uri).is_dir() if is_local(uri) else bool(fileio.isdir(uri))


def is_text(name: str) -> bool:
    """Say whether a name is UTF-8, so that it can be written down."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def shown(name: str) -> str:
    """Return a name as text that can be written down: bytes that are not UTF-8 as escapes."""
    return name if is_text(name) else os.fsencode(name).decode("utf-8", "backslashreplace")
