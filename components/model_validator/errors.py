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
    """The Examples do not hold what the gate needs of them."""

    def __init__(self, label: str, found: str) -> None:
        super().__init__(label, found)
        self.label, self.found = label, found

    def __str__(self) -> str:
        return (
            f"ModelValidator reads the truth of each Example from its feature {self.label!r}, and found "
            f"{self.found}. Give the feature's name as `label`; one that Transform makes needs "
            "`transform_graph`, too."
        )


class NotAnsweredError(MlplatformError):
    """A model fails, or gives no answer of its kind, when it is asked about real records."""

    def __init__(self, place: int, cause: str) -> None:
        super().__init__(place, cause)
        self.place, self.cause = place, cause

    def __str__(self) -> str:
        return f"it does not answer real records (from number {self.place + 1} on): {self.cause}"


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


class NotComparableError(UsageError):
    """A model cannot be compared: it does not answer the records, or not as its kind should."""

    def __init__(self, model: str, cause: str) -> None:
        super().__init__(model, cause)
        self.model, self.cause = model, cause

    def __str__(self) -> str:
        return f"model {self.model} cannot be compared on these records: {self.cause}"


class ServingEnvironmentError(UsageError):
    """The environment of the server, in which the model is to be tried, cannot be used."""

    def __init__(self, environment: str, cause: str) -> None:
        super().__init__(environment, cause)
        self.environment, self.cause = environment, cause

    def __str__(self) -> str:
        return (
            f"serving_environment is {self.environment!r}: {self.cause}. Give the folder of a virtual "
            "environment that has the server's TensorFlow, or its Python executable."
        )
