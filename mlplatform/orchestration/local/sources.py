"""What was read while a pipeline was made: files, folders that were listed, modules of the user's.

Python reports every `open` and every listing of a folder to audit hooks; a pipeline whose configuration file
or data folder changed is then known to have changed without making it again.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlplatform.orchestration.local.code_closure import is_user_file
from mlplatform.orchestration.local.digests import file_digest, text_digest

_NOT_SOURCES = ("/proc/", "/sys/", "/dev/")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Sources:
    """What making the pipeline depended on.

    Attributes:
        files: Digest per file.
        folders: Digest of the names in each folder that was listed.
    """

    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)


class _Recorder:
    """Hears of every file and folder that this process opens, while `is_on`."""

    def __init__(self) -> None:
        self.is_on = False
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on or event not in ("open", "os.listdir", "os.scandir"):
            return
        path = arguments[0]
        if not isinstance(path, str | os.PathLike) or _is_import_machinery():
            return
        place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - called for every open of the process
        if place.startswith(_NOT_SOURCES) or not is_user_file(place):
            return
        if event != "open":
            self.folders.add(place)
        elif not (arguments[2] or 0) & _WRITING and not place.endswith(".pyc"):
            self.files.add(place)


_recorder: _Recorder | None = None


def start_recording() -> None:
    """Hear of what this process reads from now on; its forked children go on hearing."""
    global _recorder
    if _recorder is None:
        _recorder = _Recorder()
        sys.addaudithook(_recorder.hook)
    _recorder.is_on = True


def stop_recording() -> Sources:
    """Return what was read, as it is now."""
    if _recorder is None:
        return Sources()
    _recorder.is_on = False
    files = _recorder.files | {file for file in map(_source_of, list(sys.modules.values())) if file}
    return Sources(
        files={file: file_digest(file) for file in sorted(files) if Path(file).is_file()},
        folders={folder: names_digest(folder) for folder in sorted(_recorder.folders)},
    )


def names_digest(folder: str) -> str:
    """Return the digest of the names in a folder; empty where it is not there."""
    try:
        return text_digest("\n".join(sorted(os.listdir(folder))))  # noqa: PTH208
    except OSError:
        return ""


def _source_of(module: object) -> str:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) and file.endswith(".py") and is_user_file(file) else ""


def _is_import_machinery() -> bool:
    """Say whether Python's import system opened or listed this: modules are found in `sys.modules` anyway."""
    frame = sys._getframe(2)
    return frame.f_code.co_filename.startswith("<frozen importlib")
