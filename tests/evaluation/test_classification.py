"""Figures of classes, against numbers worked out by hand and naive definitions."""

import json
import math
from typing import Any

import numpy as np
import pytest

from mlplatform.evaluation.classification import CONFUSED_PAIRS, Classification, ClassTally
from mlplatform.evaluation.errors import UnreadableAnswerError, UnreadableLabelError
from mlplatform.evaluation.limits import in_words, missed, parse_limits

LABELS = ["cup", "hat", "key", "lamp", "shoe", "sofa"]
SIX = [0.5, 0.2, 0.12, 0.09, 0.05, 0.04]
ROWS = [
    ("cup", [0, 1, 2, 3, 4, 5]),
    ("cup", [0, 1, 2, 3, 4, 5]),
    ("cup", [1, 0, 2, 3, 4, 5]),
    ("cup", [1, 2, 3, 0, 4, 5]),
    ("hat", [1, 0, 2, 3, 4, 5]),
    ("hat", [2, 0, 3, 4, 5, 1]),
    ("vase", [1, 0, 2, 3, 4, 5]),
]


def tallied(
    rows: list[tuple[str, list[int]]], labels: list[str], scores: list[float], min_support: int = 20
) -> ClassTally:
    """Return what is measured of (true class, best classes)."""
    tally = Classification().tally(labels, min_support=min_support)
    for start in range(0, len(rows), 4):
        part = rows[start : start + 4]
        probabilities = np.zeros((len(part), len(labels)), np.float32)
        for row, (_, best) in enumerate(part):
            probabilities[row, best] = scores
        tally.add({"probabilities": probabilities}, [[truth.encode()] for truth, _ in part])
    return tally


def test_shares_and_classes() -> None:
    tally = tallied(ROWS, LABELS, SIX)
    figures = tally.figures()

    assert [round(figures[name].value, 4) for name in ("top_1", "top_3", "top_5")] == [
        round(3 / 7, 4),
        round(4 / 7, 4),
        round(5 / 7, 4),
    ]
    assert tally.unknown_labels == {"vase": 1}
    by_label = {c.label: c for c in tally.classes}
    assert (by_label["cup"].support, by_label["cup"].recall.value, by_label["cup"].precision) == (4, 0.5, 1.0)
    assert by_label["cup"].mistaken_for == "hat"
    assert by_label["cup"].top_5 == 1.0
    assert (by_label["hat"].recall.value, by_label["hat"].precision) == (0.5, 0.25)
    assert by_label["hat"].top_5 == 0.5
    assert by_label["vase"].recall.value == 0
    assert by_label["key"].support == 0
    assert [c.label for c in tally.classes] == ["vase", "cup", "hat", "key"]
    assert figures["balanced_recall"].value == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert figures["expected_calibration_error"].value == pytest.approx(0.5 - 3 / 7, abs=1e-6)
    losses = [-math.log(p) for p in (0.5, 0.5, 0.2, 0.09, 0.5, 0.04, 1e-7)]
    assert figures["log_loss"].value == pytest.approx(np.mean(losses), rel=1e-5)
    assert (figures["top_1"].naive, figures["top_1"].naive_answer) == (pytest.approx(4 / 7), "'cup'")
    assert "auc" not in figures


def test_confusions_are_counted_most_frequent_first() -> None:
    tally = tallied(ROWS, LABELS, SIX)
    first, *others = tally.confused_pairs(10)
    assert first == ("cup", "hat", 2, 0.5)
    assert {pair[:3] for pair in others} == {("hat", "key", 1), ("vase", "hat", 1)}
    matrix = tally.matrix(2)
    assert matrix.labels == ["cup", "hat"]
    assert (matrix.counts, matrix.others) == ([[2, 2], [0, 1]], [0, 1])


def test_nothing_grows_with_the_square_of_the_classes() -> None:
    labels = [f"category {number}" for number in range(1200)]
    random = np.random.default_rng(0)
    tally = Classification().tally(labels)
    for _ in range(6):
        scores = random.random((1000, 1200)).astype(np.float32)
        truths = [[labels[place].encode()] for place in random.integers(0, 1200, 1000)]
        tally.add({"logits": scores}, truths)

    assert len(tally.details()["confused_pairs"]) == CONFUSED_PAIRS
    assert len(json.dumps(tally.details())) < 1200 * 300


