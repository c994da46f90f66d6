"""Reads the bytes of a photo: never more than is allowed, and only from what is a file below the source."""

import os
import stat
from pathlib import Path

import tensorflow as tf
from tfx.dsl.io import fileio

from mlplatform.components.image_example_gen import files
from mlplatform.components.image_example_gen.photo import PhotoRefusal
from mlplatform.storage.urls import is_local

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_content(uri: str, max_bytes: int, root: str | None) -> bytes | PhotoRefusal:
    """Return the bytes of a file, or why they are not taken.

    Args:
        uri: Local path or URL.
        max_bytes: Size of the largest file that is taken.
        root: Folder, without links, that a local file has to lie in; None where links may lead anywhere.
    """
    try:
        content = _local(uri, max_bytes, root) if is_local(uri) else _remote(uri, max_bytes)
    except (FileNotFoundError, fileio.NotFoundError, tf.errors.NotFoundError):
        return PhotoRefusal("missing_file", "there is no such file")
    except OSError as error:
        return PhotoRefusal("unreadable_file", error.strerror or str(error))
    except tf.errors.OpError as error:
        return PhotoRefusal("unreadable_file", error.message)
    except ValueError as error:  # a name with a NUL
        return PhotoRefusal("unreadable_name", str(error))
    if not isinstance(content, PhotoRefusal) and len(content) > max_bytes:
        return PhotoRefusal("file_too_large", f"more than {max_bytes:,} bytes")
    return content


def _local(uri: str, max_bytes: int, root: str | None) -> bytes | PhotoRefusal:
    if root is not None:
        real = os.path.realpath(uri)
        if os.path.commonpath([root, real]) != root:
            return PhotoRefusal("outside_of_source", f"a link leads to {files.shown(real)}")
    # The kind is asked first, as opening a device may do something, and without waiting, as a pipe that
    # nobody writes into would wait for ever.
    kind = _not_a_file(Path(uri).stat())
    if kind:
        return kind
    with os.fdopen(os.open(uri, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(
            file.fileno()
        )  # its size bounds the buffer, which is made as large as what is asked for
        return _not_a_file(found) or file.read(min(max_bytes, found.st_size) + 1)


def _remote(uri: str, max_bytes: int) -> bytes | PhotoRefusal:
    try:
        with fileio.open(uri, "rb") as file:
            content: bytes = file.read(max_bytes + 1)
    except (OSError, tf.errors.OpError):
        if fileio.isdir(uri):  # asked only now: each question is a request
            return PhotoRefusal("not_a_file", "it is a folder")
        raise
    return content


def _not_a_file(found: os.stat_result) -> PhotoRefusal | None:
    if stat.S_ISREG(found.st_mode):
        return None
    return PhotoRefusal("not_a_file", f"it is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no file')}")
