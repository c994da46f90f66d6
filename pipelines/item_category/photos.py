"""How a data folder brings its photos: a listing, folders per category, or splits of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlplatform.components.image_example_gen.given_splits import TRAIN, given_splits
from mlplatform.errors import UsageError

LISTING = "listing.csv"
EXAM = "test"  # of several evaluation splits, the one of this name judges the finished model


class NoPhotosError(UsageError):
    """The data folder holds nothing that the pipeline can read."""

    def __init__(self, folder: Path, found: str) -> None:
        super().__init__(folder, found)
        self.folder, self.found = folder, found

    def __str__(self) -> str:
        return (
            f"--data {self.folder}: {self.found}. Give a folder with one folder of photos per category, "
            f"with {TRAIN}/ and validation/ folders of such, or with a {LISTING}."
        )


@dataclass(frozen=True)
class Photos:
    """A data folder and how it is divided.

    Attributes:
        folder: The data folder, absolute.
        listing: The listing's path, relative to `folder`; None where folders name the categories.
        are_hashed: The splits come from a hash; False where the data brings its own.
        train_split: The split to train on.
        selection_split: The split that chooses the best epoch.
        exam_split: The split that the finished model is judged on.
    """

    folder: Path
    listing: str | None
    are_hashed: bool
    train_split: str
    selection_split: str
    exam_split: str


def find_photos(folder: Path, listing: str | None, hash_splits: Mapping[str, int]) -> Photos:
    """Look at a data folder.

    Args:
        folder: The data folder.
        listing: A listing below it; None takes its `listing.csv` if there is one.
        hash_splits: Names and weights of the splits where the data brings none; the first is for training.

    Raises:
        NoPhotosError: There is no such folder, no such listing, or nothing in it.
    """
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise NoPhotosError(folder, "it is not a folder" if folder.exists() else "there is no such folder")
    if listing is not None and not (folder / listing).is_file():
        raise NoPhotosError(folder, f"it has no listing {listing!r}")
    if listing is None and (folder / LISTING).is_file():
        listing = LISTING
    names = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if listing is None and not names:
        raise NoPhotosError(folder, "it holds no folders")
    own = given_splits(folder) if listing is None else []
    if own == [TRAIN]:
        raise NoPhotosError(folder, f"it has {TRAIN}/ and no split to evaluate on")
    train, *others = own or hash_splits
    others.sort(key=lambda name: name == EXAM)
    return Photos(folder, listing, not own, train, others[0], others[-1])
