"""The entries of a source, as a Beam collection: one for each photo that the source names.

Something that names a photo and cannot be followed (an empty class folder, a row without a label) is an entry
too, and a reject from the beginning: so in = out + rejects holds for all that the source holds.
"""

import fnmatch
import glob
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from tfx.dsl.io import fileio

from mlplatform.components.image_example_gen.listing import ITEM_ID, LABEL, PATH, SPLIT, Row, read_listing

REJECTED = "rejected"


@dataclass(frozen=True)
class Entry:
    """A photo that is to be read.

    Attributes:
        uri: Where its bytes are.
        path: The same, relative to the source.
        label: Class name.
        item_id: The item.
        split: The split that the source puts it in; None where a hash decides.
        columns: Further columns of its row.
    """

    uri: str
    path: str
    label: str
    item_id: str
    split: str | None
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reject:
    """An entry that cannot be used.

    Attributes:
        path: File or folder, relative to the source.
        reason: Reason code.
        detail: What was found.
        item_id: The item, where it is known.
        label: Class name, where it is known.
    """

    path: str
    reason: str
    detail: str
    item_id: str = ""
    label: str = ""


@dataclass(frozen=True)
class ClassFolder:
    """A folder of photos of one class.

    Attributes:
        uri: The folder.
        path: The same, relative to the source.
        name_pattern: Which of its files are meant, such as `*`.
        split: The split that it belongs to; None where a hash decides.
    """

    uri: str
    path: str
    name_pattern: str
    split: str | None


def class_folders(input_base: str, pattern: str, split: str | None) -> list[ClassFolder]:
    """Return the class folders that a pattern such as `*/*` or `train/*/*` names, by their paths."""
    folder_pattern, name_pattern = posixpath.split(pattern)
    found = []
    for uri in sorted(fileio.glob(posixpath.join(glob.escape(input_base), folder_pattern))):
        path = posixpath.relpath(uri, input_base)
        if not posixpath.basename(path).startswith(".") and fileio.isdir(uri):
            found.append(ClassFolder(uri, path, name_pattern, split))
    return found


class ListFolder(beam.DoFn):
    """A class folder becomes its entries; the folder's name is the label."""

    def __init__(self, labels: Iterable[str] | None) -> None:
        self._labels = None if labels is None else frozenset(labels)

    def process(self, folder: ClassFolder) -> Iterator[Any]:
        label = posixpath.basename(folder.path)
        names = [name.rstrip("/") for name in fileio.listdir(folder.uri)]
        names = [n for n in names if not n.startswith(".") and fnmatch.fnmatchcase(n, folder.name_pattern)]
        if not names:
            yield _rejected(Reject(folder.path, "empty_class_folder", "it holds no photos", label=label))
        for name in sorted(names):
            path = posixpath.join(folder.path, name)
            if self._labels is not None and label not in self._labels:
                yield _rejected(Reject(path, "unknown_label", repr(label), path, label))
            else:
                yield Entry(posixpath.join(folder.uri, name), path, label, item_id=path, split=folder.split)


class ReadListing(beam.DoFn):
    """A listing becomes its rows, each with its number and item id, so that repeated ids can be grouped."""

    def process(self, listing: str) -> Iterator[tuple[str, tuple[int, Row | str]]]:
        for number, row in read_listing(listing):
            if isinstance(row, str):
                yield f"\x00row {number}", (number, row)
            else:
                item_id = _text(row.get(ITEM_ID)) or _text(row.get(PATH)) or f"\x00row {number}"
                yield item_id, (number, row)


class FollowRows(beam.DoFn):
    """The rows of one item become an entry: the first of them counts, the others are rejects."""

    def __init__(self, folder: str, labels: Iterable[str] | None, splits: Iterable[str] | None) -> None:
        self._folder = folder  # that the listing's paths are relative to
        self._labels = None if labels is None else frozenset(labels)
        self._splits = None if splits is None else frozenset(splits)

    def process(self, item: tuple[str, Iterable[tuple[int, Row | str]]]) -> Iterator[Any]:
        item_id, numbered = item
        (number, first), *others = sorted(numbered, key=lambda pair: pair[0])
        yield self._followed(item_id, number, first)
        for other, row in others:
            path = _text(row.get(PATH)) if isinstance(row, dict) else ""
            detail = f"row {other} repeats the item id of row {number}"
            yield _rejected(Reject(path, "duplicate_item_id", detail, item_id, _label(row)))

    def _followed(self, item_id: str, number: int, row: Row | str) -> Any:
        if isinstance(row, str):
            return _rejected(Reject("", "malformed_row", row))
        path, label = _text(row.get(PATH)), _label(row)

        def reject(reason: str, detail: str) -> Any:
            return _rejected(Reject(path, reason, detail, item_id.replace("\x00", ""), label))

        if not path:
            return reject("missing_path", f"row {number} names no photo")
        if not label:
            return reject("missing_label", f"row {number} has no label")
        if self._labels is not None and label not in self._labels:
            return reject("unknown_label", repr(label))
        if posixpath.isabs(path) or "://" in path or posixpath.normpath(path).startswith(".."):
            return reject("outside_of_source", "paths are relative to the listing's folder and stay below it")
        split = _text(row.get(SPLIT)) if self._splits is not None else None
        if self._splits is not None and split not in self._splits:
            return reject("unknown_split", repr(split))
        own = (PATH, LABEL, ITEM_ID, *((SPLIT,) if split else ()))
        columns = {name: value for name, value in row.items() if name not in own}
        return Entry(posixpath.join(self._folder, path), path, label, item_id, split, columns)


def _rejected(reject: Reject) -> Any:
    return beam.pvalue.TaggedOutput(REJECTED, reject)


def _label(row: Row | str) -> str:
    return _text(row.get(LABEL)) if isinstance(row, dict) else ""


def _text(value: Any) -> str:
    return "" if value is None else value.decode() if isinstance(value, bytes) else str(value)
