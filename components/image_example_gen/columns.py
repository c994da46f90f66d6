"""The further columns of a listing: of one type each, whatever single rows hold."""

import datetime
import decimal
import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

Kind = Literal["int", "float", "bytes"]
Typed: TypeAlias = list[int] | list[float] | list[bytes]


class WrongTypeError(ValueError):
    """A value is not a number that fits, in a column of numbers."""


class KindCounter:
    """Looks at rows, and then says of which type each column is."""

    def __init__(self) -> None:
        self._found: dict[str, Counter[Kind]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Look at a row."""
        for name, value in row.items():
            kind: Kind | None = "bytes" if isinstance(value, str) and value else _kind(_values(value))
            if kind is not None:
                self._found.setdefault(name, Counter())[kind] += 1

    def kinds(self) -> dict[str, Kind]:
        """Return the type of each column that has a value.

        A column is one of numbers where most of its values are: whole ones (`int`) where all of these are.
        """
        return {name: _most(found) for name, found in self._found.items()}


def typed(row: Mapping[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Typed]:
    """Return the values of a row as features.

    Args:
        row: Numbers, truth values, text, bytes, dates, or lists of them, by column; None, NaN, empty text and
            empty lists are left out.
        kinds: The type of each column. In a column of text everything is written as text.

    Raises:
        WrongTypeError: A value is not a number, and its column is one of numbers.
    """
    features: dict[str, Typed] = {}
    for name, value in row.items():
        values = _values(value)
        if not values:
            continue
        kind = kinds[name]
        if kind == "bytes":
            features[name] = [_as_bytes(v) for v in values]
        elif _kind(values) == "bytes":
            raise WrongTypeError(f"{name!r} is {shown(value)}, and most of that column are numbers")
        else:
            try:
                features[name] = [int(v) for v in values] if kind == "int" else [float(v) for v in values]
            except (OverflowError, ValueError) as error:  # 10**400, a signalling NaN
                raise WrongTypeError(f"{name!r} is {shown(value)}: {error}") from error
    return features


def _values(value: Any) -> list[Any]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [v for v in values if v is not None and v != "" and not (isinstance(v, float) and math.isnan(v))]


def _kind(values: list[Any]) -> Kind | None:
    if not values:
        return None
    if all(isinstance(v, int) and -(2**63) <= v < 2**63 for v in values):
        return "int"
    return "float" if all(isinstance(v, int | float | decimal.Decimal) for v in values) else "bytes"


def _most(found: Counter[Kind]) -> Kind:
    if found["bytes"] >= found["int"] + found["float"]:
        return "bytes"
    return "float" if found["float"] else "int"


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat().encode()
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, default=str).encode()
    return str(value).encode()


def shown(value: Any) -> str:
    """Return a value as short text."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
