"""What can go wrong with pushed models."""

from collections.abc import Sequence
from pathlib import Path

from mlplatform.errors import GateError, MlplatformError, UsageError


class NotASavedModelError(UsageError):
    """The folder to push holds no SavedModel.

    Attributes:
        path: The folder.
        found: Names of what it holds, the first few; None where there is no such folder.
    """

    def __init__(self, path: Path, found: Sequence[str] | None) -> None:
        super().__init__(path, found)
        self.path, self.found = path, found

    def __str__(self) -> str:
        found = "does not exist"
        if self.found is not None:
            found = f"holds {', '.join(self.found) or 'nothing'}, and no saved_model.pb"
        return f"cannot push {self.path}: it {found}. Give the folder of an exported SavedModel."


class UnpushableFileError(UsageError):
    """A model's folder holds something that cannot be copied into a version.

    Attributes:
        folder: The folder.
        name: What it is about, relative to the folder.
        problem: What is wrong with it.
    """

    def __init__(self, folder: Path, name: Path, problem: str) -> None:
        super().__init__(folder, name, problem)
        self.folder, self.name, self.problem = folder, name, problem

    def __str__(self) -> str:
        return (
            f"{self.name} in the model's folder {self.folder} {self.problem}: a model is made of files, "
            "folders and links between them. Remove it, or export the model again."
        )


class LedgerAccessError(MlplatformError):
    """A ledger, or a part of it, cannot be opened, for reading or for writing.

    Attributes:
        path: The file or folder, or its URL.
        problem: What is wrong with it.
    """

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"the ledger {self.path} cannot be opened: {self.problem}. Without it nothing is known of what "
            "happened, such as a model's labels and roll-backs: restore it, or its permissions."
        )


class ModelWithdrawnError(GateError):
    """The model that was to be pushed was rolled back before, and nothing has allowed it since.

    Attributes:
        model_name: The model's name.
        digest: Its digest.
        version: The version as which it was rolled back.
        at: When, ISO 8601.
        by: Who did it.
        why: The reason that was given; empty where none was.
    """

    def __init__(self, model_name: str, digest: str, version: int, at: str, by: str, why: str) -> None:
        super().__init__(model_name, digest, version, at, by, why)
        self.model_name, self.digest, self.version = model_name, digest, version
        self.at, self.by, self.why = at, by, why

    def __str__(self) -> str:
        return (
            f"{self.model_name!r} is not pushed: this very model (sha256 {self.digest[:12]}) was rolled back "
            f"as version {self.version} at {self.at or 'an unknown time'} by {self.by or 'somebody'}: "
            f"{self.why or 'no reason was given'}. It stays withdrawn until it is brought back with: "
            f"mlplatform models promote {self.model_name}@{self.version}, or a push allows withdrawn models."
        )


class PushTookTooLongError(MlplatformError):
    """An upload took so long that it was taken for one that was killed, and cleared away."""

    def __init__(self, name: str, version: int) -> None:
        super().__init__(name, version)
        self.name, self.version = name, version

    def __str__(self) -> str:
        return (
            f"the upload of {self.name!r} version {self.version} took more than a day and was cleared away "
            "meanwhile by another push. Push the model again, over a faster connection."
        )


class ModelChangedError(GateError):
    """A version's files are not those that were pushed.

    Attributes:
        path: The version's folder.
        expected: Digest that the record of the push holds.
        found: Digest of the files; or what is wrong with them.
    """

    def __init__(self, path: str | Path, expected: str, found: str) -> None:
        super().__init__(path, expected, found)
        self.path, self.expected, self.found = path, expected, found

    def __str__(self) -> str:
        return (
            f"{self.path} is not what was pushed: its files were changed since (sha256 {self.found[:80]}, "
            f"pushed was {self.expected[:80]}). Push the model again, or roll back to another version."
        )


class SignatureError(GateError):
    """A version is not signed by the key that is trusted.

    Attributes:
        path: The version's folder.
        problem: What is wrong with its signature.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"{self.path} is not trusted: {self.problem}. Push it with the key whose public part is trusted "
            "here."
        )


class SigningKeyError(UsageError):
    """A key for signatures cannot be used."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key, self.problem = key, problem

    def __str__(self) -> str:
        return (
            f"{self.key} cannot be used as a key: {self.problem}. Give a PEM file of an elliptic curve key, "
            "made with: openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
        )


class DuplicateVersionError(MlplatformError):
    """A version that is to be moved lies at both places."""

    def __init__(self, path: Path, other: Path) -> None:
        super().__init__(path, other)
        self.path, self.other = path, other

    def __str__(self) -> str:
        return f"{self.path} and {self.other} are the same version: remove one of the two folders."


class ModelNotFoundError(UsageError):
    """No model of that name was ever pushed here."""

    def __init__(self, name: str, models_dir: str | Path, known: Sequence[str]) -> None:
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
