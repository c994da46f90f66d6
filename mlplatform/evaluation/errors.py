"""What cannot be read as an answer of a kind, or as its truth."""

from collections.abc import Sequence

from mlplatform.errors import MlplatformError, UsageError


class UnreadableAnswerError(MlplatformError):
    """The outputs of a signature are no answer of the kind."""

    def __init__(self, kind: str, found: str, remedy: str) -> None:
        super().__init__(kind, found, remedy)
        self.kind, self.found, self.remedy = kind, found, remedy

    def __str__(self) -> str:
        return f"the answer is not a {self.kind}: {self.found}. {self.remedy}"


class UnreadableLabelError(UsageError):
    """A record's label cannot be a truth of the kind."""

    def __init__(self, kind: str, found: str, remedy: str) -> None:
        super().__init__(kind, found, remedy)
        self.kind, self.found, self.remedy = kind, found, remedy

    def __str__(self) -> str:
        return f"a label is not one of a {self.kind}: {self.found}. {self.remedy}"


class UnknownKindError(UsageError):
    """No kind of answer has that name, or lies at that import path."""

    def __init__(self, kind: str, reason: str, known: Sequence[str]) -> None:
        super().__init__(kind, reason, known)
        self.kind, self.reason, self.known = kind, reason, known

    def __str__(self) -> str:
        return (
            f"kind {self.kind!r}: {self.reason}. Take {', '.join(self.known)}, or 'package.module:Kind', "
            "the import path of a class of your own."
        )
