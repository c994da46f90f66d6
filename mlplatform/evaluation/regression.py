"""One number per record: errors, residuals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from mlplatform.evaluation.errors import UnreadableLabelError
from mlplatform.evaluation.kind import Array, Figure, Metric, Outputs, Scored, Truths, Value
from mlplatform.evaluation.outputs import column, numbers
from mlplatform.evaluation.sample import Sample
from mlplatform.evaluation.statistics import mean
from mlplatform.reports.charts import Bucket, histogram
from mlplatform.reports.sections import Drawing, Section

_NAME = "regression"
_OUTPUTS = ("predictions", "outputs", "output", "prediction")
_SAMPLE, _DOTS = 2000, 500
_MIN_CONSTANT = 10


class Regression:
    """One number per record, read from `predictions`, `outputs` or the only output with floats."""

    signatures = ("serving_default",)
    metrics: Mapping[str, Metric] = {
        "rmse": Metric("RMSE", "root mean squared error", is_higher_better=False, high=math.inf),
        "mae": Metric("MAE", "mean absolute error", is_higher_better=False, high=math.inf),
        "r2": Metric("R2", "share of the variance that is explained", low=-math.inf),
        "bias": Metric("bias", "mean error, either way", is_higher_better=False, high=math.inf),
        "max_error": Metric("largest error", "largest error", is_higher_better=False, high=math.inf),
    }
    primary, tolerance = "rmse", 0.05

    def tally(
        self, names: Sequence[str], *, output: str | None = None, min_support: int = 20
    ) -> "NumberTally":
        """Return an empty tally; numbers have no class names."""
        return NumberTally(output)

    def change(self, better: int, worse: int) -> str:
        """Say how many records are answered otherwise."""
        return f"the answers to {worse} records are further off, those to {better} closer"


class NumberTally:
    """Measures numbers; memory does not grow, the charts show a sample."""

    def __init__(self, output: str | None) -> None:
        self._output = output
        self.records = 0
        self._squares = self._fourths = self._absolute = self._sum = 0.0  # of the errors
        self._largest = 0.0
        self._origin = 0.0  # near the truths, so that their variance is not lost in the digits
        self._truths = self._squared_truths = 0.0
        self._lowest, self._highest = math.inf, -math.inf
        self._sample = Sample(_SAMPLE)

    def _read(self, outputs: Outputs) -> Array:
        name, found = numbers(outputs, _NAME, _OUTPUTS, self._output)
        return column(found, _NAME, name).astype(np.float64)

    def finite(self, outputs: Outputs) -> Array:
        """Return which records have a finite number."""
        return np.isfinite(self._read(outputs))

    def answers(self, outputs: Outputs) -> Sequence[str]:
        """Return the number for each record."""
        return [f"{value:.6g}" for value in self._read(outputs).tolist()]

    def add(self, outputs: Outputs, truths: Truths) -> Scored:
        """Measure a batch."""
        answers = self._read(outputs)
        truth = np.array([_number(values) for values in truths], np.float64)
        is_finite = np.isfinite(answers)
        if is_finite.any():
            self._count(truth[is_finite], answers[is_finite])
        error = np.abs(answers - truth)
        return Scored(
            error=np.where(is_finite, error, np.nan),
            surprise=np.where(is_finite, error, 0.0),
            truth=lambda row: f"{truth[row]:.6g}",
            answer=lambda row: f"{answers[row]:.6g}",
            columns={"label": truth, "prediction": answers},
        )

    def _count(self, truth: Array, answers: Array) -> None:
        if not self.records:
            self._origin = float(truth[0])
        self._sample.add(list(zip(truth.tolist(), answers.tolist(), strict=True)))
        self.records += len(truth)
        error, moved = answers - truth, truth - self._origin
        self._sum += float(error.sum())
        self._absolute += float(np.abs(error).sum())
        self._squares += float((error**2).sum())
        self._fourths += float((error**4).sum())
        self._largest = max(self._largest, float(np.abs(error).max()))
        self._truths += float(moved.sum())
        self._squared_truths += float((moved**2).sum())
        self._lowest = min(self._lowest, float(answers.min()))
        self._highest = max(self._highest, float(answers.max()))

    def merge(self, other: "NumberTally") -> None:
        """Add another tally."""
        if not other.records:
            return
        if not self.records:
            self._origin = other._origin
        moved = other._origin - self._origin
        self._squared_truths += other._squared_truths + 2 * moved * other._truths + other.records * moved**2
        self._truths += other._truths + other.records * moved
        self.records += other.records
        self._sum += other._sum
        self._absolute += other._absolute
        self._squares += other._squares
        self._fourths += other._fourths
        self._largest = max(self._largest, other._largest)
        self._lowest = min(self._lowest, other._lowest)
        self._highest = max(self._highest, other._highest)
        self._sample.merge(other._sample)

    @property
    def _variance(self) -> float:
        """Sum of the squared distances of the truths from their mean."""
        return max(self._squared_truths - self._truths**2 / self.records, 0.0)

    def figures(self) -> Mapping[str, Figure]:
        """Return the metrics."""
        if not self.records:
            return {}
        squared = mean(self._squares, self._fourths, self.records)
        rmse = math.sqrt(squared.value)
        centre = self._origin + self._truths / self.records
        naive = math.sqrt(self._variance / self.records)
        return {
            "rmse": Figure(
                rmse,
                math.sqrt(max(squared.low or 0.0, 0.0)),
                math.sqrt(max(squared.high or 0.0, 0.0)),
                naive=naive,
                naive_answer=f"the mean, {centre:.4g}",
            ),
            "mae": mean(self._absolute, self._squares, self.records),
            "r2": Figure(
                1 - self._squares / self._variance if self._variance else math.nan,
                naive=0.0,
                naive_answer=f"the mean, {centre:.4g}",
            ),
            "bias": Figure(abs(self._sum) / self.records),
            "max_error": Figure(self._largest),
        }

    def details(self) -> Mapping[str, Any]:
        """Return the mean error with its sign."""
        return {"mean_error": self._sum / self.records if self.records else None}

    def sections(self) -> Sequence[Section]:
        """Return answers beside truths, and the residuals."""
        pairs = self._sample.rows
        if not pairs:
            return []
        sample = f"{len(pairs):,} of {self.records:,} records" if self.records > _SAMPLE else "All records"
        errors = sorted(answer - truth for truth, answer in pairs)
        return [
            Drawing("Answers beside truths", f"{sample}: a dot is a record; right answers lie on the line.",
                    _scatter(pairs[:_DOTS])),
            Drawing("Residuals", "Answer less truth: a good model's lie around 0.",
                    histogram([Bucket(error, error, 1.0) for error in errors])),
        ]  # fmt: skip

    def notes(self) -> Sequence[str]:
        """Nothing beyond the figures."""
        return []

    def faults(self) -> Sequence[str]:
        """Say so where every record gets the same answer."""
        spread = self._highest - self._lowest
        if self.records < _MIN_CONSTANT or not self._variance:
            return []
        if spread <= 1e-6 * max(abs(self._highest), math.sqrt(self._variance / self.records)):
            return [
                f"the model gives the same answer, {self._highest:.6g}, to all {self.records} records: it "
                "does not look at them"
            ]
        return []


def _number(values: Sequence[Value]) -> float:
    remedy = "It must be one finite number per record; `label` names its feature."
    if len(values) != 1 or isinstance(values[0], bytes):
        what = f"{len(values)} values" if len(values) != 1 else f"the text {values[0]!r:.80}"
        raise UnreadableLabelError(_NAME, what, remedy)
    value = float(values[0])
    if not math.isfinite(value):
        raise UnreadableLabelError(_NAME, str(value), remedy)
    return value


def _scatter(pairs: Sequence[tuple[float, float]]) -> Markup:
    """Draw truths (to the right) and answers (upwards), with the line of right answers."""
    low, high = min(map(min, pairs)), max(map(max, pairs))
    width = (high - low) or 1.0
    dots = Markup().join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="1.6"/>').format(
            10 + 300 * (truth - low) / width, 310 - 300 * (answer - low) / width
        )
        for truth, answer in pairs
    )
    return Markup(
        '<div class="chart scatter"><svg viewBox="0 0 320 320" role="img" aria-label="answers beside truths">'
        '<line x1="10" y1="310" x2="310" y2="10"/>{}</svg><div class="axis"><span>{:.4g}</span>'
        "<span>{:.4g}</span></div></div>"
    ).format(dots, low, high)
