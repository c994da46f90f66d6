"""fsspec's file system in memory, made safe for threads."""

from io import BytesIO
from pathlib import Path
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem


class SafeMemoryFileSystem(MemoryFileSystem):
    """The files of ``memory://``, each reader of which has a position of its own, and which appear whole.

    fsspec gives every reader of a file the same object, so that threads read each other's bytes, and shows a
    file that it copies from a disk while that is being copied.
    """

    def _open(self, path: str, mode: str = "rb", *arguments: Any, **named: Any) -> Any:
        if mode == "rb":
            return BytesIO(self.cat_file(path))
        return super()._open(path, mode, *arguments, **named)

    def put_file(self, lpath: str, rpath: str, *arguments: Any, **named: Any) -> None:
        """Copy a file of this machine."""
        del arguments, named
        self.pipe_file(rpath, Path(lpath).read_bytes())
