"""What a storage promises: files below one root, each there in full or not at all."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol


class Storage(Protocol):
    """Files below one root, named by '/'-separated paths. A file is there in full or not at all.

    A path that would leave the root, or that not every backend can hold, is refused with `BadPathError`.
    Folders exist by the files in them: an empty one is not kept. A name is that of a file or of a folder, not
    of both. What a backend refuses or cannot reach is a `StoreAccessError`.

    Attributes:
        url: The root: an absolute local path, or a URL.
    """

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

    def paths(self, folder: str) -> list[str]:
        """Return all files below a folder, at any depth, sorted, relative to it; none where it is missing."""

    def size(self, path: str) -> int:
        """Return the bytes of a file. Raises FileNotFoundError."""

    def age_s(self, path: str) -> float:
        """Return the seconds since a file was written."""

    def delete(self, path: str) -> None:
        """Delete a file; nothing happens where it is missing."""

    def delete_folder(self, path: str) -> None:
        """Delete an empty folder; nothing happens where it is missing, or where there are only files."""

    def put_tree(self, path: str, source: Path, last: Sequence[str] = ()) -> None:
        """Write the files below a local folder, links followed; afterwards `path` holds these and no others.

        One writer at a time: whoever may have company takes a path that is its own. What a writer that was
        killed leaves there is replaced by the next `put_tree`, and removed by `delete_tree`.

        Args:
            path: The folder to write; not the root itself.
            source: The local folder.
            last: Files below `source` that readers look for: while one of them is there, so are all the other
                files of the same call. Those that `source` lacks are ignored.

        Raises:
            NotADirectoryError: `source` is not a folder.
        """

    def fetch_tree(self, path: str, target: Path) -> None:
        """Copy the files below a folder into a local folder, which appears in one step, whole.

        Raises:
            FileNotFoundError: There is no file below `path`.
            FileExistsError: `target` is there, or appeared meanwhile.
        """

    def delete_tree(self, path: str) -> None:
        """Delete a folder, not the root itself, with all files below; nothing happens where it is missing."""

    def local(self, path: str) -> Path | None:
        """Return the file's place on this machine's file system, None for a remote one."""

    def aside(self, folder: str) -> Path:
        """Return a new local file name to write to, for `put_file`; `gc` finds what is left there."""

    def hold(self, folder: str, *, alone: bool) -> contextlib.AbstractContextManager[None]:
        """Keep `gc` (`alone=False`), or everybody (`alone=True`), away from a folder, where locks exist."""
