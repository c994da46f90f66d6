"""Why a training did not give a model."""

from mlplatform.errors import MlplatformError, UsageError


class RunFunctionError(UsageError):
    """The import path of the model's code leads to no function."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"run_fn {self.path!r}: {self.reason}. Name a function that takes a TrainingTask as "
            "'package.module:function', such as 'mlplatform.training.image_classifier:train'."
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