def test_missed_thresholds_are_named_with_what_was_found() -> None:
    kind = Classification()
    figures = tallied(ROWS, LABELS, SIX, min_support=2).figures()

    # top-1 and top-5 are met exactly; vase has too few records to be judged.
    given = {"top_1": 3 / 7, "top_3": 0.9, "top_5": 5 / 7, "per_class_recall": 0.6, "log_loss": 0.1}
    assert in_words(missed(kind, figures, parse_limits(kind, given))) == [
        "top-3 is 0.5714, below 0.9000",
        "recall of class 'cup' is 0.5000, below 0.6000",
        "recall of class 'hat' is 0.5000, below 0.6000",
        f"log loss is {figures['log_loss'].value:.4g}, above 0.1",
    ]
    assert in_words(missed(kind, figures, parse_limits(kind, {}))) == []
    assert in_words(missed(kind, figures, parse_limits(kind, {"per_class_recall": 0.5}))) == []
    assert in_words(missed(kind, figures, parse_limits(kind, {"auc": 0.5}))) == [
        "AUC is not measured for these answers, and must reach 0.5"
    ]


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 400)
    scores = np.clip(random.normal(0.4 + 0.2 * truth, 0.2), 0.01, 0.99).round(2)
    tally = Classification().tally([])
    for start in range(0, 400, 64):
        part = slice(start, start + 64)
        tally.add({"output_0": scores[part, None].astype(np.float32)}, [[int(t)] for t in truth[part]])

    positive, negative = scores[truth == 1][:, None], scores[truth == 0][None]
    naive = ((positive > negative) + 0.5 * (positive == negative)).mean()
    assert tally.figures()["auc"].value == pytest.approx(naive, abs=2e-3)


def read(outputs: dict[str, Any], truths: list[Any], names: list[str]) -> list[str]:
    """Return the first answers."""
    arrays = {name: np.array(values) for name, values in outputs.items()}
    scored = Classification().tally(names).add(arrays, [[truth] for truth in truths])
    return [scored.answer(row) for row in range(len(truths))]


class TestForms:
    """A classifier's answer is read in every usual form."""

    @pytest.mark.parametrize(
        "outputs",
        [
            {"probabilities": [[0.1, 0.9], [0.7, 0.3]], "logits": [[9.0, 0.0], [0.0, 9.0]]},
            {"logits": [[-1.0, 4.0], [3.0, 2.0]]},
            {"scores": [[0.1, 0.9], [0.7, 0.3]]},
            {"scores": [[0.1, 0.9], [0.7, 0.3]], "classes": [[b"no", b"yes"], [b"no", b"yes"]]},
            {"scores": [[0.9, 0.1], [0.7, 0.3]], "classes": [[b"yes", b"no"], [b"no", b"yes"]]},
            {"scores": [[0.9], [0.7]], "classes": [[b"yes"], [b"no"]]},
            {"dense_3": [[0.9], [0.3]]},
            {"dense_3": [0.9, 0.3]},
            {"logits": [[2.0], [-1.0]]},
            {"dense_3": [[-1.0, 4.0], [3.0, 2.0]]},
            {
                "probabilities": [[0.1, 0.9], [0.7, 0.3]],
                "class_ids": [[1], [0]],
                "all_class_ids": [[0, 1]] * 2,
            },
        ],
        ids=lambda outputs: ", ".join(outputs),
    )
    @pytest.mark.parametrize("truths", [[b"yes", b"no"], [1, 0], [1.0, 0.0]], ids=str)
    def test_that_can_be_read(self, outputs: dict[str, Any], truths: list[Any]) -> None:
        assert read(outputs, truths, ["no", "yes"]) == ["yes", "no"]

    def test_without_names_classes_are_numbers(self) -> None:
        assert read({"probabilities": [[0.1, 0.9], [0.7, 0.3]]}, [1, b"0"], []) == ["1", "0"]

    @pytest.mark.parametrize(
        ("outputs", "says"),
        [
            ({"a": [[0.5, 0.5]], "b": [[1.0, 0.0]]}, r"found 'a' \(float64 \[2\]\), 'b' .*Name the output"),
            ({"x": [[0.9, 0.8]]}, "do not sum to 1.*kind='multi_label'"),
            ({"x": [[12.5]]}, "not a probability.*kind='regression'"),
            ({"x": [[0.2, 0.3, 0.5]]}, "3 scores per record, and the model names 2 classes.*labels.txt"),
            ({"x": [[[0.2], [0.8]]]}, r"Answer \[batch, classes\]"),
            ({"text": [b"yes"]}, "found 'text' .string"),
        ],
    )
    def test_that_cannot(self, outputs: dict[str, Any], says: str) -> None:
        with pytest.raises(UnreadableAnswerError, match=says):
            read(outputs, [b"yes"], ["no", "yes"])

    def test_several_labels_are_another_kind(self) -> None:
        with pytest.raises(UnreadableLabelError, match=r"has 2 values.*kind multi_label"):
            Classification().tally(["a", "b"]).add({"probabilities": np.eye(2)[:1]}, [[b"a", b"b"]])
