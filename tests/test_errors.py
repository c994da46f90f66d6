"""Every error of the library: it survives pickling and copying, and making its text reads nothing."""

import copy
import importlib
import inspect
import pickle
import pkgutil
import sys
import typing
from collections.abc import Iterator, Mapping
from datetime import date
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any

import pydantic
import pytest

import mlplatform
from mlplatform.errors import MlplatformError

VALUES: dict[Any, Any] = {
    str: "text", int: 3, float: 0.5, bool: True, bytes: b"bytes", Path: Path("/nowhere/file"),
    date: date(2026, 1, 2), object: "thing", Any: "anything", type(None): None,
    Exception: ValueError("cause"), BaseException: ValueError("cause"),
}  # fmt: skip

_opened: list[str] = []
_is_watching = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _is_watching and event in ("open", "os.listdir", "os.scandir", "socket.connect", "subprocess.Popen"):
        _opened.append(f"{event} {arguments[0]}")


sys.addaudithook(_watch)


def classes() -> list[type[MlplatformError]]:
    """Every error class of the modules that can be imported here."""
    for module in pkgutil.walk_packages(mlplatform.__path__, "mlplatform.", onerror=lambda _: None):
        if not module.name.startswith("mlplatform.demo") and "__main__" not in module.name:
            try:
                importlib.import_module(module.name)
            except ImportError:  # an extra that is not installed
                continue
    return sorted(set(_below(MlplatformError)), key=lambda found: (found.__module__, found.__name__))


def _below(base: type[MlplatformError]) -> Iterator[type[MlplatformError]]:
    for found in base.__subclasses__():
        if found.__module__.startswith("mlplatform."):
            yield found
        yield from _below(found)


def made_up(annotation: Any) -> Any:
    """Return some value of an annotated type."""
    if annotation in VALUES:
        return VALUES[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, UnionType):
        return made_up(next((a for a in arguments if a is not type(None)), arguments[0]))
    if origin is typing.Literal:
        return arguments[0]
    if origin is tuple:
        kinds = [kind for kind in arguments if kind is not ...]
        return tuple(made_up(kind) for kind in kinds)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {made_up(arguments[0]): made_up(arguments[1])}
    if origin is not None:
        return [made_up(arguments[0])]
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return next(iter(annotation))
    if inspect.isclass(annotation) and issubclass(annotation, BaseException):
        return instance(annotation)
    if inspect.isclass(annotation):
        return instance(annotation)
    raise TypeError(f"no value is known for {annotation!r}")


def instance(kind: type[Any]) -> Any:
    """Return an object made of made-up arguments."""
    if kind.__init__ is Exception.__init__:
        return kind("text")
    parameters = inspect.signature(kind).parameters.values()
    hints = typing.get_type_hints(kind if issubclass(kind, pydantic.BaseModel) else kind.__init__)
    by_place, by_name = [], {}
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        is_one_of_some = isinstance(parameter.default, str) and parameter.default  # such as an option's name
        value = parameter.default if is_one_of_some else made_up(hints.get(parameter.name, str))
        if parameter.kind is parameter.KEYWORD_ONLY:
            by_name[parameter.name] = value
        else:
            by_place.append(value)
    return kind(*by_place, **by_name)


def facts(error: MlplatformError) -> dict[str, str]:
    """Return its fields, as texts: causes are not equal to their copies."""
    return {name: repr(value) for name, value in vars(error).items()}


@pytest.mark.parametrize("kind", classes(), ids=lambda found: f"{found.__module__}.{found.__name__}")
def test_an_error_survives_and_reads_nothing(kind: type[MlplatformError]) -> None:
    global _is_watching
    error = instance(kind)
    assert str(error)  # what it imports is imported now
    _opened.clear()
    _is_watching = True
    try:
        text = str(error)
    finally:
        _is_watching = False
    assert not _opened
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == text
        assert facts(again) == facts(error)
    if not kind.__module__.startswith("mlplatform.cli"):
        assert " --" not in f" {text}", "the library names settings, the command line its flags"
