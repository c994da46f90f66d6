"""Why a model, or what it is asked about, gives no predictions."""

from mlplatform.errors import MlplatformError, UsageError


class ModelNotLoadableError(MlplatformError):
    """TensorFlow cannot load a SavedModel: files are missing, damaged, or use unknown operations."""

    def __init__(self, folder: str, cause: str) -> None:
        super().__init__(folder, cause)
        self.folder, self.cause = folder, cause

    def __str__(self) -> str:
        return f"the model in {self.folder} does not load: {self.cause}"


class PredictionInputError(UsageError):
    """What is to be predicted for cannot be read."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem

    def __str__(self) -> str:
        return (
            f"cannot predict for {self.place}: {self.problem}. Give a folder of photos, a Parquet file, or a "
            "file or folder of Examples (TFRecord)."
        )


class PredictionOutputError(UsageError):
    """Predictions cannot be written there."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem

    def __str__(self) -> str:
        return f"cannot write predictions to {self.place}: {self.problem}"


class NothingPredictedError(MlplatformError):
    """The model answered no record at all."""

    def __init__(self, model: str, records: int, first: str) -> None:
        super().__init__(model, records, first)
        self.model, self.records, self.first = model, records, first

    def __str__(self) -> str:
        return (
            f"{self.model} answered none of {self.records} records, so nothing was written. The first: "
            f"{self.first}"
        )
