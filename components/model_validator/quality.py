"""Figures of a model's quality. None of them grows with the square of the number of classes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlplatform.components.model_validator.scoring import Answers
from mlplatform.components.model_validator.settings import Thresholds

CONFUSED_PAIRS = 50
_Z = 1.959964  # two-sided 95 %


@dataclass(frozen=True)
class Share:
    """A share of n photos with its 95 % confidence interval (Wilson's score interval).

    Attributes:
        value: 0 to 1; 0 where there are no photos.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, photos: int) -> "Share":
        """Return the share `hits / photos`."""
        if photos == 0:
            return cls(0.0, 0.0, 1.0)
        share, z2 = hits / photos, _Z**2 / photos
        centre = (share + z2 / 2) / (1 + z2)
        half = _Z * np.sqrt(share * (1 - share) / photos + z2 / photos / 4) / (1 + z2)
        return cls(share, float(max(centre - half, 0.0)), float(min(centre + half, 1.0)))


@dataclass(frozen=True)
class ClassFigures:
    """One class.

    Attributes:
        label: Its name.
        support: Its photos in the evaluation splits.
        recall: Share of them that are answered right.
        precision: Share of the photos answered with this class that are of it; None where there are none.
        top_5: Share of its photos that have it among the first five answers.
        mistaken_for: The class that its photos are most often taken for; empty where none is.
    """

    label: str
    support: int
    recall: Share
    precision: float | None
    top_5: float
    mistaken_for: str


@dataclass(frozen=True)
class ConfusedPair:
    """Photos of one class that are answered with another."""

    truth: str
    answer: str
    photos: int
    share_of_truth: float


@dataclass(frozen=True)
class Quality:
    """All figures of one model on one set of photos.

    Attributes:
        photos: How many photos.
        top_1: Share whose first answer is right; likewise top_3, top_5.
        balanced_top_1: Mean recall over the classes that have photos.
        expected_calibration_error: Mean difference between the first answer's score and the
            share of right answers, over ten bins.
        unknown_labels: Photos of classes that the model does not know, by class; they count as wrong.
        classes: Every class that has photos or was answered, lowest recall first.
        confused_pairs: The most frequent confusions, at most `CONFUSED_PAIRS`.
    """

    photos: int
    top_1: Share
    top_3: Share
    top_5: Share
    balanced_top_1: float
    expected_calibration_error: float
    unknown_labels: dict[str, int]
    classes: list[ClassFigures]
    confused_pairs: list[ConfusedPair]

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def measure(answers: Answers) -> Quality:
    """Return the figures of a model's answers."""
    photos = len(answers.truths)
    support = Counter(answers.truths)
    confused = _confused(answers)
    classes = _class_figures(answers, support, confused)
    known = set(answers.labels)
    return Quality(
        photos=photos,
        top_1=Share.of(int((answers.ranks < 1).sum()), photos),
        top_3=Share.of(int((answers.ranks < 3).sum()), photos),
        top_5=Share.of(int((answers.ranks < 5).sum()), photos),
        balanced_top_1=float(np.mean([c.recall.value for c in classes if c.support] or [0.0])),
        expected_calibration_error=_calibration_error(answers),
        unknown_labels={label: count for label, count in support.items() if label not in known},
        classes=classes,
        confused_pairs=[
            ConfusedPair(truth, answer, count, count / support[truth])
            for (truth, answer), count in confused.most_common(CONFUSED_PAIRS)
        ],
    )


@dataclass(frozen=True)
class ConfusionMatrix:
    """How photos of a few classes are answered.

    Attributes:
        labels: The classes, the one with most wrong answers first.
        counts: Per class of a photo (row), per answer (column, in the same order), how many photos.
        others: Per row, how many of its photos are answered with any other class.
    """

    labels: list[str]
    counts: list[list[int]]
    others: list[int]


def confusion_matrix(answers: Answers, quality: Quality, size: int) -> ConfusionMatrix:
    """Return how the photos of the classes with most wrong answers are answered.

    Args:
        answers: The model's answers.
        quality: Their figures.
        size: How many classes, at most.
    """
    wrong = Counter(t for t, is_right in zip(answers.truths, answers.is_right, strict=True) if not is_right)
    support = {c.label: c.support for c in quality.classes}
    labels = [label for label, _ in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:size]]
    first = [answers.labels[best] for best in answers.classes[:, 0]] if len(answers.truths) else []
    seen = Counter(zip(answers.truths, first, strict=True))
    counts = [[seen[truth, answer] for answer in labels] for truth in labels]
    others = [support[truth] - sum(row) for truth, row in zip(labels, counts, strict=True)]
    return ConfusionMatrix(labels, counts, others)


def missed(quality: Quality, thresholds: Thresholds) -> list[str]:
    """Return the thresholds that the figures do not reach, one sentence each."""
    overall = [
        (name, share.value, limit)
        for name, share, limit in (
            ("top-1", quality.top_1, thresholds.top_1),
            ("top-3", quality.top_3, thresholds.top_3),
            ("top-5", quality.top_5, thresholds.top_5),
        )
    ]
    judged = [
        (f"recall of class {c.label!r}", c.recall.value, thresholds.per_class_recall)
        for c in quality.classes
        if c.support >= thresholds.min_support
    ]
    return [
        f"{name} is {value:.4f}, below {limit:.4f}"
        for name, value, limit in (*overall, *judged)
        if value < limit
    ]


def _confused(answers: Answers) -> Counter[tuple[str, str]]:
    """Count wrong first answers by (true class, answered class): at most one entry per photo."""
    return Counter(
        (truth, answers.labels[best])
        for truth, best, is_right in zip(answers.truths, answers.classes[:, 0], answers.is_right, strict=True)
        if not is_right
    )


def _class_figures(
    answers: Answers, support: Mapping[str, int], confused: Mapping[tuple[str, str], int]
) -> list[ClassFigures]:
    answered = Counter(answers.labels[best] for best in answers.classes[:, 0])
    right: Counter[str] = Counter()
    among_five: Counter[str] = Counter()
    for truth, rank in zip(answers.truths, answers.ranks, strict=True):
        right[truth] += rank < 1
        among_five[truth] += rank < 5
    worst: dict[str, tuple[int, str]] = {}
    for (truth, answer), count in confused.items():
        worst[truth] = max(worst.get(truth, (0, "")), (count, answer))
    figures = [
        ClassFigures(
            label=label,
            support=support.get(label, 0),
            recall=Share.of(int(right[label]), support.get(label, 0)),
            precision=float(right[label] / answered[label]) if answered[label] else None,
            top_5=float(among_five[label] / support[label]) if support.get(label) else 0.0,
            mistaken_for=worst.get(label, (0, ""))[1],
        )
        for label in {*support, *answered}
    ]
    return sorted(figures, key=lambda c: (c.support == 0, c.recall.value, -c.support, c.label))


def _calibration_error(answers: Answers) -> float:
    if not answers.truths:
        return 0.0
    confidence = answers.scores[:, 0]
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [
        abs(float(confidence[bins == b].mean() - answers.is_right[bins == b].mean())) * int((bins == b).sum())
        for b in range(10)
        if (bins == b).any()
    ]
    return sum(gaps) / len(answers.truths)
