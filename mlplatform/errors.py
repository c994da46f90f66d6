"""The errors of mlplatform: every one says what was asked, what was found, and what to do.

A subclass passes its facts to `super().__init__` and builds its text in `__str__`, so that it survives
pickling between processes. Exit codes are mapped from these classes at the edge (`mlplatform.cli`).
"""


class MlplatformError(Exception):
    """Base of every error that mlplatform raises on purpose (exit code 1)."""


class UsageError(MlplatformError):
    """What the caller asked for cannot be meant: a wrong name, key, value or path (exit code 2)."""


class GateError(MlplatformError):
    """A gate said no: data or a model did not pass its checks (exit code 3)."""


class MissingExtraError(MlplatformError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(package, extra, purpose)
        self.package, self.extra, self.purpose = package, extra, purpose

    def __str__(self) -> str:
        return (
            f"{self.purpose} needs the package {self.package!r}, which is not installed. "
            f"Install it with: pip install 'mlplatform[{self.extra}]'"
        )
