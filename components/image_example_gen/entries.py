"""The entries of a source, as a Beam collection: one for each photo that the source names.

Something that names a photo and cannot be followed (an empty class folder, a row without a label) is an entry
too, and a reject from the beginning: so in = out + rejects holds for all that the source holds.
"""

import fnmatch
import math
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam

from mlplatform.components.image_example_gen import files
from mlplatform.components.image_example_gen.columns import Kind, Typed, WrongTypeError, shown, typed
from mlplatform.components.image_example_gen.listing import ITEM_ID, LABEL, PATH, SPLIT, Row, read_listing

REJECTED = "rejected"
UNLABELLED = "unlabelled"  # reason of a photo that is left out, and is no fault of the source


@dataclass(frozen=True)
class Entry:
    """A photo that is to be read.

    Attributes:
        uri: Where its bytes are.
        path: The same, relative to the source.
        label: Class name.
        item_id: The item; empty where the photo itself is the item.
        split: The split that the source puts it in; None where a hash decides.
        split_key: What the hash is of; empty for the item.
        columns: Further features.
        further_labels: Other class names that are right as well.
        label_feature: The feature that holds the class names.
    """

    uri: str
    path: str
    label: str
    item_id: str = ""
    split: str | None = None
    split_key: str = ""
    columns: dict[str, Typed] = field(default_factory=dict)
    further_labels: tuple[str, ...] = ()
    label_feature: str = LABEL


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
    for uri in files.matching(input_base, folder_pattern):
        path = posixpath.relpath(uri, input_base)
        if not posixpath.basename(path).startswith(".") and files.is_folder(uri):
            found.append(ClassFolder(uri, path, name_pattern, split))
    return found


