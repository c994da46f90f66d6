"""Faults to put into a set of photos: what sellers, phones and export jobs do to real ones."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS_FOLDER = "photos"  # holds a folder per category
EMPTY_CATEGORY = "unsold"  # the folder that `empty_folder` makes
_SHARE = 0.02  # of the photos that a fault touches


@dataclass(frozen=True)
class Row:
    """One line of a listing.

    Attributes:
        path: The photo, relative to the listing's folder.
        item_id: The item.
        seller_id: Who sells it.
        label: Its category.
        color: Its colour.
    """

    path: str
    item_id: str
    seller_id: str
    label: str
    color: str


@dataclass(frozen=True)
class Planted:
    """A fault that was put in.

    Attributes:
        fault: Its name.
        path: The photo or folder that has it, relative to the listing's folder.
        detail: What was done.
    """

    fault: str
    path: str
    detail: str


Fault = Callable[[Path, list[Row], np.random.Generator], list[Planted]]


def truncate(out: Path, rows: list[Row], rng: np.random.Generator) -> list[Planted]:
    """Cut files off after a third to nine tenths of their bytes."""
    planted = []
    for row in _chosen(rows, rng):
        file = out / row.path
        encoded = file.read_bytes()
        kept = int(len(encoded) * rng.uniform(0.33, 0.9))
        file.write_bytes(encoded[:kept])
        planted.append(Planted("truncated", row.path, f"{kept} of {len(encoded)} bytes"))
    return planted


def replace_by_text(out: Path, rows: list[Row], rng: np.random.Generator) -> list[Planted]:
    """Put the text of a web server's error page where a photo was."""
    planted = []
    for row in _chosen(rows, rng):
        (out / row.path).write_text("<html><body><h1>404 Not Found</h1></body></html>\n", "utf-8")
        planted.append(Planted("text", row.path, "an HTML page named .jpg"))
    return planted


def save_as_png(out: Path, rows: list[Row], rng: np.random.Generator) -> list[Planted]:
    """Store photos as PNG and leave them their name that ends in .jpg."""
    planted = []
    for row in _chosen(rows, rng):
        file = out / row.path
        Image.open(io.BytesIO(file.read_bytes())).save(file, "PNG")
        planted.append(Planted("wrong_extension", row.path, "PNG named .jpg"))
    return planted


def duplicate_exactly(out: Path, rows: list[Row], rng: np.random.Generator) -> list[Planted]:
    """List some photos once more, the same bytes under another item of another seller."""
    planted = []
    for row in _chosen(rows, rng):
        copy = _another(row, "copy")
        (out / copy.path).write_bytes((out / row.path).read_bytes())
        rows.append(copy)
        planted.append(Planted("exact_duplicate", copy.path, f"of {row.path}"))
    return planted


def duplicate_nearly(out: Path, rows: list[Row], rng: np.random.Generator) -> list[Planted]:
    """List some photos once more, cut by a few pixels and compressed again."""
    planted = []
    for row in _chosen(rows, rng):
        copy = _another(row, "near")
        photo = Image.open(io.BytesIO((out / row.path).read_bytes()))
        width, height = photo.size
        left, top = (int(value) for value in rng.integers(1, 5, 2))
        photo.crop((left, top, width - 2, height - 2)).save(out / copy.path, "JPEG", quality=60)
        rows.append(copy)
        planted.append(Planted("near_duplicate", copy.path, f"of {row.path}"))
    return planted


def mislabel(out: Path, rows: list[Row], rng: np.random.Generator) -> list[Planted]:
    """List some items under another category; their photos stay where they are."""
    labels = sorted(folder.name for folder in (out / PHOTOS_FOLDER).iterdir())
    planted = []
    for row in _chosen(rows, rng):
        wrong = labels[(labels.index(row.label) + int(rng.integers(1, len(labels)))) % len(labels)]
        rows[rows.index(row)] = replace(row, label=wrong)
        planted.append(Planted("wrong_label", row.path, f"{row.label} listed as {wrong}"))
    return planted


def leave_folder_empty(out: Path, rows: list[Row], rng: np.random.Generator) -> list[Planted]:  # noqa: ARG001
    """Make the folder of a category that has no photos."""
    folder = Path(PHOTOS_FOLDER) / EMPTY_CATEGORY
    (out / folder).mkdir()
    return [Planted("empty_folder", folder.as_posix(), "a category without photos")]


def lose_files(out: Path, rows: list[Row], rng: np.random.Generator) -> list[Planted]:
    """Remove photos that the listing still names."""
    planted = []
    for row in _chosen(rows, rng):
        (out / row.path).unlink()
        planted.append(Planted("missing_file", row.path, "listed, not there"))
    return planted


def repeat_ids(out: Path, rows: list[Row], rng: np.random.Generator) -> list[Planted]:  # noqa: ARG001
    """Give some items the id of the first item."""
    planted = []
    for row in _chosen(rows[1:], rng):
        rows[rows.index(row)] = replace(row, item_id=rows[0].item_id)
        planted.append(Planted("duplicate_id", row.path, f"{row.item_id} listed as {rows[0].item_id}"))
    return planted


# All take the same arguments. They are put in in this order: those that need a whole photo come before
# those that spoil it.
FILE_FAULTS: dict[str, Fault] = {
    "exact_duplicates": duplicate_exactly,
    "near_duplicates": duplicate_nearly,
    "wrong_labels": mislabel,
    "duplicate_ids": repeat_ids,
    "wrong_extensions": save_as_png,
    "truncated": truncate,
    "text": replace_by_text,
    "missing_files": lose_files,
    "empty_folder": leave_folder_empty,
}


def plant(out: Path, rows: list[Row], faults: Sequence[str], seed: int) -> list[Planted]:
    """Put faults into a set of photos. A photo gets one fault at most.

    Args:
        out: Folder that the paths of the rows are relative to; its photos are changed.
        rows: The listing; changed in place.
        faults: Names of `FILE_FAULTS`.
        seed: The same seed chooses the same photos.
    """
    planted: list[Planted] = []
    for number, (name, fault) in enumerate(FILE_FAULTS.items()):
        if name in faults:
            touched = {p.path for p in planted} | {p.detail.removeprefix("of ") for p in planted}
            sound = [row for row in rows if row.path not in touched]
            before = list(sound)
            planted += fault(out, sound, np.random.default_rng([seed, 2, number]))
            _merge(rows, before, sound)
    return planted


def _merge(rows: list[Row], before: Sequence[Row], after: Sequence[Row]) -> None:
    """Bring what a fault did to some of the rows into all of them."""
    changed = {old.path: new for old, new in zip(before, after, strict=False)}
    rows[:] = [changed.get(row.path, row) for row in rows] + list(after[len(before) :])


def _chosen(rows: Sequence[Row], rng: np.random.Generator) -> list[Row]:
    count = max(2, round(len(rows) * _SHARE))
    return [rows[k] for k in sorted(rng.choice(len(rows), min(count, len(rows)), replace=False))]


def _another(row: Row, word: str) -> Row:
    path = Path(row.path)
    seller = f"seller-{word}"
    return replace(
        row,
        path=path.with_stem(f"{path.stem}-{word}").as_posix(),
        item_id=f"{row.item_id}-{word}",
        seller_id=seller,
    )
