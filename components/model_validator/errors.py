"""Why a model is not accepted, or cannot be judged."""

from collections.abc import Sequence

from mlplatform.errors import GateError, MlplatformError


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


class NothingToEvaluateError(MlplatformError):
    """The evaluation splits hold no Examples."""

    def __init__(self, splits: Sequence[str]) -> None:
        super().__init__(splits)
        self.splits = splits

    def __str__(self) -> str:
        return f"no Examples to evaluate on: the splits {', '.join(self.splits)} hold no records."
