"""Where files lie: a local folder, or any fsspec URL that can create a file exactly once."""

import os
from pathlib import Path

from mlplatform.storage.local import LocalStorage, naming
from mlplatform.storage.object_storage import PROBE, FsspecStorage
from mlplatform.storage.protocol import Storage
from mlplatform.storage.trees import ASIDE
from mlplatform.storage.urls import absolute, is_local

__all__ = ["ASIDE", "PROBE", "FsspecStorage", "LocalStorage", "Storage", "naming", "open_storage"]


def open_storage(url: str | os.PathLike[str]) -> Storage:
    """Return the storage at a local path or an fsspec URL (`s3://bucket/path`, `memory://...`)."""
    place = absolute(url)
    return LocalStorage(Path(place)) if is_local(place) else FsspecStorage(place)
