"""Every error of the store survives the way between processes and says what was found and what to do."""

import inspect
import pickle
from collections.abc import Sequence
from typing import Any, get_type_hints

import pytest

from mlplatform.datasets import errors
from mlplatform.errors import MlplatformError

CLASSES = [
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, MlplatformError) and one.__module__ == errors.__name__
]


def samples(error: type[MlplatformError]) -> list[Any]:
    """Return an argument for each parameter: its name where it is text."""
    hints = get_type_hints(error.__init__)
    names = list(inspect.signature(error).parameters)
    return [
        7
        if hints[name] in (int, int | None)
        else [f"{name}-1", f"{name}-2"]
        if hints[name] == Sequence[str]
        else f"<{name}>"
        for name in names
    ]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_it_survives_pickling_and_its_text_is_whole(error: type[MlplatformError]) -> None:
    arguments = samples(error)
    one = error(*arguments)
    copy = pickle.loads(pickle.dumps(one))
    assert type(copy) is error
    assert vars(copy) == vars(one)
    assert str(copy) == str(one)
    assert len(str(one)) > 40
    assert str(one).rstrip().endswith((".", ")", "EXAMPLES_DIR", "log <dataset>", "--key FEATURE."))


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_its_facts_are_attributes_and_in_its_text(error: type[MlplatformError]) -> None:
    arguments = samples(error)
    one = error(*arguments)
    text = str(one)
    for name, value in zip(inspect.signature(error).parameters, arguments, strict=True):
        assert getattr(one, name) == value
        if isinstance(value, str):
            assert value in text, name
