"""A vector per record: records of the same label should lie near each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlplatform.evaluation.classification import class_name
from mlplatform.evaluation.errors import UnreadableAnswerError
from mlplatform.evaluation.kind import Array, Figure, Metric, Outputs, Scored, Truths
from mlplatform.evaluation.outputs import described, numbers
from mlplatform.evaluation.sample import Sample
from mlplatform.evaluation.statistics import share
from mlplatform.reports.sections import Section

_NAME = "embedding"
_LARGEST = 20_000  # records that are searched; of more a sample is
_ROWS = 256  # queries that are compared with all records at once
_DEPTH = 10
_MIN_CONSTANT = 10


class Embedding:
    """A vector per record, read from `embedding` or the only output with floats, [batch, d].

    Each record is searched for among all others by the cosine; those with its label are the right ones.
    Records whose label no other one has are not asked about.
    """

    signatures = ("embed", "serving_default")
    metrics: Mapping[str, Metric] = {
        "recall_at_1": Metric("recall at 1", "nearest record right"),
        "recall_at_5": Metric("recall at 5", "a right one among the nearest five"),
        "recall_at_10": Metric("recall at 10", "a right one among the nearest ten"),
        "map_at_10": Metric("MAP at 10", "mean average precision of the nearest ten"),
    }
    primary, tolerance = "map_at_10", 0.02

    def tally(
        self, names: Sequence[str], *, output: str | None = None, min_support: int = 20
    ) -> "VectorTally":
        """Return an empty tally."""
        return VectorTally(output)

    def change(self, better: int, worse: int) -> str:
        """Say nothing: a single vector is neither right nor wrong."""
        return ""


class VectorTally:
    """Keeps vectors, of at most `_LARGEST` records, and searches each among the others."""

    def __init__(self, output: str | None) -> None:
        self._output = output
        self.records = 0
        self._sample = Sample(_LARGEST)  # of vectors with their labels

    def _read(self, outputs: Outputs) -> Array:
        _, found = numbers(outputs, _NAME, ("embedding", "embeddings"), self._output)
        if found.ndim != 2:
            raise UnreadableAnswerError(_NAME, described(outputs), "Answer [batch, d].")
        return found

    def finite(self, outputs: Outputs) -> Array:
        """Return which records have a finite vector."""
        return np.asarray(np.isfinite(self._read(outputs)).all(axis=1))

    def answers(self, outputs: Outputs) -> Sequence[str]:
        """Raise: what a vector means is known beside others alone.

        Raises:
            UnreadableAnswerError: Always.
        """
        raise UnreadableAnswerError(_NAME, described(outputs), "Compare embeddings on records with labels.")

    def add(self, outputs: Outputs, truths: Truths) -> Scored:
        """Keep a batch."""
        found = self._read(outputs)
        is_finite = np.isfinite(found).all(axis=1)
        labels = [" ".join(map(class_name, values)) for values in truths]
        kept = np.flatnonzero(is_finite)
        self._sample.add([(found[row].astype(np.float32), labels[row]) for row in kept])
        self.records += len(kept)
        return Scored(
            error=np.where(is_finite, 0.0, np.nan),
            surprise=np.zeros(len(found)),
            truth=lambda row: labels[row],
            answer=lambda _: "a vector",
        )

    def merge(self, other: "VectorTally") -> None:
        """Add another tally."""
        self._sample.merge(other._sample)
        self.records += other.records

    @property
    def _labels(self) -> list[str]:
        return [label for _, label in self._sample.rows]

    @property
    def vectors(self) -> Array:
        """The kept vectors, of length 1."""
        return self._units()

    def figures(self) -> Mapping[str, Figure]:
        """Search each kept record among the others."""
        _, labels, counts = np.unique(self._labels, return_inverse=True, return_counts=True)
        asked = np.flatnonzero(counts[labels] > 1)
        if not len(asked):
            return {}
        units = self._units()
        depth = min(_DEPTH, len(units) - 1)
        found = {1: 0, 5: 0, 10: 0}
        precision = 0.0
        for start in range(0, len(asked), _ROWS):
            rows = asked[start : start + _ROWS]
            near = units[rows] @ units.T
            near[np.arange(len(rows)), rows] = -np.inf
            best = np.argpartition(-near, depth - 1, axis=1)[:, :depth]
            best = np.take_along_axis(
                best, np.argsort(-np.take_along_axis(near, best, 1), 1, kind="stable"), 1
            )
            is_right = labels[best] == labels[rows][:, None]
            for k in found:
                found[k] += int(is_right[:, :k].any(axis=1).sum())
            places = np.arange(1, depth + 1)
            gains = (np.cumsum(is_right, axis=1) / places * is_right).sum(axis=1)
            precision += float((gains / np.minimum(counts[labels[rows]] - 1, _DEPTH)).sum())
        by_chance = float(np.mean((counts[labels[asked]] - 1) / (len(units) - 1)))
        shares = {f"recall_at_{k}": share(hits, len(asked)) for k, hits in found.items()}
        first = shares["recall_at_1"]
        return {
            **shares,
            "recall_at_1": Figure(first.value, first.low, first.high, by_chance, "any other record"),
            "map_at_10": Figure(precision / len(asked)),
        }

    def _units(self) -> Array:
        vectors = np.stack([vector for vector, _ in self._sample.rows])
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))

    def details(self) -> Mapping[str, Any]:
        """Return how many vectors were searched, and their size."""
        size = len(self._sample.rows[0][0]) if self.records else 0
        return {"searched": len(self._sample), "dimensions": size}

    def sections(self) -> Sequence[Section]:
        """Nothing beyond the figures."""
        return []

    def notes(self) -> Sequence[str]:
        """Say where a sample was searched."""
        if self.records <= _LARGEST:
            return []
        return [f"a sample of {_LARGEST:,} of the {self.records:,} records was searched"]

    def faults(self) -> Sequence[str]:
        """Say so where every record gets the same vector."""
        if self.records < _MIN_CONSTANT or len({*self._labels}) < 2:
            return []
        units = self._units()
        if np.abs(units - units[0]).max() > 1e-6:
            return []
        return [f"the model gives the same vector to all {self.records} records: it does not look at them"]
