"""What a storage promises: files below one root, each there in full or not at all."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol


class Storage(Protocol):
    """Files below one root, named by '/'-separated paths. A file is there in full or not at all."""

    url: str

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a file, or of a range of it. Raises FileNotFoundError."""

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Return the bytes of several files, in order. Raises FileNotFoundError."""

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading. Raises FileNotFoundError."""

    def put(self, path: str, data: bytes) -> None:
        """Write a file, over one that may be there."""

    def put_file(self, path: str, source: Path) -> None:
        """Move a local file, made by `aside`, to its place, over one that may be there."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a file if there is none, in one atomic step; return whether this call did."""

    def names(self, folder: str) -> list[str]:
        """Return the sorted names of the files and folders in a folder; none where it is missing."""

    def size(self, path: str) -> int:
        """Return the bytes of a file. Raises FileNotFoundError."""

    def age_s(self, path: str) -> float:
        """Return the seconds since a file was written."""

    def delete(self, path: str) -> None:
        """Delete a file; nothing happens where it is missing."""

    def delete_folder(self, path: str) -> None:
        """Delete an empty folder; nothing happens where it is missing, or where there are only files."""

    def local(self, path: str) -> Path | None:
        """Return the file's place on this machine's file system, None for a remote one."""

    def aside(self, folder: str) -> Path:
        """Return a new local file name to write to, for `put_file`; `gc` finds what is left there."""

    def hold(self, folder: str, *, alone: bool) -> contextlib.AbstractContextManager[None]:
        """Keep `gc` (`alone=False`), or everybody (`alone=True`), away from a folder, where locks exist."""
