"""Configuration as it is written: YAML files, and values on top of them. Types are `mlplatform.config`'s."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlplatform.errors import UsageError

DEEPEST = 100  # lists and mappings within each other
MOST_VALUES = (
    100_000  # of a document, what aliases repeat counted each time; so no few lines become gigabytes
)
_KEY_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "merge")}


class ConfigError(UsageError):
    """A configuration does not fit.

    Attributes:
        source: Where the configuration came from: a file, or the command line.
        problems: One sentence for each thing that is wrong.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__(source, problems)
        self.source, self.problems = source, problems

    def __str__(self) -> str:
        return f"configuration of {self.source}: " + "; ".join(self.problems)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: The file cannot be read, is no YAML, or holds no mapping.
    """
    try:
        values = parse_yaml(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [f"cannot read it: {error.strerror or error}"]) from error
    except ValueError as error:  # of the bytes, too
        raise ConfigError(str(path), [f"it is not YAML: {error}"]) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(str(path), [f"it holds a {type(values).__name__}, not keys and values"])
    if odd := [key for key in values if not isinstance(key, str)]:
        raise ConfigError(str(path), [f"its key {key!r} is no name" for key in odd])
    return values


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document.

    Raises:
        ValueError: It is not YAML, a value is none of its type (such as a 13th month), a mapping has a key
            twice, or one that is neither text, a number nor a truth value; something holds itself; it has
            more than `DEEPEST` levels, or more than `MOST_VALUES` values with what its aliases repeat.
    """
    import yaml

    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None:
            _check(node, {}, [])
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (LookupError, TypeError, AttributeError) as error:  # `!!int` and `!!bool` of other text
        raise ValueError(f"a value is not what its tag says ({type(error).__name__}: {error})") from error
    except RecursionError:  # the parser itself calls itself for each level
        raise ValueError(f"it has lists or mappings within more than {DEEPEST} others") from None


def _check(node: Any, counted: dict[int, int], around: list[int]) -> int:
    """See that a part of a composed document is sound; return how many values it stands for.

    Args:
        node: The part.
        counted: The values of each part that was looked at: what an alias names is looked at once.
        around: The parts that this one is within.
    """
    line = node.start_mark.line + 1
    if id(node) in around:
        raise ValueError(f"what begins in line {line} holds itself, by an alias")
    if id(node) not in counted:
        if len(around) == DEEPEST:
            raise ValueError(f"line {line} has lists or mappings within more than {DEEPEST} others")
        inner = [*around, id(node)]
        count = 1 + sum(_check(part, counted, inner) for part in _parts(node))
        if count > MOST_VALUES:
            raise ValueError(
                f"what begins in line {line} has more than {MOST_VALUES:,} values, with its aliases"
            )
        counted[id(node)] = count
    return counted[id(node)]


def _parts(node: Any) -> list[Any]:
    """Return the values within a list or mapping, whose keys are plain, each once."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    met: set[tuple[str, str]] = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.tag not in _KEY_TAGS:
            raise ValueError(f"line {line} has a key that is not text, a number or a truth value")
        if (key.tag, key.value) in met:
            raise ValueError(f"line {line} has the key {key.value!r} again")
        met.add((key.tag, key.value))
    return [value for _, value in node.value]


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` on top; mappings within are merged, all else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
