"""Any number of classes per record."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlplatform.evaluation.classification import class_name
from mlplatform.evaluation.errors import UnreadableAnswerError, UnreadableLabelError
from mlplatform.evaluation.kind import Array, Figure, Metric, Outputs, Scored, Truths, Value
from mlplatform.evaluation.outputs import described, numbers, sigmoid
from mlplatform.evaluation.statistics import SCORE_BINS, average_precision, score_bin, share
from mlplatform.reports.sections import Cell, Section, Table

_NAME = "multi-label classification"
_OUTPUTS = ("probabilities", "scores", "logits")
_THRESHOLD = 0.5
_FEWER = 8  # score bins in one, so that 1,100 classes take 2 MB each for right and wrong
_BINS = SCORE_BINS // _FEWER
_MIN_CONSTANT = 10
_CLASSES_SHOWN = 60


class MultiLabel:
    """Any number of classes per record, each with a probability of its own; 0.5 and more is an answer.

    Read from `probabilities`, `scores` or `logits`, [batch, classes], in the order of `assets/labels.txt`;
    without names classes are numbered from 0. A record's label is a list of names or numbers, or one float
    per class.
    """

    signatures = ("serving_default",)
    metrics: Mapping[str, Metric] = {
        "micro_f1": Metric("micro F1", "F1 of all answers together"),
        "macro_f1": Metric("macro F1", "mean F1 of the classes"),
        "map": Metric("mean average precision", "mean average precision of the classes"),
        "exact_match": Metric("exact match", "all classes of a record right"),
    }
    primary, tolerance = "micro_f1", 0.02

    def tally(
        self, names: Sequence[str], *, output: str | None = None, min_support: int = 20
    ) -> "LabelsTally":
        """Return an empty tally."""
        return LabelsTally(names, output)

    def change(self, better: int, worse: int) -> str:
        """Say how many records are answered otherwise."""
        return f"{worse} records have more wrong classes than before, {better} fewer"


class LabelsTally:
    """Measures sets of classes; memory grows with the number of classes alone."""

    def __init__(self, names: Sequence[str], output: str | None) -> None:
        self._output = output
        self._names = list(names)
        self._has_names = bool(names)
        self._place = {name: place for place, name in enumerate(self._names)}
        self.records = self._exact = self._unknown = 0
        self._right, self._missed, self._false = (np.zeros(0, np.int64) for _ in range(3))
        self._positives, self._negatives = (np.zeros((0, _BINS), np.int64) for _ in range(2))
        self._lowest, self._highest = np.zeros(0), np.zeros(0)

    def finite(self, outputs: Outputs) -> Array:
        """Return which records have finite scores."""
        return np.asarray(np.isfinite(self._read(outputs)).all(axis=1))

    def answers(self, outputs: Outputs) -> Sequence[str]:
        """Return the classes of each record."""
        return [self._joined(row) for row in self._read(outputs) >= _THRESHOLD]

    def add(self, outputs: Outputs, truths: Truths) -> Scored:
        """Measure a batch."""
        scores = self._read(outputs)
        truth = np.zeros(scores.shape, np.bool_)
        unknown = np.zeros(len(scores), np.int64)
        for row, values in enumerate(truths):
            places = self._classes_of(values)
            truth[row, [place for place in places if place >= 0]] = True
            unknown[row] = sum(place < 0 for place in places)
        is_finite = np.isfinite(scores).all(axis=1)
        answer = scores >= _THRESHOLD
        wrong = (answer != truth).sum(axis=1) + unknown
        if is_finite.any():
            self._count(scores[is_finite], truth[is_finite], unknown[is_finite])
        return Scored(
            error=np.where(is_finite, wrong, np.nan),
            surprise=np.where(
                is_finite, np.where(wrong > 0, np.abs(scores - truth).sum(axis=1) + 1e-12, 0), 0
            ),
            truth=lambda row: self._joined(truth[row]),
            answer=lambda row: self._joined(answer[row]),
        )

    def _joined(self, row: Array) -> str:
        return ", ".join(self._names[place] for place in np.flatnonzero(row)[:8]) or "none"

    def _read(self, outputs: Outputs) -> Array:
        name, found = numbers(outputs, _NAME, _OUTPUTS, self._output)
        if found.ndim != 2:
            raise UnreadableAnswerError(_NAME, described(outputs), "Answer [batch, classes].")
        finite = found[np.isfinite(found)]
        if name == "logits":
            found = sigmoid(found)
        elif len(finite) and (finite.min() < 0 or finite.max() > 1):
            raise UnreadableAnswerError(
                _NAME,
                f"output {name!r} has numbers from {finite.min():.4g} to {finite.max():.4g}",
                "It must have probabilities, or be named 'logits' if it is one before the sigmoid.",
            )
        if not self._names:
            self._names = [str(number) for number in range(found.shape[1])]
            self._place = {name: place for place, name in enumerate(self._names)}
        if found.shape[1] != len(self._names):
            raise UnreadableAnswerError(
                _NAME,
                f"it has {found.shape[1]} scores per record, and the model names {len(self._names)} classes",
                "Correct assets/labels.txt: one class name a line, in the order of the scores.",
            )
        return found

    def _classes_of(self, values: Sequence[Value]) -> list[int]:
        """Return the places of a record's classes, -1 for one that the model does not know."""
        if values and all(isinstance(value, float) for value in values):
            if len(values) != len(self._names):
                raise UnreadableLabelError(
                    _NAME,
                    f"{len(values)} floats",
                    f"Give a list of names or numbers, or a float for each of {len(self._names)} classes.",
                )
            return [place for place, value in enumerate(values) if float(value) >= _THRESHOLD]
        places = []
        for value in values:
            known = self._place.get(class_name(value), -1)
            if known < 0 and self._has_names and isinstance(value, int) and 0 <= value < len(self._names):
                known = value
            places.append(known)
        return places

    def _count(self, scores: Array, truth: Array, unknown: Array) -> None:
        classes = scores.shape[1]
        if not self.records:
            self._start(classes)
        answer = scores >= _THRESHOLD
        self.records += len(scores)
        self._exact += int(((answer == truth).all(axis=1) & (unknown == 0)).sum())
        self._unknown += int(unknown.sum())
        self._right += (answer & truth).sum(axis=0)
        self._missed += (~answer & truth).sum(axis=0)
        self._false += (answer & ~truth).sum(axis=0)
        cells = np.arange(classes)[None] * _BINS + score_bin(scores) // _FEWER
        for counts, which in ((self._positives, truth), (self._negatives, ~truth)):
            counts += np.bincount(cells[which], minlength=counts.size).reshape(counts.shape)
        self._lowest = np.minimum(self._lowest, scores.min(axis=0))
        self._highest = np.maximum(self._highest, scores.max(axis=0))

    def merge(self, other: "LabelsTally") -> None:
        """Add another tally."""
        if not other.records:
            return
        if not self.records:
            self._names, self._place = list(other._names), dict(other._place)
            self._start(len(self._names))
        self.records += other.records
        self._exact += other._exact
        self._unknown += other._unknown
        self._right += other._right
        self._missed += other._missed
        self._false += other._false
        self._positives += other._positives
        self._negatives += other._negatives
        self._lowest = np.minimum(self._lowest, other._lowest)
        self._highest = np.maximum(self._highest, other._highest)

    def _start(self, classes: int) -> None:
        self._right, self._missed, self._false = (np.zeros(classes, np.int64) for _ in range(3))
        self._positives, self._negatives = (np.zeros((classes, _BINS), np.int64) for _ in range(2))
        self._lowest, self._highest = np.full(classes, math.inf), np.full(classes, -math.inf)

    def figures(self) -> Mapping[str, Figure]:
        """Return the metrics; classes without records count for no mean of classes."""
        if not self.records:
            return {}
        seen = (self._right + self._missed) > 0
        precisions = average_precision(self._positives, self._negatives)
        shares = (self._right + self._missed) / self.records
        always = _f1(self._right.sum() + self._missed.sum(), self._unknown, (~seen).sum() * self.records
                     + ((1 - shares[seen]) * self.records).sum())  # fmt: skip
        everything = {"naive": float(always), "naive_answer": "every class"}
        return {
            "micro_f1": Figure(
                float(_f1(self._right.sum(), self._missed.sum() + self._unknown, self._false.sum())),
                **everything,  # type: ignore[arg-type]
            ),
            "macro_f1": Figure(float(np.mean(self._f1s[seen])) if seen.any() else math.nan),
            "map": Figure(
                float(np.mean(precisions[seen])) if seen.any() else math.nan,
                naive=float(np.mean(shares[seen])) if seen.any() else None,
                naive_answer="the same score",
            ),
            "exact_match": share(self._exact, self.records),
        }

    @property
    def _f1s(self) -> Array:
        return np.asarray(_f1(self._right, self._missed, self._false))

    def details(self) -> Mapping[str, Any]:
        """Return the classes, worst first."""
        if not self.records:
            return {"classes": []}
        precisions, f1s = average_precision(self._positives, self._negatives), self._f1s
        support = self._right + self._missed
        places = sorted(np.flatnonzero(support + self._false), key=lambda p: (support[p] == 0, f1s[p]))
        return {
            "classes": [
                {
                    "label": self._names[place],
                    "support": int(support[place]),
                    "f1": float(f1s[place]),
                    "recall": float(self._right[place] / support[place]) if support[place] else None,
                    "average_precision": float(precisions[place]) if support[place] else None,
                }
                for place in places
            ]
        }

    def sections(self) -> Sequence[Section]:
        """Return the table of classes."""
        classes = self.details()["classes"]
        left_out = max(len(classes) - _CLASSES_SHOWN, 0)
        rows: list[list[Cell | str]] = [
            [
                c["label"],
                str(c["support"]),
                f"{c['f1']:.3f}",
                Cell(bar=c["f1"]),
                *("" if c[key] is None else f"{c[key]:.3f}" for key in ("recall", "average_precision")),
            ]
            for c in classes[:_CLASSES_SHOWN]
        ]
        columns = ["Class", "Records#", "F1#", "", "Recall#", "Average precision#"]
        note = f"{left_out:,} better classes are in metrics.json." if left_out else ""
        return [Table("Classes, worst first", columns, rows, note=note)] if rows else []

    def notes(self) -> Sequence[str]:
        """Tell of classes that the model does not know."""
        if not self._unknown:
            return []
        return [f"{self._unknown} labels name classes that are unknown to the model; counted as missed"]

    def faults(self) -> Sequence[str]:
        """Say so where every record gets the same answer."""
        if self.records < _MIN_CONSTANT or not (self._highest - self._lowest < 1e-6).all():
            return []
        if not ((self._right + self._missed) % self.records).any():
            return []  # so do the records
        return [f"the model gives the same answer to all {self.records} records: it does not look at them"]


def _f1(right: Any, missed: Any, false: Any) -> Any:
    """Return 2 right / (2 right + missed + false); 0 where nothing is there."""
    total = 2 * right + missed + false
    return np.where(total > 0, 2 * right / np.maximum(total, 1), 0.0)
