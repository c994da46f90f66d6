"""Why a training did not give a model."""

from collections.abc import Sequence

from mlplatform.errors import MlplatformError, UsageError


class RunFunctionError(UsageError):
    """The import path of the model's code leads to no function."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"run_fn {self.path!r}: {self.reason}. Name a function that takes a TrainingTask as "
            "'package.module:function', such as 'mlplatform.pipelines.item_category.model:train'."
        )


class SplitNotFoundError(UsageError):
    """The Examples have no split of that name."""

    def __init__(self, split: str, known: Sequence[str]) -> None:
        super().__init__(split, known)
        self.split, self.known = split, known

    def __str__(self) -> str:
        return f"the Examples have no split {self.split!r}; they have {', '.join(self.known) or 'none'}."


class NoExamplesError(MlplatformError):
    """There is nothing to train on."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"no Examples to train on: {self.where} hold no records."


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


class NoModelError(MlplatformError):
    """The training code ended without writing a model."""

    def __init__(self, path: str, model_dir: str) -> None:
        super().__init__(path, model_dir)
        self.path, self.model_dir = path, model_dir

    def __str__(self) -> str:
        return f"{self.path} ended and wrote no SavedModel to {self.model_dir} (its task's model_dir)."


class TrainingInProgressError(MlplatformError):
    """Another process is training the same model on the same Examples."""

    def __init__(self, work_dir: str) -> None:
        super().__init__(work_dir)
        self.work_dir = work_dir

    def __str__(self) -> str:
        return (
            f"another process is training the same model on the same Examples (it holds {self.work_dir}). "
            "Wait until it ends, or end it; its checkpoints are then taken over."
        )
