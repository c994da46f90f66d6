"""Regression, multi-label and embedding against naive definitions; thresholds; kinds of one's own."""

import sys
from types import ModuleType

import numpy as np
import pytest

from mlplatform.config import ConfigError
from mlplatform.evaluation.embedding import Embedding
from mlplatform.evaluation.errors import UnknownKindError, UnreadableAnswerError, UnreadableLabelError
from mlplatform.evaluation.find import KINDS, find_kind
from mlplatform.evaluation.kind import Figure
from mlplatform.evaluation.limits import fallen, in_words, parse_limits
from mlplatform.evaluation.multi_label import MultiLabel
from mlplatform.evaluation.regression import Regression
from mlplatform.evaluation.statistics import share


def test_regression_is_as_its_definition_says_however_batches_are_cut() -> None:
    random = np.random.default_rng(0)
    truth = 1e6 + random.normal(0, 3, 3000)
    answers = truth + random.normal(0.5, 1, 3000)
    tally = Regression().tally([])
    for start in range(0, 3000, 701):
        part = slice(start, start + 701)
        tally.add({"x": answers[part, None]}, [[float(value)] for value in truth[part]])

    figures, error = tally.figures(), answers - truth
    assert figures["rmse"].value == pytest.approx(np.sqrt((error**2).mean()))
    assert figures["mae"].value == pytest.approx(np.abs(error).mean())
    assert figures["r2"].value == pytest.approx(1 - (error**2).sum() / ((truth - truth.mean()) ** 2).sum())
    assert figures["bias"].value == pytest.approx(error.mean())
    assert figures["max_error"].value == pytest.approx(np.abs(error).max())
    assert figures["rmse"].naive == pytest.approx(truth.std())
    low, high = figures["mae"].low, figures["mae"].high
    assert low is not None
    assert high is not None
    assert high - low == pytest.approx(2 * 1.96 * np.abs(error).std() / np.sqrt(3000), rel=1e-3)
    assert [section.title for section in tally.sections()] == ["Answers beside truths", "Residuals"]


def test_regression_refuses_what_is_not_a_number() -> None:
    tally = Regression().tally([])
    with pytest.raises(UnreadableLabelError, match="the text b'cheap'"):
        tally.add({"x": np.ones(1)}, [[b"cheap"]])
    with pytest.raises(UnreadableAnswerError, match="has 2 numbers per record"):
        tally.add({"x": np.ones((1, 2))}, [[1.0]])
    scored = tally.add({"x": np.array([1.0, np.nan])}, [[1.0], [2.0]])
    assert scored.error[0] == 0
    assert np.isnan(scored.error[1])
    assert tally.records == 1


