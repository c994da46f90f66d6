"""Which folders this process itself writes to, as Python's audit events tell."""

import os
import sys
from collections.abc import Iterable

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = frozenset(
    {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"}
)


class Writes:
    """Hears what this process, and what is forked from it, changes within some folders.

    Not heard: other programs, and libraries that write without Python, as TensorFlow's file system does.

    Attributes:
        heard: Those of the folders in which something was written, by the names they were given.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self.heard: set[str] = set()
        self._folders = {folder: os.path.join(os.path.realpath(folder), "") for folder in folders}  # noqa: PTH118
        if self._folders:
            sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self._note(path)
        elif event in _CHANGES:
            for path in arguments[:2]:
                self._note(path)

    def _note(self, path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike):  # a descriptor, a mode
            return
        place = os.path.realpath(os.fsdecode(path))
        self.heard.update(folder for folder, real in self._folders.items() if place.startswith(real))
