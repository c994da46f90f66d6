"""Figures of quality, against numbers worked out by hand."""

import json

import numpy as np
import pytest

from mlplatform.components.model_validator.quality import (
    CONFUSED_PAIRS,
    Share,
    confusion_matrix,
    measure,
    missed,
)
from mlplatform.components.model_validator.scoring import NOT_FOUND, Answers
from mlplatform.components.model_validator.settings import Thresholds

LABELS = ["cup", "hat", "key", "lamp", "shoe", "sofa"]


def answers(rows: list[tuple[str, list[int], list[float]]], labels: list[str] | None = None) -> Answers:
    """Return answers from (true class, best classes, their scores)."""
    labels = labels or LABELS
    ranks = [
        best.index(labels.index(truth)) if truth in labels and labels.index(truth) in best else NOT_FOUND
        for truth, best, _ in rows
    ]
    return Answers(
        labels=labels,
        truths=[truth for truth, _, _ in rows],
        item_ids=[f"item-{n}" for n in range(len(rows))],
        ranks=np.array(ranks),
        classes=np.array([best for _, best, _ in rows]),
        scores=np.array([scores for _, _, scores in rows], np.float32),
        webp_photos=0,
    )


SIX = [0.5, 0.2, 0.1, 0.1, 0.05, 0.05]
ROWS = [
    ("cup", [0, 1, 2, 3, 4, 5], SIX),
    ("cup", [0, 1, 2, 3, 4, 5], SIX),
    ("cup", [1, 0, 2, 3, 4, 5], SIX),
    ("cup", [1, 2, 3, 0, 4, 5], SIX),
    ("hat", [1, 0, 2, 3, 4, 5], SIX),
    ("hat", [2, 0, 3, 4, 5, 1], SIX),
    ("vase", [1, 0, 2, 3, 4, 5], SIX),
]


def test_shares_and_classes() -> None:
    quality = measure(answers(ROWS))

    assert quality.photos == 7
    assert [round(s.value, 4) for s in (quality.top_1, quality.top_3, quality.top_5)] == [
        round(3 / 7, 4),
        round(4 / 7, 4),
        round(5 / 7, 4),
    ]
    assert quality.unknown_labels == {"vase": 1}
    by_label = {c.label: c for c in quality.classes}
    assert (by_label["cup"].support, by_label["cup"].recall.value, by_label["cup"].precision) == (4, 0.5, 1.0)
    assert by_label["cup"].mistaken_for == "hat"
    assert by_label["cup"].top_5 == 1.0
    assert (by_label["hat"].recall.value, by_label["hat"].precision) == (0.5, 0.25)
    assert by_label["hat"].top_5 == 0.5
    assert by_label["vase"].recall.value == 0
    assert by_label["key"].support == 0
    assert [c.label for c in quality.classes] == ["vase", "cup", "hat", "key"]
    assert quality.balanced_top_1 == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert quality.expected_calibration_error == pytest.approx(0.5 - 3 / 7, abs=1e-6)


def test_confusions_are_counted_most_frequent_first() -> None:
    (first, *others) = measure(answers(ROWS)).confused_pairs

    assert (first.truth, first.answer, first.photos, first.share_of_truth) == ("cup", "hat", 2, 0.5)
    assert {(p.truth, p.answer, p.photos) for p in others} == {("hat", "key", 1), ("vase", "hat", 1)}


@pytest.mark.parametrize(
    ("hits", "photos", "low", "high"),
    # Wilson's interval as published tables give it.
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (290, 341, 0.8087, 0.8844)],
)
def test_the_interval_is_wilsons(hits: int, photos: int, low: float, high: float) -> None:
    share = Share.of(hits, photos)

    assert share.low == pytest.approx(low, abs=2e-4)
    assert share.high == pytest.approx(high, abs=2e-4)


def test_a_share_of_nothing_knows_nothing() -> None:
    assert Share.of(0, 0) == Share(0.0, 0.0, 1.0)


def test_nothing_grows_with_the_square_of_the_classes() -> None:
    labels = [f"category {number}" for number in range(1200)]
    random = np.random.default_rng(0)
    rows = [
        (labels[int(random.integers(1200))], random.permutation(1200)[:10].tolist(), [0.1] * 10)
        for _ in range(6000)
    ]

    quality = measure(answers(rows, labels))

    assert len(quality.confused_pairs) == CONFUSED_PAIRS
    assert len(json.dumps(quality.as_json())) < 1200 * 300


def test_the_matrix_holds_the_classes_with_most_wrong_answers() -> None:
    found = answers(ROWS)
    matrix = confusion_matrix(found, measure(found), 2)

    assert matrix.labels == ["cup", "hat"]
    assert (matrix.counts, matrix.others) == ([[2, 2], [0, 1]], [0, 1])
    (one,) = confusion_matrix(found, measure(found), 1).counts
    assert one == [2]


def test_missed_thresholds_are_named_with_what_was_found() -> None:
    quality = measure(answers(ROWS))

    # top-1 and top-5 are met exactly; vase has too few photos to be judged.
    limits = Thresholds(top_1=3 / 7, top_3=0.9, top_5=5 / 7, per_class_recall=0.6, min_support=2)
    assert missed(quality, limits) == [
        "top-3 is 0.5714, below 0.9000",
        "recall of class 'cup' is 0.5000, below 0.6000",
        "recall of class 'hat' is 0.5000, below 0.6000",
    ]
    assert missed(quality, Thresholds()) == []
    assert missed(quality, Thresholds(per_class_recall=0.5, min_support=2)) == []
