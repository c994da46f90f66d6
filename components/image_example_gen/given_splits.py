"""Which splits a data folder brings by itself."""

import os
from pathlib import Path

TRAIN = "train"


def given_splits(input_base: str | os.PathLike[str]) -> list[str]:
    """Return the folders below `input_base` that are splits: `train` first, then the others by name.

    A split is a folder of class folders. Where there is no such `train`, there are no splits, and the folders
    are classes (so a class of toys named `train` is a class, as it holds photos and no folders).
    """
    base = Path(input_base)
    if not _holds_folders(base / TRAIN):
        return []
    others = [entry.name for entry in base.iterdir() if entry.name != TRAIN and _holds_folders(entry)]
    return [TRAIN, *sorted(others)]


def _holds_folders(folder: Path) -> bool:
    if folder.name.startswith(".") or not folder.is_dir():
        return False
    return any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir())
