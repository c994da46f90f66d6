"""The user's code as this process imported it, which an edit since then does not change.

A file that is edited while the pipeline runs has other code on disk than in the processes that imported it
before.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from types import CodeType

from mlplatform.fingerprints.digests import digest_or_empty
from mlplatform.fingerprints.libraries import is_user_file

_imported: dict[str, str] = {}  # file -> digest; empty where the file changed while it was read
_files: set[str] = set()  # files of the user's modules in `_looked_at`
_looked_at: set[str] = set()  # names of modules
_load = SourceFileLoader.get_code


def record_imports() -> None:
    """Note the digest of each source file of the user's that this process, and its children, import."""
    if SourceFileLoader.get_code is not _load:
        return
    _imported.update(imported_files())
    SourceFileLoader.get_code = _get_code  # type: ignore[method-assign, assignment]


def imported_files() -> dict[str, str]:
    """Return the files of the modules that are imported now, each with its digest when it was imported.

    Of extension modules, and of what was imported before `record_imports`, it is the digest of now.
    """
    for name in sys.modules.keys() - _looked_at:  # thousands, of which a child has few that are new
        file = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(file, str) and is_user_file(file):
            _files.add(os.path.realpath(file))
        _looked_at.add(name)
    return {
        file: _imported[file] if file in _imported else digest_or_empty(file)
        for file in sorted(_files | _imported.keys())
    }


def is_edited(file: str, digest: str) -> bool:
    """Say whether this process imported a file when it was not as `digest` says."""
    return _imported.get(file, digest) != digest


@contextmanager
def importing(file: str) -> Iterator[None]:
    """Note the digest of a source file that is imported here."""
    file = os.path.realpath(file)
    before = digest_or_empty(file)
    yield
    _imported[file] = before if before == digest_or_empty(file) else ""


def _get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
    file = loader.path
    if not isinstance(file, str) or not is_user_file(file):
        return _load(loader, fullname)
    with importing(file):
        return _load(loader, fullname)
