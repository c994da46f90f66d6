"""Configuration as it is written: YAML files, and values on top of them. Types are `mlplatform.config`'s."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlplatform.errors import UsageError


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
    import yaml

    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [f"cannot read it: {error.strerror or error}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"it is not YAML: {' '.join(str(error).split())}"]) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(str(path), [f"it holds a {type(values).__name__}, not keys and values"])
    return values


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` on top; mappings within are merged, all else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
