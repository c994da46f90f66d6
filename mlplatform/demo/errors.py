"""Errors of the demo of a pushed model."""

from mlplatform.errors import MlplatformError, UsageError


class WithdrawnVersionError(UsageError):
    """A version was rolled back, so that servers do not load it."""

    def __init__(self, model: str, version: int) -> None:
        super().__init__(model, version)
        self.model, self.version = model, version

    def __str__(self) -> str:
        return (
            f"{self.model}@{self.version} is withdrawn: nobody is served by it. Name another version, or "
            f"bring it back with: mlplatform models promote {self.model}@{self.version}"
        )


class PhotoError(UsageError):
    """What was given as a photo is none that a model can be shown."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


class FieldError(UsageError):
    """A value of a form cannot be what its field asks for."""

    def __init__(self, field: str, value: str, wanted: str) -> None:
        super().__init__(field, value, wanted)
        self.field, self.value, self.wanted = field, value, wanted

    def __str__(self) -> str:
        return f"{self.field} is {self.value[:80]!r}: give {self.wanted}."


class ModelServerEndedError(MlplatformError):
    """The model server of a demo ended, or was not ready in time.

    Attributes:
        exit_code: Its exit code; None where it still runs.
        last_lines: The last lines that it printed.
    """

    def __init__(self, exit_code: int | None, waited_s: float, last_lines: str) -> None:
        super().__init__(exit_code, waited_s, last_lines)
        self.exit_code, self.waited_s, self.last_lines = exit_code, waited_s, last_lines

    def __str__(self) -> str:
        how = (
            f"was not ready within {self.waited_s:g} s"
            if self.exit_code is None
            else f"ended with exit code {self.exit_code}"
        )
        return f"the model server {how}; its last lines:\n{self.last_lines}"


class NothingToShowError(UsageError):
    """A version answers nothing that a page could show."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"{self.name} cannot be shown: {self.problem}"
