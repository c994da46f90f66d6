"""Which folders this process itself writes to, as Python's audit events and TensorFlow's file system tell."""

import os
import sys
from collections.abc import Iterable

from mlplatform.orchestration.local.patches import tensorflow_files

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = frozenset(
    {
        "os.link",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.symlink",
        "os.truncate",
        "shutil.rmtree",
    }
)
_TENSORFLOW_CHANGES = frozenset(
    {
        "CopyFile",
        "CreateDir",
        "DeleteFile",
        "DeleteRecursively",
        "RecursivelyCreateDir",
        "RenameFile",
        "WritableFile",
    }
)


class Writes:
    """Hears what Python code of this process changes within some folders.

    Not heard: other processes, and libraries that write without Python.

    Attributes:
        heard: Those of the folders in which something was written, by the names they were given.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self.heard: set[str] = set()
        self._folders = {folder: os.path.join(os.path.realpath(folder), "") for folder in folders}  # noqa: PTH118
        if self._folders:
            sys.addaudithook(self._hook)
            tensorflow_files.listen(_TENSORFLOW_CHANGES, lambda _, arguments: self._note(*arguments[:2]))

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self._note(path)
        elif event in _CHANGES:
            self._note(*arguments[:2])

    def _note(self, *paths: object) -> None:
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):  # not a descriptor, nor a mode
                place = os.path.join(os.path.realpath(os.fsdecode(path)), "")  # noqa: PTH118
                self.heard.update(folder for folder, real in self._folders.items() if place.startswith(real))
