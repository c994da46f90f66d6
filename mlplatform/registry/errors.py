"""What can go wrong with pushed models."""

from collections.abc import Sequence
from pathlib import Path

from mlplatform.errors import MlplatformError, UsageError


class NotASavedModelError(UsageError):
    """The folder to push holds no SavedModel."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        found = "does not exist"
        if self.path.is_dir():
            names = sorted(p.name for p in self.path.iterdir())[:5]
            found = f"holds {', '.join(names) or 'nothing'}, and no saved_model.pb"
        return f"cannot push {self.path}: it {found}. Give the folder of an exported SavedModel."


class ModelNotFoundError(UsageError):
    """No model of that name was ever pushed here."""

    def __init__(self, name: str, models_dir: Path, known: Sequence[str]) -> None:
        super().__init__(name, models_dir, known)
        self.name, self.models_dir, self.known = name, models_dir, known

    def __str__(self) -> str:
        there = f"there are {', '.join(self.known)}" if self.known else "none was pushed yet"
        return f"no model {self.name!r} under {self.models_dir}; {there}."


class ModelVersionNotFoundError(UsageError):
    """The model has no such version."""

    def __init__(self, name: str, version: str, known: Sequence[int]) -> None:
        super().__init__(name, version, known)
        self.name, self.version, self.known = name, version, known

    def __str__(self) -> str:
        there = ", ".join(map(str, self.known)) or "none"
        return (
            f"model {self.name!r} has no version {self.version!r}; it has: {there}. "
            f"See: mlplatform models show {self.name}"
        )


class InvalidModelNameError(UsageError):
    """The name cannot be a folder that a model server reads."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"{self.name!r} cannot be a model's name: use letters, digits, '-', '_' and '.', "
            "starting with a letter or digit."
        )


class InvalidLabelError(UsageError):
    """The label could be taken for something else that names a version."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label

    def __str__(self) -> str:
        return (
            f"{self.label!r} cannot be a label: use letters, digits, '-', '_' and '.', not starting with a "
            "digit, and not 'latest', which is always the newest version."
        )


class CorruptCopyError(MlplatformError):
    """The copy that would have become visible differs from the model that was to be pushed."""

    def __init__(self, source: Path, expected: str, found: str) -> None:
        super().__init__(source, expected, found)
        self.source, self.expected, self.found = source, expected, found

    def __str__(self) -> str:
        return (
            f"the copy of {self.source} does not match it (sha256 {self.found[:12]}, expected "
            f"{self.expected[:12]}): the source changed while it was copied, or the disk is faulty. "
            "Nothing was pushed; push again."
        )


class NothingToRollBackToError(UsageError):
    """There is no older version that could serve instead."""

    def __init__(self, name: str, newest: int) -> None:
        super().__init__(name, newest)
        self.name, self.newest = name, newest

    def __str__(self) -> str:
        return (
            f"model {self.name!r} has no version before {self.newest}, so nothing could serve instead; "
            "push another first."
        )
