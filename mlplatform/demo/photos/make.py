"""Draws a set of photos into a folder, with its listing."""

import csv
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from mlplatform.demo.photos.catalogue import CATEGORIES, COLOURS
from mlplatform.demo.photos.faults import FILE_FAULTS, PHOTOS_FOLDER, Planted, Row, plant
from mlplatform.demo.photos.scene import DARK_SEASON, USUAL, Conditions, draw_photo, encode_jpeg
from mlplatform.errors import UsageError
from mlplatform.progress import track

DRIFT = "drift"  # a month with other light, other backgrounds and another mix of categories
FAULTS = (*FILE_FAULTS, DRIFT)
_PHOTOS_PER_SELLER = 8
_SMALLEST_PX, _LARGEST_PX = 32, 1024
_LARGEST_SEED = 2**63 - 1


class FolderNotEmptyError(UsageError):
    """Photos were to be drawn where something lies already."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"{self.folder} is there already, and not empty. Give the photos a folder of their own."


class PhotoRequestError(UsageError):
    """Photos of a kind were asked for that cannot be drawn."""

    def __init__(self, argument: str, value: object, known: str) -> None:
        super().__init__(argument, value, known)
        self.argument, self.value, self.known = argument, value, known

    def __str__(self) -> str:
        return f"{self.argument} is {self.value!r}; {self.known}."


def make_photos(
    out: str | os.PathLike[str],
    *,
    categories: int = 24,
    per_category: int = 60,
    unseen: int = 24,
    size_px: int = 112,
    seed: int = 1,
    faults: Sequence[str] = (),
) -> dict[str, Any]:
    """Draw item photos; the same arguments give the same bytes on the same Pillow version.

    Writes `out/photos/<category>/<item id>.jpg` with `out/listing.csv`, and `out/unseen/` with
    `out/unseen.csv`: photos that are in no listing, with their truth. With faults, `out/faults.csv` says what
    was put where. The folder appears in one step, when all of it is drawn.

    Args:
        out: Folder to make; must not be there, or be empty.
        categories: How many categories, 2 to 28.
        per_category: How many photos of each, at least 1.
        unseen: How many more photos, the categories in turn; 0 or more.
        size_px: Width and height, 32 to 1024 pixels.
        seed: Seeds everything; 0 or more.
        faults: Names of `FAULTS`. Each touches two percent of the photos, at least two while sound ones are
            left; `drift` changes all.

    Returns:
        What was made: `folder`, `listing`, `photos`, `unseen`, `categories` and, per fault, how often it was
        put in (`faults`). The unseen photos have no faults.

    Raises:
        FolderNotEmptyError: `out` holds something.
        PhotoRequestError: A number is out of range, or a fault has no such name.
    """
    _check(categories, per_category, unseen, size_px, seed, faults)
    target = Path(out).expanduser().absolute()
    names = list(CATEGORIES)[:categories]
    conditions = DARK_SEASON if DRIFT in faults else USUAL
    counts = _skewed(categories, per_category) if DRIFT in faults else [per_category] * categories
    shown = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    asked = [names[k % categories] for k in range(unseen)]
    with _made_aside(target) as folder, track("draw photos", total=len(shown) + unseen, unit="photos") as bar:
        rows, unseen_rows = [], []
        for row in _draw(folder, f"{PHOTOS_FOLDER}/{{label}}", shown, 0, size_px, seed, conditions):
            rows.append(row)
            bar.advance()
        for row in _draw(folder, "unseen", asked, 1, size_px, seed, USUAL):
            unseen_rows.append(row)
            bar.advance()
        planted = plant(folder, rows, faults, seed)
        _write_csv(folder / "listing.csv", Row, rows)
        _write_csv(folder / "unseen.csv", Row, unseen_rows)
        if planted:
            _write_csv(folder / "faults.csv", Planted, planted)
    found: dict[str, int] = {}
    for fault in planted:
        found[fault.fault] = found.get(fault.fault, 0) + 1
    return {
        "folder": str(target),
        "listing": str(target / "listing.csv"),
        "photos": len(rows),
        "unseen": len(unseen_rows),
        "categories": names,
        "faults": found,
    }


def _draw(
    folder: Path,
    where: str,
    labels: Sequence[str],
    stream: int,
    size_px: int,
    seed: int,
    conditions: Conditions,
) -> Iterator[Row]:
    """Draw one photo per label; each has its own source of chance, so that none depends on another."""
    colours = list(COLOURS)
    for number, label in enumerate(labels):
        rng = np.random.default_rng([seed, stream, number])
        color = colours[int(rng.integers(len(colours)))]
        item_id = f"{'unseen' if stream else 'item'}-{seed}-{number:05d}"
        path = f"{where.format(label=label)}/{item_id}.jpg"
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_jpeg(draw_photo(label, color, size_px, rng, conditions), rng))
        seller = int(rng.integers(max(1, len(labels) // _PHOTOS_PER_SELLER)))
        yield Row(path, item_id, f"seller-{seller:04d}", label, color)


def _skewed(categories: int, per_category: int) -> list[int]:
    """Return counts with about the same sum, the first category having the most, five times the last."""
    weights = np.geomspace(5, 1, categories)
    return [max(1, int(count)) for count in weights / weights.sum() * categories * per_category]


def _check(
    categories: int, per_category: int, unseen: int, size_px: int, seed: int, faults: Sequence[str]
) -> None:
    for argument, value, low, high in (
        ("categories", categories, 2, len(CATEGORIES)),
        ("per_category", per_category, 1, 100_000),
        ("unseen", unseen, 0, 100_000),
        ("size_px", size_px, _SMALLEST_PX, _LARGEST_PX),
        ("seed", seed, 0, _LARGEST_SEED),
    ):
        if not low <= value <= high:
            raise PhotoRequestError(argument, value, f"it goes from {low} to {high}")
    for fault in faults:
        if fault not in FAULTS:
            near = get_close_matches(fault, FAULTS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise PhotoRequestError("fault", fault, f"{hint}known are {', '.join(FAULTS)}")


@contextmanager
def _made_aside(target: Path) -> Iterator[Path]:
    """Give a folder beside `target` to fill; it becomes `target` in one step, or is removed on an error."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FolderNotEmptyError(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_csv(file: Path, kind: type[Row] | type[Planted], rows: Iterable[Row | Planted]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(kind)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
