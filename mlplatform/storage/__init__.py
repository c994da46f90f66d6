"""Where files lie: a local folder, or any fsspec URL that can create a file exactly once."""

import os
from pathlib import Path

from mlplatform.storage.local import ASIDE, LocalStorage, naming
from mlplatform.storage.object_storage import PROBE, FsspecStorage
from mlplatform.storage.protocol import Storage

__all__ = ["ASIDE", "PROBE", "FsspecStorage", "LocalStorage", "Storage", "naming", "open_storage"]


def open_storage(url: str | os.PathLike[str]) -> Storage:
    """Return the storage at a local path or an fsspec URL (`s3://bucket/path`, `memory://...`)."""
    text = os.fspath(url)
    if text.startswith("file://"):
        text = text[len("file://") :]
    if "://" in text:
        return FsspecStorage(text)
    return LocalStorage(Path(text))
