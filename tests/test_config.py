"""Configuration errors name the place, what was found, and what was meant."""

from pathlib import Path

import pytest
from pydantic import Field

from mlplatform.config import Config, parse_config
from mlplatform.config_file import ConfigError, merged, read_yaml


class Training(Config):
    epochs: int = Field(default=3, ge=1)


class Limited(Config):
    limit_s: float


class Whole(Config):
    name: str
    training: Training = Training()


def test_a_misspelt_key_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Whole, {"name": "x", "training": {"epoch": 3}}, source="a.yaml")
    assert str(caught.value) == (
        "configuration of a.yaml: unknown key 'training.epoch'; did you mean 'training.epochs'?"
    )


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Whole, {"zzz": 1, "training": {"epochs": 0}}, source="a.yaml")
    text = str(caught.value)
    assert "key 'name' is missing" in text
    assert "training.epochs is 0" in text
    assert "unknown key 'zzz'; known are name, training" in text


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_numbers_are_finite(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"limit_s: {value}\n")
    with pytest.raises(ConfigError, match=r"limit_s is .*: Input should be a finite number"):
        parse_config(Limited, read_yaml(tmp_path / "a.yaml"), source="a.yaml")


def test_mappings_merge_and_values_replace() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 9}, "d": []}) == {
        "a": {"b": 9, "c": 2},
        "d": [],
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [1", "it is not YAML"),
        (b"- 1", "it holds a list"),
        (b"\xff\xfe", "it is not YAML"),
        (b"split: 2024-13-45", "it is not YAML: month must be in 1..12"),
        (b"1: x", "its key 1 is no name"),
        (b"a: 1\nmodel: {epochs: 3}\nmodel: {seed: 4}", "line 3 has the key 'model' again"),
        (b"model:\n  2024-01-01: 1", "line 2 has a key that is no text, number or truth value"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_yaml(file)


def test_aliases_merges_and_numbers_as_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("base: &b {x: 1}\nmore: {<<: *b, x: 2, 1: y, true: z}\nloop: &l [*l]")
    values = read_yaml(file)
    assert values["more"] == {"x": 2, 1: "z"}  # Python: 1 == True
    assert values["loop"][0] is values["loop"]


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_yaml(tmp_path / "a.yaml")
