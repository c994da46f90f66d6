"""Which splits a data folder brings by itself."""

import os
from collections.abc import Iterable
from pathlib import Path

from mlplatform.components.image_example_gen.errors import SplitsError
from mlplatform.storage.urls import is_local

TRAIN = "train"
# What a listing may call the splits that are not trained on, so that a misspelt name is no split of its own.
HELD_OUT = ("validation", "val", "dev", "eval", "test", "holdout")


def given_splits(input_base: str | os.PathLike[str]) -> list[str]:
    """Return the folders below `input_base` that are splits: `train` first, then the others by name.

    A split is a folder of class folders. Where there is no such `train`, there are no splits, and the folders
    are classes (so a class of toys named `train` is a class, as it holds photos and no folders).

    Raises:
        SplitsError: A folder cannot be read, so it may or may not be a split.
    """
    base = Path(input_base)
    try:
        if not _holds_folders(base / TRAIN):
            return []
        others = [entry.name for entry in base.iterdir() if entry.name != TRAIN and _holds_folders(entry)]
    except PermissionError as error:
        raise SplitsError(
            f"{error.filename} cannot be read: {error.strerror}",
            f"Let this account read it, or name the splits to take, such as [{TRAIN!r}, 'validation'].",
        ) from error
    return [TRAIN, *sorted(others)]


def check_split_by(column: str) -> None:
    """Check what decides the split of the photos in class folders.

    Raises:
        SplitsError: It is a column that only a listing may have.
    """
    if column not in ("item_id", "label"):
        raise SplitsError(
            f"split_by is {column!r}, and folders know no such column",
            "Take item_id, or give a listing that has the column.",
        )


def require_class_folders(folders: Iterable[str]) -> None:
    """Check that local folders which are to be classes are not splits.

    Raises:
        SplitsError: All of them hold folders and no files.
    """
    found = [Path(folder) for folder in folders if is_local(folder)]
    if found and all(_looks_like_split(folder) for folder in found):
        names = " and ".join(sorted(folder.name for folder in found)[:3])
        raise SplitsError(
            f"{found[0].parent}: {names} hold folders and no photos, as splits do and classes do not",
            f"Name the folder with the photos to train on {TRAIN}/, and the others come along.",
        )


def _looks_like_split(folder: Path) -> bool:
    try:
        return _holds_folders(folder) and not _holds_files(folder)
    except PermissionError:  # the ingest tells it
        return False


def _holds_files(folder: Path) -> bool:
    return any(entry.is_file() and not entry.name.startswith(".") for entry in folder.iterdir())


def _holds_folders(folder: Path) -> bool:
    if folder.name.startswith(".") or not folder.is_dir():
        return False
    return any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir())
