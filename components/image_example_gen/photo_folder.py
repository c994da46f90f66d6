"""How a data folder brings its photos: a listing, folders per category, or splits of its own."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlplatform.components.image_example_gen.given_splits import (
    HELD_OUT,
    TRAIN,
    given_splits,
    require_class_folders,
)
from mlplatform.components.image_example_gen.listing import SPLIT, read_listing
from mlplatform.errors import UsageError
from mlplatform.storage.urls import absolute, is_local

LISTING = "listing.csv"
TEST = "test"  # of several evaluation splits, the one of this name judges the finished model


class NoPhotosError(UsageError):
    """The data folder holds nothing that the pipeline can read."""

    def __init__(self, folder: str, found: str) -> None:
        super().__init__(folder, found)
        self.folder, self.found = folder, found

    def __str__(self) -> str:
        return (
            f"the data folder {self.folder}: {self.found}. Give a folder with one folder of photos per "
            f"category, with {TRAIN}/ and validation/ folders of such, or with a {LISTING}."
        )


@dataclass(frozen=True)
class Photos:
    """A data folder and how it is divided.

    Attributes:
        folder: The data folder: an absolute local path, or a URL.
        listing: The listing's path, relative to `folder`; None where folders name the categories.
        own_splits: The splits that the data brings, `train` first; empty where a hash divides it.
        train_split: The split to train on.
        validation_split: The split that chooses the best epoch.
        test_split: The split that the finished model is judged on; may be the same.
    """

    folder: str
    listing: str | None
    own_splits: tuple[str, ...]
    train_split: str
    validation_split: str
    test_split: str


def require_folder(data: str | os.PathLike[str]) -> None:
    """Check that a data folder is there; one at a URL is looked for when the pipeline runs.

    Raises:
        NoPhotosError: There is no such folder.
    """
    folder = absolute(data)
    if is_local(folder) and not Path(folder).is_dir():
        raise NoPhotosError(
            folder, "it is not a folder" if Path(folder).exists() else "there is no such folder"
        )


def find_photos(
    data: str | os.PathLike[str],
    listing: str | None,
    hash_splits: Mapping[str, int],
    own_splits: Sequence[str] | None = None,
) -> Photos:
    """Return how a data folder is divided; it is looked at where this machine has it.

    Args:
        data: The data folder, a local path or a URL.
        listing: A listing below it; None takes its `listing.csv` if there is one.
        hash_splits: Names and weights of the splits where the data brings none; the first is for training.
        own_splits: The splits that the data brings, the one for training first; None for those to be seen.

    Raises:
        NoPhotosError: There is no such listing, nothing in the folder, or no split to evaluate on.
        ListingError: The listing cannot be read.
        SplitsError: Its folders are splits, and none of them is `train`; or one of them cannot be read.
    """
    folder = absolute(data)
    if is_local(folder) and Path(folder).exists():
        listing, seen = _seen(Path(folder), listing, is_divided=own_splits is not None)
        own_splits = seen if own_splits is None else own_splits
    found = divided(folder, listing, own_splits or list(hash_splits))
    return found if own_splits else replace(found, own_splits=())


def divided(folder: str, listing: str | None, splits: Sequence[str]) -> Photos:
    """Return a data folder with these splits, the one for training first, then one or more others."""
    train, *others = splits
    others.sort(key=lambda name: name == TEST)
    return Photos(folder, listing, tuple(splits), train, others[0], others[-1])


def _seen(folder: Path, listing: str | None, *, is_divided: bool) -> tuple[str | None, list[str]]:
    """Return the listing of a folder of this machine, and the splits that it brings.

    Args:
        folder: The folder.
        listing: A listing below it; None takes its `listing.csv` if there is one.
        is_divided: Its splits are known already: none are looked for.
    """
    require_folder(folder)
    if listing is not None and not (folder / listing).is_file():
        raise NoPhotosError(str(folder), f"it has no listing {listing!r}")
    if listing is None and (folder / LISTING).is_file():
        listing = LISTING
    names = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if listing is None and not names:
        raise NoPhotosError(str(folder), "it holds no folders")
    if is_divided:
        return listing, []
    if listing is not None:
        return listing, _listed_splits(folder, listing)
    own = given_splits(folder)
    if own == [TRAIN]:
        raise NoPhotosError(str(folder), f"it has {TRAIN}/ and no split to evaluate on")
    if not own:
        require_class_folders(str(folder / name) for name in names)
    return listing, own


def _listed_splits(folder: Path, listing: str) -> list[str]:
    """Return the splits in a listing's column `split`: `train` first; none where it has no such column.

    A value that names no split is no split: its row will be a reject.
    """
    found: set[str] | None = None
    for _, row in read_listing(str(folder / listing)):
        if isinstance(row, dict):
            if found is None:
                if SPLIT not in row:
                    return []
                found = set()
            found.add(str(row.get(SPLIT)))
    if found is None:  # no row can be read: the ingest says why
        return []
    held_out = sorted(found & set(HELD_OUT))
    if TRAIN not in found or not held_out:
        raise NoPhotosError(
            str(folder),
            f"column {SPLIT!r} of {listing} names {', '.join(map(repr, sorted(found)[:5]))}, "
            f"where it must name {TRAIN!r} and one or more of {', '.join(HELD_OUT)}",
        )
    return [TRAIN, *held_out]
