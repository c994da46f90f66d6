"""The page of one model: how good it is, where it errs, whether it is safe to serve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.reports.page import write_page
from mlplatform.reports.training_curve import CurveChart, curve_chart


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and whether it is as it must be."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Mistake:
    """A photo that is answered wrong.

    Attributes:
        picture: The photo as a data URI.
        item_id: Its item.
        truth: Its class.
        answer: The model's first answer.
        score: The score of that answer, 0 to 1.
    """

    picture: str
    item_id: str
    truth: str
    answer: str
    score: float


@dataclass(frozen=True)
class Figure:
    """A share with its 95 % interval, what it must reach, and the baseline's share if there is one."""

    name: str
    value: float
    low: float
    high: float
    threshold: float = 0.0
    baseline: float | None = None

    @property
    def is_missed(self) -> bool:
        """It is below what it must reach."""
        return self.value < self.threshold

    @property
    def delta_points(self) -> float | None:
        """Percentage points above the baseline; None where there is no baseline."""
        return None if self.baseline is None else 100 * (self.value - self.baseline)


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
    """All that the page shows; `classes` and `pairs` are rows of `quality.py`.

    Attributes:
        title: The model's name.
        made_at: When it was judged.
        is_accepted: The verdict.
        reasons: Why not, one sentence each.
        photos: Photos in the evaluation splits.
        figures: Quality in a few numbers.
        baseline: What the model was compared with, in words.
        classes: Rows of the table of classes, worst first.
        classes_left_out: How many better classes are not shown.
        matrix: How photos of the worst classes are answered; None where nothing was answered.
        fits: How the training went.
        pairs: Rows of the most frequent confusions.
        pair_pictures: Example mistakes of a confusion, by (true class, answer).
        mistakes: The most confident mistakes.
        checks: What the serving process found.
        costs: Load time, latency, memory and size.
        notes: Anything else worth knowing.
    """

    title: str
    made_at: str
    is_accepted: bool
    reasons: Sequence[str]
    photos: int
    figures: Sequence[Figure]
    baseline: str
    classes: Sequence[Any]
    classes_left_out: int
    pairs: Sequence[Any]
    pair_pictures: Mapping[tuple[str, str], Sequence[Mistake]]
    mistakes: Sequence[Mistake]
    checks: Sequence[Check]
    costs: Sequence[Cost] = ()
    matrix: Any = None
    fits: Sequence[TrainingFit] = ()
    notes: Sequence[str] = ()


def write_model_page(path: Path, page: ModelPage) -> Path:
    """Write the page to `path` and return it."""
    return write_page(path, "model_page.html", page=page)
