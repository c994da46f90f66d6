"""Configuration errors name the place, what was found, and what was meant."""

from pathlib import Path

import pytest
from pydantic import Field

from mlplatform.config import Config, parse_config
from mlplatform.config_file import ConfigError, merged, read_yaml


class Training(Config):
    epochs: int = Field(default=3, ge=1)


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


def test_mappings_merge_and_values_replace() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 9}, "d": []}) == {
        "a": {"b": 9, "c": 2},
        "d": [],
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a: [1", "it is not YAML"), (b"- 1", "it holds a list"), (b"\xff\xfe", "it is not YAML")],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_yaml(file)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_yaml(tmp_path / "a.yaml")
