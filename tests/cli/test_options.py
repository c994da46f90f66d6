"""What commands share: one JSON document that every reader of JSON takes."""

import json
from pathlib import Path

import pytest

from mlplatform.cli.options import echo_json


def refuse(token: str) -> None:
    raise AssertionError(f"{token} is no JSON")


def test_numbers_that_json_does_not_have_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    nan, infinity = float("nan"), float("inf")
    echo_json({"a": [nan, 1.5, (infinity,)], "b": {"c": -infinity, "d": None}, "e": Path("x")})
    assert json.loads(capsys.readouterr().out, parse_constant=refuse) == {
        "a": ["NaN", 1.5, ["Infinity"]],
        "b": {"c": "-Infinity", "d": None},
        "e": "x",
    }
