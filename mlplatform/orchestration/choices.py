"""The runners and the Beam engines that there are, each an import string; a team adds its own.

A choice is a name from the tables below, one that an installed distribution registers as an entry point in
the group `mlplatform.runners` or `mlplatform.engines`, or an import string, `package.module:name`.
"""

import importlib
import importlib.metadata
from dataclasses import dataclass, field
from typing import Any

from mlplatform.errors import UsageError


class UnknownChoiceError(UsageError):
    """There is no such runner or engine, or it cannot be imported."""

    def __init__(self, what: str, name: str, problem: str, known: list[str]) -> None:
        super().__init__(what, name, problem, known)
        self.what, self.name, self.problem, self.known = what, name, problem, known

    def __str__(self) -> str:
        return (
            f"{self.what} {self.name!r}: {self.problem}; there is {', '.join(self.known)}, or give an import "
            "string, package.module:name"
        )


@dataclass(frozen=True)
class Choices:
    """What one option chooses from.

    Attributes:
        what: What is chosen, as errors name it.
        group: The group of entry points.
        own: The choices of this package: name to import string.
    """

    what: str
    group: str
    own: dict[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return all names, of this package's choices first."""
        return [*self.own, *sorted(self._registered().keys() - self.own.keys())]

    def load(self, name: str) -> Any:
        """Import a choice.

        Args:
            name: A name, or an import string.

        Raises:
            UnknownChoiceError: It is unknown, or cannot be imported.
        """
        place = self.own.get(name) or (name if ":" in name else self._registered().get(name))
        if place is None:
            raise UnknownChoiceError(self.what, name, "there is none of this name", self.names())
        module, _, attribute = place.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UnknownChoiceError(self.what, name, str(error), self.names()) from error

    def _registered(self) -> dict[str, str]:
        return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=self.group)}


RUNNERS = Choices(
    "runner",
    "mlplatform.runners",
    {
        "local": "mlplatform.orchestration.local.runner:LocalRunner",
        "kubeflow": "mlplatform.orchestration.kubeflow.runner:KubeflowRunner",
    },
)
ENGINES = Choices(
    "engine",
    "mlplatform.engines",
    {
        name: f"mlplatform.beam.engines:{name}"
        for name in ("direct", "prism", "flink", "spark", "dataflow", "portable")
    },
)
