"""Why a model is not accepted, or cannot be judged."""

from collections.abc import Sequence

from mlplatform.errors import GateError, MlplatformError, UsageError


class ModelRejectedError(GateError):
    """The model did not pass its validation; `report` is the page's path, empty where none was kept."""

    def __init__(self, reasons: Sequence[str], report: str) -> None:
        super().__init__(reasons, report)
        self.reasons, self.report = reasons, report

    def __str__(self) -> str:
        shown = "".join(f"\n  - {reason}" for reason in self.reasons[:10])
        more = f"\n  - and {len(self.reasons) - 10} more" if len(self.reasons) > 10 else ""
        rest = f"The report shows the rest: {self.report}"
        if not self.report:
            rest = "Give ModelValidator a reports_dir to keep its report of a rejected model."
        return f"the model is rejected:{shown}{more}\n{rest}"


class UnsupportedExamplesError(UsageError):
    """The Examples are not what this gate can judge a model on."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        return (
            "ModelValidator judges image classifiers: it takes Examples with the features 'image/encoded' "
            f"(an encoded photo) and 'label' (its class name), and found {self.found}. Judge other models "
            "with TFX's Evaluator and InfraValidator; ServingPusher obeys their blessings."
        )


class ModelNotLoadableError(MlplatformError):
    """TensorFlow cannot load a SavedModel: files are missing, damaged, or use unknown operations."""

    def __init__(self, folder: str, cause: str) -> None:
        super().__init__(folder, cause)
        self.folder, self.cause = folder, cause

    def __str__(self) -> str:
        return f"the model in {self.folder} does not load: {self.cause}"


class BaselineError(MlplatformError):
    """The model to compare with cannot be scored, so nothing says whether the new one falls behind it."""

    def __init__(self, baseline: str, cause: str) -> None:
        super().__init__(baseline, cause)
        self.baseline, self.cause = baseline, cause

    def __str__(self) -> str:
        return (
            f"the model cannot be compared: its baseline, {self.baseline}, cannot be scored: {self.cause}. "
            "Fix the cause and run again, roll that version back, or give another baseline_model."
        )


class NothingToEvaluateError(MlplatformError):
    """The evaluation splits hold no Examples."""

    def __init__(self, splits: Sequence[str]) -> None:
        super().__init__(splits)
        self.splits = splits

    def __str__(self) -> str:
        return f"no Examples to evaluate on: the splits {', '.join(self.splits)} hold no records."