class ListFolder(beam.DoFn):
    """A class folder becomes its entries; the folder's name is the label."""

    def __init__(self, labels: Iterable[str] | None, split_by: str) -> None:
        self._labels = None if labels is None else frozenset(labels)
        self._is_split_by_label = split_by == LABEL

    def process(self, folder: ClassFolder) -> Iterator[Any]:
        label = posixpath.basename(folder.path)
        try:
            names = files.names_in(folder.uri)
        except OSError as error:
            yield _rejected(Reject(files.shown(folder.path), "unreadable_file", str(error.strerror)))
            return
        names = [n for n in names if not n.startswith(".") and fnmatch.fnmatchcase(n, folder.name_pattern)]
        if not names:
            yield _rejected(
                Reject(
                    files.shown(folder.path),
                    "empty_class_folder",
                    "it holds no photos",
                    label=files.shown(label),
                )
            )
        for name in names:
            yield self._entry(folder, posixpath.join(folder.path, name), label, name)

    def _entry(self, folder: ClassFolder, path: str, label: str, name: str) -> Any:
        if not files.is_text(path):
            return _rejected(
                Reject(files.shown(path), "unreadable_name", "its name is not UTF-8", "", files.shown(label))
            )
        wrong = _wrong_label(label, self._labels)
        if wrong:
            return _rejected(Reject(path, *wrong, "", label))
        return Entry(
            posixpath.join(folder.uri, name),
            path,
            label,
            split=folder.split,
            split_key=label if self._is_split_by_label else "",
            columns={PATH: [path.encode()]},
        )


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

    def __init__(
        self,
        folder: str,
        labels: Iterable[str] | None,
        splits: Iterable[str] | None,
        split_by: str,
        kinds: Mapping[str, Kind],
        label_feature: str = LABEL,
        also_feature: str | None = None,
        *,
        leave_out_unlabelled: bool = False,
    ) -> None:
        self._folder = folder  # that the listing's paths are relative to
        self._labels = None if labels is None else frozenset(labels)
        self._splits = None if splits is None else frozenset(splits)
        self._split_by, self._kinds = split_by, dict(kinds)
        self._label, self._also = label_feature, also_feature
        self._no_label = UNLABELLED if leave_out_unlabelled else "missing_label"

    def process(self, item: tuple[str, Iterable[tuple[int, Row | str]]]) -> Iterator[Any]:
        item_id, numbered = item
        (number, first), *others = sorted(numbered, key=lambda pair: pair[0])
        yield self._followed(item_id, number, first)
        for other, row in others:
            path = _text(row.get(PATH)) if isinstance(row, dict) else ""
            detail = f"row {other} repeats the item id of row {number}"
            yield _rejected(Reject(path, "duplicate_item_id", detail, item_id, self._labels_of(row)[0]))

    def _labels_of(self, row: Row | str) -> tuple[str, ...]:
        """Return the class names of a row, the photo's own first; one empty text where it has none."""
        own = _texts(row.get(self._label)) if isinstance(row, dict) else []
        if not isinstance(row, dict) or not own:
            return ("",)
        more = _texts(row.get(self._also)) if self._also else []
        return tuple(dict.fromkeys([*own, *more]))

    def _followed(self, item_id: str, number: int, row: Row | str) -> Any:
        if isinstance(row, str):
            return _rejected(Reject("", "malformed_row", row))
        labels = self._labels_of(row)
        path, label = _text(row.get(PATH)), labels[0]
        own = {PATH, self._label, ITEM_ID} if self._splits is None else {PATH, self._label, ITEM_ID, SPLIT}
        owned = [PATH, ITEM_ID, self._split_by if self._splits is None else SPLIT]
        if self._label == LABEL:
            owned.append(LABEL)

        def reject(reason: str, detail: str) -> Any:
            return _rejected(Reject(path, reason, detail, item_id.replace("\x00", ""), label))

        for name in owned:
            if isinstance(row.get(name), list | tuple | dict):
                return reject("wrong_type", f"its {name} is {shown(row[name])}; it has to be one value")
        reserved = next((name for name in row if name.startswith("image/")), None)
        if reserved is not None:
            return reject(
                "malformed_row", f"row {number} has {reserved!r}, a name that photos need themselves"
            )
        if not path:
            return reject("missing_path", f"row {number} names no photo")
        if not label:
            return reject(self._no_label, f"row {number} has no {self._label}")
        for name in labels:
            wrong = _wrong_label(name, self._labels)
            if wrong:
                return reject(*wrong)
        if posixpath.isabs(path) or "://" in path or posixpath.normpath(path).split("/")[0] == "..":
            return reject("outside_of_source", "paths are relative to the listing's folder and stay below it")
        split = _text(row.get(SPLIT)) if self._splits is not None else None
        if self._splits is not None and split not in self._splits:
            return reject("unknown_split", repr(split))
        split_key = item_id if self._split_by == ITEM_ID else _text(row.get(self._split_by))
        if split is None and not split_key:
            return reject("missing_split_key", f"its {self._split_by!r}, which decides the split, is empty")
        try:
            columns = typed({name: value for name, value in row.items() if name not in own}, self._kinds)
        except WrongTypeError as error:
            return reject("wrong_type", str(error))
        uri = posixpath.join(self._folder, path)
        return Entry(uri, path, label, item_id, split, split_key, columns, labels[1:], self._label)


def _wrong_label(label: str, known: frozenset[str] | None) -> tuple[str, str] | None:
    """Return reason and detail where a label cannot be a class."""
    if known is not None and label not in known:
        return "unknown_label", repr(label)
    if label != label.strip():
        return "bad_label", f"{label!r} begins or ends with blanks"
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in label):
        return "bad_label", f"{label!r} holds a line break or another control character"
    return None


def _rejected(reject: Reject) -> Any:
    return beam.pvalue.TaggedOutput(REJECTED, reject)


def _texts(value: Any) -> list[str]:
    """Return a value, or each of several, as text; empty ones are left out."""
    values = value if isinstance(value, list | tuple) else [value]
    texts = [v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else _text(v) for v in values]
    return [text for text in texts if text]


def _text(value: Any) -> str:
    """Return a value as text: empty where there is none, or more than one."""
    is_nothing = value is None or isinstance(value, list | tuple | dict)
    is_nothing = is_nothing or (isinstance(value, float) and math.isnan(value))
    return "" if is_nothing else str(value)
