"""Where files lie: a local folder, or any fsspec URL that can create a file exactly once."""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.storage.urls import absolute, is_local

if TYPE_CHECKING:
    from mlplatform.storage.local import LocalStorage as LocalStorage
    from mlplatform.storage.local import naming as naming
    from mlplatform.storage.object_storage import PROBE as PROBE
    from mlplatform.storage.object_storage import FsspecStorage as FsspecStorage
    from mlplatform.storage.protocol import Storage as Storage
    from mlplatform.storage.trees import ASIDE as ASIDE
    from mlplatform.storage.trees import EARLIER_ASIDE as EARLIER_ASIDE

# Imported when they are used: commands that only name a place open none.
_HOME = {
    "ASIDE": "trees",
    "EARLIER_ASIDE": "trees",
    "PROBE": "object_storage",
    "FsspecStorage": "object_storage",
    "LocalStorage": "local",
    "Storage": "protocol",
    "naming": "local",
}
__all__ = [
    "ASIDE",
    "EARLIER_ASIDE",
    "PROBE",
    "FsspecStorage",
    "LocalStorage",
    "Storage",
    "naming",
    "open_storage",
]


def open_storage(url: str | os.PathLike[str]) -> "Storage":
    """Return the storage at a local path or an fsspec URL (`s3://bucket/path`, `memory://...`)."""
    place = absolute(url)
    if is_local(place):
        from mlplatform.storage.local import LocalStorage

        return LocalStorage(Path(place))
    from mlplatform.storage.object_storage import FsspecStorage

    return FsspecStorage(place)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mlplatform.storage' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(f"mlplatform.storage.{_HOME[name]}"), name)
    return value
