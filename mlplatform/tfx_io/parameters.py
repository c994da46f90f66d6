"""Parameters of components that are known only when the pipeline runs.

A `RuntimeParameter` gets its value with the run, a placeholder from an earlier node. Both are handed on as
they are: turned into text, they would become the value themselves.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from tfx.dsl.placeholder import placeholder
from tfx.orchestration.data_types import RuntimeParameter

from mlplatform.config_file import ConfigError

Late: TypeAlias = RuntimeParameter | placeholder.Placeholder


def is_late(value: object) -> bool:
    """Return whether a value is known only when the pipeline runs."""
    return isinstance(value, RuntimeParameter | placeholder.Placeholder)


def late_names(values: Mapping[str, object]) -> frozenset[str]:
    """Return the names of the values that are known only when the pipeline runs."""
    return frozenset(name for name, value in values.items() if is_late(value))


def converted(value: Any, convert: Callable[[Any], Any] = str) -> Any:
    """Return a value as the execution parameter wants it; None, and what is known only later, as they are.

    Args:
        value: The value.
        convert: Makes the execution parameter of it, such as `str` of a path, or `json.dumps` of a list.
    """
    return value if value is None or is_late(value) else convert(value)


def refuse_late(component: str, **values: object) -> None:
    """Check that values are known when the pipeline is composed.

    Raises:
        ConfigError: One is known only when the pipeline runs.
    """
    names = sorted(late_names(values))
    if names:
        problems = [
            f"{name} is known only when the pipeline runs; it decides what the pipeline is made of"
            for name in names
        ]
        raise ConfigError(component, problems)
