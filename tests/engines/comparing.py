"""Compares what two engines found."""

from typing import Any

import pytest


def leaves(facts: Any, place: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    """Return what nested facts hold, by place."""
    parts = (
        facts.items() if isinstance(facts, dict) else enumerate(facts) if isinstance(facts, list) else None
    )
    if parts is None:
        return {place: facts}
    return {key: leaf for name, part in parts for key, leaf in leaves(part, (*place, name)).items()}


def assert_same(found: Any, expected: Any) -> None:
    """Numbers are within 1e-6: an engine adds them up in its own order."""
    there, here = leaves(found), leaves(expected)
    assert there.keys() == here.keys()
    numbers = {place for place, leaf in here.items() if isinstance(leaf, float)}
    assert {p: there[p] for p in there if p not in numbers} == {p: here[p] for p in here if p not in numbers}
    for place in numbers:
        assert there[place] == pytest.approx(here[place], rel=1e-6, abs=1e-9), place
