"""Errors of training programs."""

from collections.abc import Sequence

from mlplatform.errors import MlplatformError, UsageError


class UnknownDirectionError(UsageError):
    """Nothing says whether a higher or a lower value of the monitored metric is better."""

    def __init__(self, monitor: str, mode: str) -> None:
        super().__init__(monitor, mode)
        self.monitor, self.mode = monitor, mode

    def __str__(self) -> str:
        if self.mode != "auto":
            return f"fit: mode is {self.mode!r}; it is 'auto', 'max' (higher is better) or 'min'."
        return (
            f"fit: the name of the monitored metric {self.monitor!r} does not say whether higher or lower is "
            "better. State it: mode='max' or mode='min'."
        )


class MonitorNotFoundError(UsageError):
    """An epoch has no metric of the monitored name."""

    def __init__(self, monitor: str, known: Sequence[str]) -> None:
        super().__init__(monitor, known)
        self.monitor, self.known = monitor, known

    def __str__(self) -> str:
        return (
            f"fit: the model has no metric {self.monitor!r} to judge the epochs by; it has "
            f"{', '.join(self.known)}. Name one of them, or compile the model with that metric."
        )


class TooFewClassesError(MlplatformError):
    """A classifier of fewer than two classes says nothing."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.labels = labels

    def __str__(self) -> str:
        return (
            f"the training Examples are all of one class ({', '.join(self.labels)}); a classifier needs at "
            "least two. Look at the labels, or at how the data is split."
        )


class NoEvaluationExamplesError(MlplatformError):
    """The evaluation splits hold nothing that could judge the epochs."""

    def __init__(self, classes: Sequence[str], trained: Sequence[str]) -> None:
        super().__init__(classes, trained)
        self.classes, self.trained = classes, trained

    def __str__(self) -> str:
        held = f"only other classes ({', '.join(self.classes[:5])})" if self.classes else "no records"
        return (
            f"no Examples to judge the epochs by: of the classes that are trained "
            f"({', '.join(self.trained[:5])}) the evaluation splits hold none; they hold {held}. Give them "
            "more, or train without evaluation splits."
        )


class NoExamplesError(MlplatformError):
    """There is nothing to train on."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"no Examples to train on: {self.where} hold no records."


class NoSearchLibraryError(UsageError):
    """Hyperparameters are to be searched, and the library that proposes them is not installed."""

    def __str__(self) -> str:
        return (
            "search: trials are proposed by Optuna, which is not installed; "
            "`pip install 'mlplatform[tune]'` installs it."
        )


class NoTrialFigureError(UsageError):
    """A trial's training reports no metric of the monitored name."""

    def __init__(self, monitor: str, known: Sequence[str]) -> None:
        super().__init__(monitor, known)
        self.monitor, self.known = monitor, known

    def __str__(self) -> str:
        has = f"it has {', '.join(self.known)}" if self.known else "it has none"
        return (
            f"search: the history of a trial has no metric {self.monitor!r} to judge it by; {has}. Set "
            "search.monitor to one of them; metrics that begin with val_ need evaluation splits."
        )


class ColumnError(UsageError):
    """A column of a table cannot be learned from."""

    def __init__(self, column: str, found: str, remedy: str) -> None:
        super().__init__(column, found, remedy)
        self.column, self.found, self.remedy = column, found, remedy

    def __str__(self) -> str:
        return f"column {self.column!r}: {self.found}. {self.remedy}"
