"""The kind of answer of a colour model: a class, where further classes may be right as well."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlplatform.evaluation.classification import Classification, ClassTally, class_name
from mlplatform.evaluation.kind import Array, Figure, Metric, Outputs, Scored, Truths
from mlplatform.evaluation.outputs import is_number
from mlplatform.evaluation.statistics import SCORE_BINS, score_bin, share
from mlplatform.reports.sections import Section, Table
from mlplatform.vision.color.vocabulary import acceptable

PRECISION = 0.95  # that answers must have, leniently, to be shown to a seller
_PROBABILITIES, _RULES = "probabilities", "rules"


class ColorName(Classification):
    """The name of an item's main colour.

    A truth is a list of names, the main colour first; the others are acceptable. A name that the model lacks
    counts as the ones that it is called without it (`vocabulary`). Beside the figures of a classification:

    - `top_2`, and `lenient_top_1`: an acceptable name counts as right;
    - `coverage`: the largest share of the photos that can be answered, the most confident first, with
      `PRECISION` of the answers acceptable;
    - `gain_over_rules`: top-1 less that of the untrained rules, which the model answers as `rules`.
    """

    metrics: Mapping[str, Metric] = {
        **Classification.metrics,
        "top_2": Metric("top-2", "among the first two"),
        "lenient_top_1": Metric("lenient top-1", "first answer acceptable"),
        "coverage": Metric(
            f"coverage at a precision of {PRECISION}", f"can be answered at a precision of {PRECISION}"
        ),
        "gain_over_rules": Metric(
            "the gain over the untrained rules", "top-1 above the untrained rules'", low=-1.0
        ),
    }

    def tally(
        self, names: Sequence[str], *, output: str | None = None, min_support: int = 20
    ) -> "ColorTally":
        """Return an empty tally."""
        return ColorTally(names, output, min_support)


class ColorTally(ClassTally):
    """Measures names of colours, and acceptable ones."""

    def __init__(self, names: Sequence[str], output: str | None, min_support: int) -> None:
        super().__init__(names, output, min_support)
        self._colors = list(names)
        self._acceptable_records = self._in_two = self._acceptable = 0
        self._rules_records = self._rules_right = self._right_beside_rules = 0
        self._by_confidence = np.zeros((2, SCORE_BINS), np.int64)  # all answers, acceptable ones

    def add(self, outputs: Outputs, truths: Truths) -> Scored:
        """Measure a batch."""
        named = [[class_name(value) for value in values] for values in truths]
        known = [acceptable(names, self._colors) or names[:1] for names in named]
        probabilities = outputs.get(_PROBABILITIES)
        if self._colors and probabilities is not None and probabilities.shape[1:] == (len(self._colors),):
            self._add_acceptable(outputs, probabilities, known)
        return super().add(outputs, [[names[0].encode()] for names in known])

    def merge(self, other: ClassTally) -> None:
        """Add another tally."""
        super().merge(other)
        if isinstance(other, ColorTally):
            self._acceptable_records += other._acceptable_records
            self._in_two += other._in_two
            self._acceptable += other._acceptable
            self._rules_records += other._rules_records
            self._rules_right += other._rules_right
            self._right_beside_rules += other._right_beside_rules
            self._by_confidence += other._by_confidence

    def _add_acceptable(self, outputs: Outputs, probabilities: Array, known: Sequence[Sequence[str]]) -> None:
        rules = outputs.get(_RULES)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
        for row, names in enumerate(known):
            if not np.isfinite(probabilities[row]).all():
                continue
            first, second = (self._colors[place] for place in order[row])
            is_acceptable = first in names
            self._acceptable_records += 1
            self._in_two += names[0] in (first, second)
            self._acceptable += is_acceptable
            place = int(score_bin(probabilities[row, order[row, :1]])[0])
            self._by_confidence[:, place] += (1, is_acceptable)
            if rules is not None and not is_number(rules):
                self._rules_records += 1
                self._rules_right += rules[row] == names[0].encode()
                self._right_beside_rules += first == names[0]

    def figures(self) -> Mapping[str, Figure]:
        """Return the metrics."""
        found = dict(super().figures())
        records = self._acceptable_records
        if records:
            found["top_2"] = share(self._in_two, records)
            found["lenient_top_1"] = share(self._acceptable, records)
            found["coverage"] = share(self._covered()[0], records)
        if self._rules_records:
            gain = (self._right_beside_rules - self._rules_right) / self._rules_records
            found["gain_over_rules"] = Figure(gain)
        return found

    def _covered(self) -> tuple[int, int]:
        """Return how many of the most confident answers reach the precision, and the last one's bin."""
        answered, right = (np.cumsum(counts[::-1]) for counts in self._by_confidence)
        reached = np.flatnonzero((answered > 0) & (right >= PRECISION * answered))
        if not len(reached):
            return 0, SCORE_BINS
        return int(answered[reached[-1]]), SCORE_BINS - 1 - int(reached[-1])

    def details(self) -> Mapping[str, Any]:
        """Return what else was found."""
        covered, place = self._covered()
        return {
            **super().details(),
            "rules_top_1": self._rules_right / self._rules_records if self._rules_records else None,
            "covered_records": covered,
            "confidence_of_coverage": _confidence(place) if covered else None,
        }

    def sections(self) -> Sequence[Section]:
        """Return what a proposal to a seller may rest on, before what a classification shows."""
        covered, place = self._covered()
        if not self._acceptable_records:
            return super().sections()
        text = f"At no confidence {PRECISION:.0%} of the answers are acceptable."
        if covered:
            text = f"From a confidence of {_confidence(place):.2f} on, {PRECISION:.0%} are acceptable."
        figures = self.figures()
        rows: list[list[Any]] = [
            [_title(name), f"{100 * figures[name].value:.1f} %"]
            for name in ("lenient_top_1", "top_2", "coverage", "gain_over_rules")
            if name in figures
        ]
        return [Table("Colours", ["Figure", "Value#"], rows, note=text), *super().sections()]


def _title(name: str) -> str:
    """Return the title of a metric."""
    return ColorName.metrics[name].title


def _confidence(place: int) -> float:
    """Return the lowest confidence of a score bin."""
    edge = (place / SCORE_BINS * 2 - 1) * 16.0
    return float(1 / (1 + np.exp(-edge)))
