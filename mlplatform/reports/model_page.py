"""The page of one model: how good it is, where it errs, whether it is safe to serve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlplatform.reports.page import write_page
from mlplatform.reports.sections import Section
from mlplatform.reports.training_curve import CurveChart, curve_chart


@dataclass(frozen=True)
class CheckResult:
    """One thing that was looked at, and whether it is as it must be."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Mistake:
    """A record that is answered wrong.

    Attributes:
        picture: Its photo as a data URI; empty where it has none.
        item_id: What a person finds it by.
        truth: The truth, in words.
        answer: The model's answer, in words.
        score: The score of that answer, 0 to 1; None where answers have none.
        features: Name and value of its features, where there is no picture.
    """

    picture: str
    item_id: str
    truth: str
    answer: str
    score: float | None = None
    features: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class QualityFigure:
    """A figure of quality with its 95 % interval, what it must reach, and the baseline's.

    Attributes:
        name: What it is.
        value: Its value.
        low: Lower end of the interval; None where none is known.
        high: Upper end.
        threshold: What it must reach; None for nothing.
        baseline: The baseline's value; None where there is no baseline.
        is_share: It is a share, shown in percent.
        is_higher_better: Which way is better.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    baseline: float | None = None
    is_share: bool = True
    is_higher_better: bool = True

    @property
    def is_missed(self) -> bool:
        """It does not reach what it must."""
        if self.threshold is None:
            return False
        return self.value < self.threshold if self.is_higher_better else self.value > self.threshold

    @property
    def delta(self) -> float | None:
        """Difference to the baseline, in percentage points for a share; None where there is no baseline."""
        return None if self.baseline is None else (100 if self.is_share else 1) * (self.value - self.baseline)

    @property
    def is_better(self) -> bool:
        """It is better than the baseline's."""
        return bool(self.delta) and ((self.delta or 0.0) > 0) == self.is_higher_better


@dataclass(frozen=True)
class Cost:
    """What serving the model takes, and what it may take; `allowed` is empty where nothing limits it."""

    name: str
    value: str
    allowed: str = ""
    is_over: bool = False


@dataclass(frozen=True)
class TrainingFit:
    """One fit of the training.

    Attributes:
        name: What was fitted.
        best_epoch: Epoch (from 0) whose weights were kept; -1 for none.
        epochs: Per epoch, metric names to their values.
    """

    name: str
    best_epoch: int
    epochs: Sequence[Mapping[str, float]]

    @property
    def charts(self) -> list[CurveChart]:
        """A chart for each metric: training and validation."""
        names = dict.fromkeys(n.removeprefix("val_") for epoch in self.epochs for n in epoch)
        found = [curve_chart(name, self.epochs, self.best_epoch) for name in names]
        return [chart for chart in found if chart is not None]


@dataclass(frozen=True)
class ModelPage:
    """All that the page shows.

    Attributes:
        title: The model's name.
        made_at: When it was judged.
        is_accepted: The verdict.
        reasons: Why not, one sentence each.
        records: Records in the evaluation splits.
        figures: Quality in a few numbers.
        baseline: What the model was compared with, in words.
        sections: What its kind of answer shows.
        fits: How the training went.
        pairs: Example mistakes of a confusion, by (truth, answer).
        mistakes: The most surprising mistakes.
        worst_classes: Example mistakes of the worst classes, by class, the worst first.
        checks: What the serving process found.
        costs: Load time, latency, memory and size.
        notes: Anything else worth knowing.
    """

    title: str
    made_at: str
    is_accepted: bool
    reasons: Sequence[str]
    records: int
    figures: Sequence[QualityFigure]
    baseline: str
    sections: Sequence[Section]
    pairs: Mapping[tuple[str, str], Sequence[Mistake]]
    mistakes: Sequence[Mistake]
    checks: Sequence[CheckResult]
    costs: Sequence[Cost] = ()
    fits: Sequence[TrainingFit] = ()
    notes: Sequence[str] = ()
    worst_classes: Mapping[str, Sequence[Mistake]] = field(default_factory=dict)


def write_model_page(path: Path, page: ModelPage) -> Path:
    """Write the page to `path` and return it."""
    return write_page(path, "model_page.html", page=page)
