"""Files here: that appear in one step, that only their owner can read, that reach the disk early."""

import ctypes
import json
import os
from pathlib import Path
from typing import BinaryIO

_WRITTEN_AT_ONCE = 24 << 20  # bytes after which the disk is to begin
_SYNC_FILE_RANGE_WRITE = 2  # of linux/fs.h: begin to write what is not on the disk yet, and do not wait


def write_json(path: Path, document: object, *, mode: int = 0o666, is_synced: bool = False) -> None:
    """Write a JSON file in one step: whoever reads it sees the old one or the new one.

    Args:
        path: The file.
        document: What `json` can write; all else as text.
        mode: Its permissions, less the umask.
        is_synced: It survives a power cut.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.touch(mode)
    with aside.open("w", encoding="utf-8") as file:
        file.write(json.dumps(document, indent=1, default=str))
        if is_synced:
            file.flush()
            os.fsync(file.fileno())
    aside.replace(path)


def write_privately(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read: it may hold a password of a database."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)


class EarlyWriter:
    """Writes a file whose bytes go to the disk while more come: `fsync` has little to wait for at the end.

    Where the kernel or the file system does not do so (not Linux), `fsync` writes everything.

    Args:
        file: Opened for writing; whoever opened it closes it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.name = str(file.name)
        self._file, self._waiting = file, 0
        self._begin = getattr(ctypes.CDLL(None), "sync_file_range", None)

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes."""
        self._file.write(data)
        self._waiting += len(data)
        if self._begin is not None and self._waiting >= _WRITTEN_AT_ONCE:
            self._file.flush()
            self._begin(self._file.fileno(), ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)
            self._waiting = 0
