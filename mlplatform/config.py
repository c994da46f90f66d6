"""Typed configuration: a mapping becomes an object once, at the edge.

A wrong key, type or value is one `ConfigError` that names the place, what was found and, for a misspelt key,
the key that was meant.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from mlplatform.config_file import ConfigError


class Config(BaseModel):
    """Base of every configuration block: unknown keys are errors, numbers are finite, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, protected_namespaces=()
    )


ConfigType = TypeVar("ConfigType", bound=BaseModel)


def parse_config(kind: type[ConfigType], values: Mapping[str, Any], *, source: str) -> ConfigType:
    """Return `values` as a `kind`.

    Raises:
        ConfigError: A key is unknown, or a value does not fit; all of them are named.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(source, [_problem(kind, dict(found)) for found in error.errors()]) from None


def check_config(
    kind: type[BaseModel], values: Mapping[str, Any], *, source: str, later: Collection[str]
) -> None:
    """Check those of `values` that are known already.

    Args:
        kind: What all the values will be parsed as.
        values: The values.
        source: Where they come from, for the error.
        later: Names of the values that are known only when the pipeline runs.

    Raises:
        ConfigError: A key is unknown, or a known value does not fit; all of them are named.
    """
    try:
        kind.model_validate({name: value for name, value in values.items() if name not in later})
    except ValidationError as error:
        problems = [
            _problem(kind, dict(found))
            for found in error.errors()
            if not (found["type"] == "missing" and found["loc"][0] in later)
        ]
        if problems:
            raise ConfigError(source, problems) from None


def _problem(kind: type[BaseModel], found: dict[str, Any]) -> str:
    place = [str(part) for part in found["loc"]]
    name = ".".join(place)
    if found["type"] == "extra_forbidden":
        known = _keys_at(kind, place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1)
        remedy = (
            f"did you mean {'.'.join([*place[:-1], near[0]])!r}?" if near else f"known are {', '.join(known)}"
        )
        return f"unknown key {name!r}; {remedy}"
    if found["type"] == "missing":
        return f"key {name!r} is missing"
    what = str(found["msg"]).removeprefix("Value error, ")
    return f"{name} is {found['input']!r}: {what}" if name else what


def _keys_at(kind: type[BaseModel], place: Sequence[str]) -> list[str]:
    """Return the keys of the block at a place, within blocks, and lists and mappings of blocks."""
    inner: Any = kind
    for part in place:
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            field = inner.model_fields.get(part)
            inner = field.annotation if field else None
        elif get_origin(inner) in (dict, list, Sequence):
            inner = get_args(inner)[-1]
        if get_origin(inner) in (Union, UnionType):  # such as a block that may be missing
            inner = next((each for each in get_args(inner) if each is not type(None)), None)
    return sorted(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else []
