"""What predictions are made for, in pieces that workers read by themselves. Loads no TensorFlow."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlplatform.prediction.errors import PredictionInputError

PHOTOS_PER_PIECE = 256
_PHOTOS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")


@dataclass(frozen=True)
class Piece:
    """Some records that are read together.

    Attributes:
        form: `photos`, `parquet` or `examples`.
        files: Absolute paths: photos, or one file of many records.
        root: Folder that the keys of photos begin at.
    """

    form: Literal["photos", "parquet", "examples"]
    files: tuple[str, ...]
    root: str = ""


def pieces(place: str | os.PathLike[str]) -> list[Piece]:
    """Return the records at a place in pieces, always the same ones.

    Args:
        place: A Parquet file, a TFRecord file of Examples, a folder of such files, or a folder of photos at
            any depth. Files whose names begin with a dot are left out.

    Raises:
        PredictionInputError: It is none of these, or empty.
    """
    path = Path(place).absolute()
    if path.is_file():
        return [_piece(path)]
    if not path.is_dir():
        raise PredictionInputError(str(place), "there is no such file or folder")
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    photos = [str(file) for file in files if file.suffix.lower() in _PHOTOS]
    if photos:
        return [
            Piece("photos", tuple(photos[begin : begin + PHOTOS_PER_PIECE]), str(path))
            for begin in range(0, len(photos), PHOTOS_PER_PIECE)
        ]
    if not files:
        raise PredictionInputError(str(place), "the folder holds no files")
    return [_piece(file) for file in files]


def _piece(file: Path) -> Piece:
    if file.suffix.lower() in _PHOTOS:
        return Piece("photos", (str(file),), str(file.parent))
    return Piece("parquet" if file.suffix == ".parquet" else "examples", (str(file),))
