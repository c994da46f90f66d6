"""Typed reading of the store's JSON: who reads a store made by others trusts no field of it.

Every field is checked when it is read, so that no name leads out of the store or the target, and no number
asks for memory that its records do not need.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from mlplatform.storage.errors import CorruptStoreError

MOST = 2**62  # of any count: sums of some of them stay below 2**63
DIGEST = re.compile("[0-9a-f]{64}")
NAME_32 = re.compile("[0-9a-f]{32}")  # of a pack, and of a record
_SHOWN = 80  # characters of a wrong value that an error repeats
# A folder or file on every local file system, with `Split-` before it or `.parquet` behind it.
_SPLIT = re.compile(r"[^/\x00-\x1f\x7f]{1,200}")

Item = TypeVar("Item")


def is_split_name(name: str) -> bool:
    """Return whether a split's name is one part of a path, and nothing that a terminal would obey."""
    return bool(_SPLIT.fullmatch(name)) and name not in (".", "..") and _is_text(name)


class Fields:
    """An object of a JSON document; each method reads a field, or raises CorruptStoreError that names it.

    Attributes:
        path: The file, for errors.
    """

    def __init__(self, value: object, path: str, place: str = "") -> None:
        self.path, self._place = path, place
        if not isinstance(value, dict):
            raise CorruptStoreError(path, f"{self._named('')} is {_shown(value)}, not an object")
        self._values: dict[str, object] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def value(self, name: str) -> object:
        """Return a field as it is."""
        if name not in self._values:
            raise CorruptStoreError(self.path, f"{self._named(name)} is missing")
        return self._values[name]

    def text(self, name: str, pattern: "re.Pattern[str] | None" = None) -> str:
        """Return a field that holds text, all of it as the pattern wants it."""
        value = self.value(name)
        if not isinstance(value, str) or not _is_text(value):
            raise self.wrong(name, "text")
        if pattern is not None and not pattern.fullmatch(value):
            raise self.wrong(name, f"of the form {pattern.pattern}")
        return value

    def count(self, name: str, least: int = 0, most: int = MOST) -> int:
        """Return a field that holds a whole number within bounds."""
        value = self.value(name)
        if type(value) is not int or not least <= value <= most:  # a bool is an int, too
            raise self.wrong(name, f"a whole number from {least:,} to {most:,}")
        return value

    def flag(self, name: str) -> bool:
        """Return a field that is true or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def texts(self, name: str, pattern: "re.Pattern[str] | None" = None) -> list[str]:
        """Return a field that is a list of text."""
        value = self._list(name)
        names = {str(place): one for place, one in enumerate(value)}
        listed = Fields(names, self.path, self._named(name, is_quoted=False))
        return [listed.text(place, pattern) for place in names]

    def nested(self, name: str) -> "Fields":
        """Return a field that is an object."""
        return Fields(self.value(name), self.path, self._named(name, is_quoted=False))

    def nested_list(self, name: str) -> "list[Fields]":
        """Return a field that is a list of objects."""
        place = self._named(name, is_quoted=False)
        return [Fields(one, self.path, f"{place}.{number}") for number, one in enumerate(self._list(name))]

    def wrong(self, name: str, wanted: str) -> CorruptStoreError:
        """Return the error of a field that is not what it should be."""
        return CorruptStoreError(
            self.path, f"{self._named(name)} is {_shown(self._values.get(name))}, not {wanted}"
        )

    def _list(self, name: str) -> list[object]:
        value = self.value(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return value

    def _named(self, name: str, *, is_quoted: bool = True) -> str:
        whole = ".".join(part for part in (self._place, name) if part)
        if not is_quoted:
            return whole
        return f"its field {_shown(whole)}" if whole else "the document"


def unique(items: Iterable[str], path: str, what: str) -> None:
    """Check that nothing is named twice. Raises CorruptStoreError."""
    seen: set[str] = set()
    for item in items:
        if item in seen:
            raise CorruptStoreError(path, f"it has the {what} {_shown(item)} twice")
        seen.add(item)


def _is_text(value: str) -> bool:
    """Return whether text can be written: JSON can hold halves of characters, which no encoding has."""
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