def naive_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the sum over distinct scores of recall gained times precision."""
    found, total = 0.0, 0
    for score in sorted({*scores.tolist()}, reverse=True):
        above = scores >= score
        right = int((truth & above).sum())
        found += (right - total) * right / above.sum()
        total = right
    return found / truth.sum()


def test_multi_label_is_as_its_definition_says() -> None:
    random = np.random.default_rng(0)
    names = ["red", "blue", "green", "grey"]
    truth = random.random((500, 4)) < [0.5, 0.3, 0.1, 0.2]
    scores = np.clip(random.normal(0.35 + 0.3 * truth, 0.2), 0.01, 0.99).round(2)
    tally = MultiLabel().tally(names)
    for start in range(0, 500, 128):
        rows = range(start, min(start + 128, 500))
        labels = [[name.encode() for name, has in zip(names, truth[row], strict=True) if has] for row in rows]
        tally.add({"probabilities": scores[list(rows)]}, labels)

    figures, answer = tally.figures(), scores >= 0.5
    right, missed, false = ((answer & truth), (~answer & truth), (answer & ~truth))
    f1s = 2 * right.sum(0) / (2 * right.sum(0) + missed.sum(0) + false.sum(0))
    assert figures["micro_f1"].value == pytest.approx(
        2 * right.sum() / (2 * right.sum() + missed.sum() + false.sum())
    )
    assert figures["macro_f1"].value == pytest.approx(f1s.mean())
    precisions = [naive_average_precision(scores[:, c], truth[:, c]) for c in range(4)]
    assert figures["map"].value == pytest.approx(np.mean(precisions), abs=5e-3)
    assert figures["exact_match"].value == pytest.approx((answer == truth).all(1).mean())
    assert {c["label"] for c in tally.details()["classes"]} == {*names}


def test_labels_of_multi_label_are_names_numbers_or_a_float_each() -> None:
    for labels in ([b"red", b"green"], [0, 2], [1.0, 0.0, 1.0]):
        tally = MultiLabel().tally(["red", "blue", "green"])
        scored = tally.add({"x": np.array([[0.9, 0.1, 0.9]])}, [labels])
        assert (scored.truth(0), scored.answer(0), scored.error[0]) == ("red, green", "red, green", 0)


def test_embedding_is_searched_as_its_definition_says() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 30, 400)
    vectors = random.normal(size=(30, 8))[labels] + random.normal(0, 0.8, (400, 8))
    tally = Embedding().tally([])
    for start in range(0, 400, 90):
        part = slice(start, start + 90)
        tally.add({"embedding": vectors[part]}, [[int(label)] for label in labels[part]])

    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = units @ units.T
    np.fill_diagonal(near, -np.inf)
    right = labels[np.argsort(-near, axis=1)[:, :10]] == labels[:, None]
    figures = tally.figures()
    for k in (1, 5, 10):
        assert figures[f"recall_at_{k}"].value == pytest.approx(right[:, :k].any(axis=1).mean())
    precision = np.cumsum(right, axis=1) / np.arange(1, 11) * right
    others = np.bincount(labels)[labels] - 1
    assert figures["map_at_10"].value == pytest.approx((precision.sum(1) / np.minimum(others, 10)).mean())


@pytest.mark.parametrize(
    ("kind", "outputs", "truths"),
    [
        ("classification", {"probabilities": [[0.3, 0.7]] * 20}, [[0], [1]] * 10),
        ("regression", {"x": [3.5] * 20}, [[float(n)] for n in range(20)]),
        ("multi_label", {"x": [[0.3, 0.7]] * 20}, [[0], [1]] * 10),
        ("embedding", {"x": [[0.6, 0.8]] * 20}, [[0], [1]] * 10),
    ],
)
def test_the_same_answer_to_every_record_is_a_fault(
    kind: str, outputs: dict[str, list[float]], truths: list[list[float]]
) -> None:
    tally = find_kind(kind).tally([])
    tally.add({name: np.array(values) for name, values in outputs.items()}, truths)
    (fault,) = tally.faults()
    assert "to all 20 records: it does not look at them" in fault


@pytest.mark.parametrize(
    ("hits", "records", "low", "high"),
    # Wilson's interval as published tables give it.
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (290, 341, 0.8087, 0.8844)],
)
def test_the_interval_of_a_share_is_wilsons(hits: int, records: int, low: float, high: float) -> None:
    found = share(hits, records)
    assert found.low == pytest.approx(low, abs=2e-4)
    assert found.high == pytest.approx(high, abs=2e-4)
    assert share(0, 0) == Figure(0.0, 0.0, 1.0)


def test_a_change_without_bounds_is_a_share_of_the_baseline() -> None:
    kind = Regression()
    old, limits = {"rmse": Figure(4.0)}, parse_limits(kind, {})
    assert in_words(fallen(kind, {"rmse": Figure(4.2)}, old, limits, "x")) == []
    assert in_words(fallen(kind, {"rmse": Figure(4.21)}, old, limits, "3 records")) == [
        "RMSE falls behind the baseline's 4 by 0.21, more than 5 % of it (3 records)"
    ]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"rsme": 1}, "unknown key 'rsme'; did you mean 'rmse'"),
        ({"rmse": -1}, "rmse is -1"),
        ({"min_support": 0}, "min_support is 0"),
        ({"max_rmse_rises": 1}, "did you mean 'max_rmse_rise'"),
    ],
)
def test_wrong_thresholds_are_named(values: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_limits(Regression(), values)


def test_a_kind_of_ones_own_is_found_by_its_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    class Minutes(Regression):
        """Numbers whose mean error counts."""

        primary, tolerance = "mae", 0.1

    module = ModuleType("delays")
    module.Minutes, module.nothing, module.Wrong = Minutes, 1, object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "delays", module)

    assert parse_limits(find_kind("delays:Minutes"), {}).changes == {"mae": 0.1}
    for path, says in (
        ("clasification", "did you mean 'classification'"),
        ("delays:Hours", "module 'delays' has no class 'Hours'"),
        ("delays:nothing", "has no class 'nothing'"),
        ("delays:Wrong", "it has no signatures, no metrics"),
        ("no.such:Kind", "there is no module 'no'"),
    ):
        with pytest.raises(UnknownKindError, match=says):
            find_kind(path)
    assert {*KINDS} == {"classification", "multi_label", "regression", "embedding"}
