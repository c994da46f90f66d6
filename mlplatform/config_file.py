"""Configuration as it is written: YAML files, and values on top of them. Types are `mlplatform.config`'s."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlplatform.errors import UsageError

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
        ValueError: It is no YAML, a value is none of its type (such as a 13th month), a mapping has a key
            twice, or one that is neither text, a number nor a truth value.
    """
    import yaml

    try:
        _check_keys(yaml.compose(text, yaml.SafeLoader), set())
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _check_keys(node: Any, met: set[int]) -> None:
    """See that each mapping of a composed document has plain keys, each once."""
    import yaml

    if id(node) in met:  # an alias may lead back
        return
    met.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            _check_keys(entry, met)
    elif isinstance(node, yaml.MappingNode):
        keys = [(key.tag, key.value) for key, _ in node.value]
        for place, (key, value) in enumerate(node.value):
            line = key.start_mark.line + 1
            if key.tag not in _KEY_TAGS:
                raise ValueError(f"line {line} has a key that is no text, number or truth value")
            if keys[place] in keys[:place]:
                raise ValueError(f"line {line} has the key {key.value!r} again")
            _check_keys(value, met)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` on top; mappings within are merged, all else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
