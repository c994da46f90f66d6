"""What was read while a pipeline was made: files, folders that were listed, modules of the user's.

Python reports every `open` and every listing of a folder to audit hooks, and TensorFlow's file system is
heard at its door; a pipeline whose configuration file or data folder changed is then known to have changed
without making it again. What asks the world in other ways (a subprocess, a connection, a database) cannot be
known to be as it was.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import FrameType
from typing import Any

from mlplatform.fingerprints.digests import digest_or_empty, text_digest
from mlplatform.fingerprints.imported import imported_files
from mlplatform.fingerprints.libraries import is_ours, is_user_file
from mlplatform.orchestration.local.patches import tensorflow_files
from mlplatform.storage.urls import is_local

_NOT_SOURCES = ("/proc/", "/sys/", "/dev/")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_WORLD = frozenset(
    {"os.exec", "os.posix_spawn", "os.system", "socket.connect", "sqlite3.connect", "subprocess.Popen"}
)
_TENSORFLOW_READS = frozenset(
    {"BufferedInputStream", "FileExists", "GetChildren", "GetMatchingFiles", "IsDirectory", "Stat"}
)
_CODE = (".py", ".pyc", *EXTENSION_SUFFIXES)


@dataclass(frozen=True)
class Sources:
    """What making the pipeline depended on.

    Attributes:
        files: Digest per file, when it was first read; empty for one that was looked for and not there.
        folders: Digest of the names in each folder that was listed.
        neighbours: Digest of the names, save hidden ones, in each folder of the user's code: of a question
            whether a file is there, Python says nothing.
        world: What else it asked: names of Python's audit events, and URLs. It may answer otherwise now.
    """

    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    neighbours: dict[str, str] = field(default_factory=dict)
    world: tuple[str, ...] = ()


class _OpenedFiles:
    """Hears of every file and folder that this process opens, while `is_on`."""

    def __init__(self) -> None:
        self.is_on = False
        self.files: dict[str, str] = {}
        self.folders: dict[str, str] = {}
        self.world: set[str] = set()

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in _WORLD:
            if not _is_for_an_import(sys._getframe(1)):
                self.world.add(event)
        elif event == "open":
            path, _, flags = arguments
            if not (flags or 0) & _WRITING and not (_is_code(path) and _is_import_machinery()):
                self.read(path)
        elif event in ("os.listdir", "os.scandir") and not _is_import_machinery():
            self.listed(arguments[0])

    def tensorflow_reads(self, function: str, arguments: tuple[Any, ...]) -> None:
        """Note what TensorFlow's file system is asked."""
        if not self.is_on:
            return
        path = arguments[0]
        self.read(path)
        if function == "GetMatchingFiles":
            self.listed(os.path.dirname(path))  # noqa: PTH120
        elif function != "BufferedInputStream":
            self.listed(path)

    def read(self, path: object) -> None:
        """Note a file, as it is before it is read."""
        place = self._place(path)
        if place and not place.endswith(".pyc") and place not in self.files:
            with self._paused():
                self.files[place] = digest_or_empty(place)

    def listed(self, path: object) -> None:
        """Note the names in a folder."""
        place = self._place(path)
        if place and place not in self.folders:
            with self._paused():
                self.folders[place] = names_digest(place)

    def _place(self, path: object) -> str:
        """Return a path that was asked for, absolute; empty for what is no file of the user's."""
        if not isinstance(path, str | bytes | os.PathLike):
            return ""
        text = os.fsdecode(path)
        if not is_local(text):
            self.world.add(text)
            return ""
        place = os.path.abspath(text)  # noqa: PTH100 - called for every open of the process
        return "" if place.startswith(_NOT_SOURCES) or not is_user_file(place) else place

    @contextmanager
    def _paused(self) -> Iterator[None]:
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True


_recorder: _OpenedFiles | None = None


def start_recording() -> None:
    """Hear of what this process reads from now on; its forked children go on hearing."""
    global _recorder
    if _recorder is None:
        _recorder = _OpenedFiles()
        sys.addaudithook(_recorder.hook)
        tensorflow_files.listen(_TENSORFLOW_READS, _recorder.tensorflow_reads)
    _recorder.is_on = True


def pause_recording() -> None:
    """Hear of nothing until recording is started again."""
    if _recorder is not None:
        _recorder.is_on = False


def stop_recording() -> Sources:
    """Return what was read."""
    if _recorder is None:
        return Sources()
    pause_recording()
    code = imported_files()
    around = {str(Path(file).parent) for file in code if not is_ours(file)}
    return Sources(
        files={**dict(sorted(_recorder.files.items())), **code},
        folders=dict(sorted(_recorder.folders.items())),
        neighbours={folder: neighbours_digest(folder) for folder in sorted(around)},
        world=tuple(sorted(_recorder.world)),
    )


def names_digest(folder: str) -> str:
    """Return the digest of the names in a folder; empty where it is not there."""
    try:
        return text_digest("\n".join(sorted(os.listdir(folder))))  # noqa: PTH208
    except OSError:
        return ""


def neighbours_digest(folder: str) -> str:
    """Return the digest of the names in a folder of code, save hidden ones and Python's own."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith((".", "__pycache__"))]  # noqa: PTH208
    except OSError:
        return ""
    return text_digest("\n".join(sorted(names)))


def _is_code(path: object) -> bool:
    """Say whether a file is a module: through Python's import system, data of a package is read, too."""
    return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).endswith(_CODE)


def _is_import_machinery() -> bool:
    """Say whether Python's import system opened or listed this.

    Modules are found in `sys.modules` anyway, and what is installed has a fingerprint of its own.
    """
    file = sys._getframe(2).f_code.co_filename
    return file.startswith("<frozen importlib") or "/importlib/" in file


def _is_for_an_import(frame: FrameType | None) -> bool:
    """Say whether a library does something because it is being imported, not because the user's code asks."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return True
        if is_user_file(file):
            return False
        frame = frame.f_back
    return False
