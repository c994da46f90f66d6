"""Configuration errors name the place, what was found, and what was meant."""

import random
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
        (b"model:\n  2024-01-01: 1", "line 2 has a key that is not text, a number or a truth value"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_yaml(file)


def test_aliases_merges_and_numbers_as_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("base: &b {x: 1}\nmore: {<<: *b, x: 2, 1: y, true: z}\nagain: [*b, *b]")
    values = read_yaml(file)
    assert values["more"] == {"x": 2, 1: "z"}  # Python: 1 == True
    assert values["again"] == [{"x": 1}, {"x": 1}]


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "\n".join(
    f"{name}: &{name} {{{', '.join(f'k{n}: *{before}' for n in range(9))}, <<: *{before}}}"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "aliases that multiply": (LAUGHS, "what begins in line 5 has more than 100,000 values, with its aliases"),
    "merges that multiply": (MERGES, "what begins in line 6 has more than 100,000 values"),
    "a list in itself": ("loop: &l [*l]", "what begins in line 1 holds itself"),
    "a mapping in itself": ("a: 1\nloop: &l {x: {y: *l}}", "what begins in line 2 holds itself"),
    "merged with itself": ("a: &a {<<: *a}", "holds itself"),
    "200 levels": ("a: " + "[" * 200 + "]" * 200, "within more than 100 others"),
    "5,000 levels": ("a: " + "[" * 5000 + "]" * 5000, "within more than 100 others"),
    "5,000 levels without end": ("a: " + "{x: " * 5000, "within more than 100 others|it is not YAML"),
    "a number that is none": ("a: !!int ''", "a value is not what its tag says"),
    "a truth value that is none": ("a: !!bool maybe", "a value is not what its tag says"),
    "a program": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "a number of 9,000 digits": ("a: " + "9" * 9000, "Exceeds the limit"),
    "two documents": ("a: 1\n---\nb: 2", "expected a single document"),
    "NUL": ("a: \0", "special characters are not allowed"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_clear_error(name: str, tmp_path: Path) -> None:
    text, says = HOSTILE[name]
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert len(str(caught.value)) < 1000


def test_ninety_levels_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: " + "[" * 90 + "]" * 90)
    assert read_yaml(tmp_path / "a.yaml")


PIECES = ["a: ", "b: ", "- ", "&x ", "*x", "<<: ", "[", "]", "{", "}", "? ", "!!int ", '"', "'", "|\n", "# "]
PIECES += [
    "\n",
    "  ",
    "\t",
    "---\n",
    ".inf",
    "1e999",
    "0o17",
    "2024-02-30",
    "!!binary x",
    "\x85",
    "\ud83d",
    "%TAG",
]


def _check_made_up(seed: int, count: int, folder: Path) -> None:
    random_ = random.Random(seed)
    read = refused = 0
    for _ in range(count):
        text = "".join(random_.choices(PIECES, k=random_.randrange(1, 25)))
        (folder / "a.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            values = read_yaml(folder / "a.yaml")
        except ConfigError:
            refused += 1
        else:
            assert all(isinstance(key, str) for key in values)
            read += 1
    assert read > 0
    assert refused > 0


def test_made_up_files_are_read_or_one_clear_error(tmp_path: Path) -> None:
    _check_made_up(1, 300, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_very_many_made_up_files_are_read_or_one_clear_error(seed: int, tmp_path: Path) -> None:
    _check_made_up(seed, 20_000, tmp_path)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_yaml(tmp_path / "a.yaml")
