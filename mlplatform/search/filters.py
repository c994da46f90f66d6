"""Filters of a search: a small JSON object, and which entries pass it.

    {"label": ["dress", "skirt"], "price": [0, 50], "not": ["item-7"]}

Every condition must hold. A column of texts takes a list of values (or one); one of numbers a value, or a
pair of its least and largest value, either of which may be null. `not` names items that are left out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.search.errors import FilterError

Array = NDArray[Any]
NOT = "not"
MAX_BYTES = 64 << 10


@dataclass(frozen=True)
class FilterValues:
    """A column in memory.

    Attributes:
        kind: `text`, `int` or `float`.
        values: int32 codes of texts (-1 for none), int64 (the least one for none) or float64 (NaN for none).
        dictionary: The texts by their codes.
    """

    kind: str
    values: Array
    dictionary: Sequence[str] = ()

    def at(self, place: int) -> str | int | float | None:
        """Return a value; None where there is none."""
        value = self.values[place].item()
        if self.kind == "text":
            return self.dictionary[value] if value >= 0 else None
        is_missing = value == NO_INT if self.kind == "int" else math.isnan(value)
        return None if is_missing else value


NO_INT = np.iinfo(np.int64).min


def column_of(values: Sequence[str | int | float | None]) -> FilterValues:
    """Return values as a column: of texts where one is a text, else of numbers."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        texts = [None if value is None else str(value) for value in values]
        dictionary = sorted({text for text in texts if text is not None})
        place = {text: number for number, text in enumerate(dictionary)}
        codes = [-1 if text is None else place[text] for text in texts]
        return FilterValues("text", np.array(codes, np.int32), dictionary)
    if all(isinstance(value, int) for value in known) and known:
        return FilterValues("int", np.array([NO_INT if v is None else v for v in values], np.int64))
    return FilterValues("float", np.array([math.nan if v is None else v for v in values], np.float64))


@dataclass(frozen=True)
class Filter:
    """What items must be like.

    Attributes:
        text: The filter as it was given.
        conditions: By column: values that it may have, or (least, largest).
        excluded: Ids of items that are left out.
    """

    text: str
    conditions: Mapping[str, Any]
    excluded: frozenset[str]

    def passing(self, columns: Mapping[str, FilterValues], entries: int) -> Array | None:
        """Return which entries pass the conditions, bool (entries,); None where all do.

        Raises:
            FilterError: A column is unknown, or a value is not of its kind.
        """
        passes: Array | None = None
        for name, wanted in self.conditions.items():
            column = columns.get(name)
            if column is None:
                known = ", ".join(sorted(columns)) or "none"
                raise FilterError(self.text, f"the index has no column {name!r}; it has {known}")
            part = (
                self._text(name, column, wanted)
                if column.kind == "text"
                else self._number(name, column, wanted)
            )
            passes = part if passes is None else passes & part
        if passes is not None and passes.shape != (entries,):
            raise FilterError(self.text, f"its columns have {len(passes)} values for {entries} entries")
        return passes

    def _text(self, name: str, column: FilterValues, wanted: Any) -> Array:
        values = wanted if isinstance(wanted, list) else [wanted]
        if not all(isinstance(value, str) for value in values):
            raise FilterError(self.text, f"column {name!r} holds texts, and {wanted!r} are none")
        codes = [code for code, text in enumerate(column.dictionary) if text in values]
        return np.isin(column.values, np.array(codes, np.int32))

    def _number(self, name: str, column: FilterValues, wanted: Any) -> Array:
        values, has = column.values, self._has(column)
        if isinstance(wanted, list) and len(wanted) == 2 and not any(isinstance(v, str) for v in wanted):
            low, high = (self._parsed(name, value) if value is not None else None for value in wanted)
            passes = has
            if low is not None:
                passes = passes & (values >= low)
            if high is not None:
                passes = passes & (values <= high)
            return np.asarray(passes)
        numbers = [self._parsed(name, v) for v in (wanted if isinstance(wanted, list) else [wanted])]
        return np.asarray(has & np.isin(values, numbers))

    def _has(self, column: FilterValues) -> Array:
        return np.asarray(column.values != NO_INT if column.kind == "int" else ~np.isnan(column.values))

    def _parsed(self, name: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number):
            raise FilterError(self.text, f"column {name!r} holds numbers, and {value!r} is none")
        return number


def parse_filter(text: str) -> Filter | None:
    """Return the filter that a text means; None where it is empty.

    Raises:
        FilterError: It is not a JSON object of conditions.
    """
    if not text:
        return None
    if len(text) > MAX_BYTES:
        raise FilterError(text, f"it is longer than {MAX_BYTES} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FilterError(text, f"it is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise FilterError(text, "it is not a JSON object")
    excluded = document.pop(NOT, [])
    if not isinstance(excluded, list) or not all(isinstance(item, str) for item in excluded):
        raise FilterError(text, f"{NOT!r} is a list of item ids")
    for name, wanted in document.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        if not values or not all(isinstance(v, str | int | float | None) for v in values):
            raise FilterError(text, f"column {name!r} takes a value or a list of values, not {wanted!r}")
    return Filter(text, document, frozenset(excluded))
