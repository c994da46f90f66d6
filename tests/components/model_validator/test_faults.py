"""Wrong models of two kinds are rejected with the reason that a person would give; good ones are not."""

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tensorflow as tf

from mlplatform.components.model_validator.baseline import Baseline
from mlplatform.components.model_validator.settings import Budget, Question

_FILE = Path(__file__).with_name("tables.py")
Answer = Callable[[dict[str, tf.Tensor]], tf.Tensor]


def _tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = _tables()
CLASSES = Question.of(
    label="long",
    thresholds={"top_1": 0.9, "auc": 0.95, "per_class_recall": 0.8},
    slices=[["city"]],
    slice_thresholds={"top_1": 0.85},
)
FARES = Question.of(
    "regression", "fare", thresholds={"rmse": 1.0}, slices=[["city"]], slice_thresholds={"rmse": 1.5}
)
GOOD: dict[str, tuple[Question, Answer, str, dict[str, Any]]] = {
    "classification": (CLASSES, tables.is_long, "probabilities", {"labels": ["no", "yes"]}),
    "regression": (FARES, tables.fare, "predictions", {}),
}
SMALL = Budget(p99_latency_ms=50, model_size_mb=1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tables.rows(tmp_path_factory.mktemp("table") / "eval.gz"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("good")
    return {
        kind: tables.export(folder / kind, answer, output, **more)
        for kind, (_, answer, output, more) in GOOD.items()
    }


def swapped(answer: Answer) -> Answer:
    return lambda c: answer({**c, "miles": c["minutes"], "minutes": c["miles"]})


def stale(answer: Answer) -> Answer:
    """The miles are kilometres by now."""
    return lambda c: answer({**c, "miles": c["miles"] * 1.609})


def shuffled(answer: Answer) -> Answer:
    """What it says belongs to another record."""

    def wrong(c: dict[str, tf.Tensor]) -> tf.Tensor:
        noise = tf.math.floormod(c["miles"] * 7919.0 + c["minutes"] * 104729.0, 1.0)
        return answer({**c, "miles": 0.5 + 9.5 * noise, "minutes": 2 + 28 * tf.math.floormod(noise * 7, 1.0)})

    return wrong


def constant(answer: Answer) -> Answer:
    return lambda c: answer({**c, "miles": 0 * c["miles"] + 5, "minutes": 0 * c["minutes"] + 15})


def nan_in_basel(answer: Answer) -> Answer:
    return lambda c: tf.where(c["city"] == b"Basel", math.nan, answer(c))


def wrong_in_genf(answer: Answer) -> Answer:
    return lambda c: tf.where(c["city"] == b"Genf", constant(answer)(c), answer(c))


def nan_for_unknown_cities(answer: Answer) -> Answer:
    known = tf.constant(list(tables.CITIES))
    return lambda c: tf.where(tf.reduce_any(c["city"] == known, 1, keepdims=True), answer(c), math.nan)


def of_the_batch(answer: Answer) -> Answer:
    """It is normalised by the other records of the request, as in training."""
    return lambda c: answer({**c, "miles": c["miles"] - tf.reduce_mean(c["miles"]) + 5})


def unreadable(answer: Answer) -> Answer:
    return lambda c: tf.concat([answer(c)] * 3, axis=1) * 0.5


# Fault, how the model is made wrong, what the export and the terms get, and a part of the reason, by kind.
FAULTS: list[tuple[str, Callable[[Answer], dict[str, Any]], dict[str, Any], dict[str, str]]] = [
    (
        "constant answers",
        lambda a: {"answer": constant(a)},
        {},
        {
            "classification": "to all 300 records: it does not look at them",
            "regression": "to all 300 records: it does not look at them",
        },
    ),
    (
        "shuffled labels",
        lambda a: {"answer": shuffled(a)},
        {},
        {
            "classification": "no better than always answering 'yes'",
            "regression": "no better than always answering the mean",
        },
    ),
    (
        "swapped columns",
        lambda a: {"answer": swapped(a)},
        {},
        {"classification": "below 0.9000", "regression": "above 1"},
    ),
    (
        "stale preprocessing",
        lambda a: {"answer": stale(a), "then": a},
        {},
        {
            "classification": "serving_default now and in training: answers differ",
            "regression": "serving_default now and in training: answers differ",
        },
    ),
    (
        "signatures differ",
        lambda a: {"by_columns": swapped(a)},
        {},
        {
            "classification": "serving_default and columns: answers differ",
            "regression": "serving_default and columns: answers differ",
        },
    ),
    (
        "NaN for a slice",
        lambda a: {"answer": nan_in_basel(a)},
        {},
        {
            "classification": "not finite numbers, such as that to record 2, all of them with city = Basel",
            "regression": "not finite numbers, such as that to record 2, all of them with city = Basel",
        },
    ),
    (
        "wrong for a slice",
        lambda a: {"answer": wrong_in_genf(a)},
        {},
        {"classification": "city = Genf: top-1 is", "regression": "city = Genf: RMSE is"},
    ),
    (
        "NaN for texts that it does not know",
        lambda a: {"answer": nan_for_unknown_cities(a)},
        {},
        {
            "classification": "odd records: an empty text: city: answers are not finite",
            "regression": "odd records: an empty text: city: answers are not finite",
        },
    ),
    (
        "the answer depends on the batch",
        lambda a: {"answer": of_the_batch(a)},
        {},
        {
            "classification": "it changes the answers to the other records of the request",
            "regression": "alone and in a batch: answers differ",
        },
    ),
    (
        "too slow",
        lambda a: {},
        {"request_ms": 60.0},
        {"classification": "p99_latency_ms: 60, allowed 50", "regression": "p99_latency_ms: 60, allowed 50"},
    ),
    (
        "too large",
        lambda a: {"ballast": 1 << 19},
        {},
        {"classification": "budget: model_size_mb", "regression": "budget: model_size_mb"},
    ),
    (
        "an answer of another form",
        lambda a: {"answer": unreadable(a)},
        {},
        {"classification": "the answer is not a classification", "regression": "has 3 numbers per record"},
    ),
]


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize(("fault", "make", "terms", "says"), FAULTS, ids=[fault for fault, *_ in FAULTS])
def test_a_wrong_model_is_rejected_with_the_reason(
    table: str,
    tmp_path: Path,
    kind: str,
    fault: str,
    make: Callable[[Answer], dict[str, Any]],
    terms: dict[str, Any],
    says: dict[str, str],
) -> None:
    question, answer, output, more = GOOD[kind]
    samples = tables.Records([table], question).samples(4)
    made = {"answer": answer, **more, **make(answer), "samples": samples}
    model = tables.export(tmp_path / "model", made.pop("answer"), output, **made)

    reasons, _ = tables.judged(model, table, question, budget=SMALL, **terms)

    assert any(says[kind] in reason for reason in reasons), (fault, reasons)


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize(
    "made",
    [{"has_columns": False}, {"ballast": 1000}, {"is_recorded": True}],
    ids=["Examples alone", "a little larger", "with answers of training"],
)
def test_a_good_model_is_accepted(table: str, tmp_path: Path, kind: str, made: dict[str, Any]) -> None:
    question, answer, output, more = GOOD[kind]
    given = dict(made)
    if given.pop("is_recorded", False):
        given |= {"then": answer, "samples": tables.Records([table], question).samples(4)}
    model = tables.export(tmp_path / "model", answer, output, **more, **given)

    assert tables.judged(model, table, question, budget=SMALL)[0] == []


@pytest.mark.parametrize("kind", GOOD)
def test_a_verdict_has_the_figures_of_all_and_of_slices(
    table: str, good: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    verdict = tables.verdict(good[kind], table, GOOD[kind][0], tmp_path)

    assert verdict.reasons == ()
    facts = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert facts["quality"]["records"] == tables.ROWS
    assert {part["slice"] for part in facts["slices"]} == {"city = Basel", "city = Bern", "city = Genf"}
    assert verdict.report is not None
    page = Path(verdict.report).read_text()
    assert "city = Bern" in page
    assert ("Residuals" in page) == (kind == "regression")


FORMS: dict[str, tuple[Answer, str, dict[str, Any]]] = {
    "logits": (lambda c: tf.math.log(tables.is_long(c) + 1e-9), "logits", {"labels": ["no", "yes"]}),
    "a sole output": (tables.is_long, "output_0", {"labels": ["no", "yes"]}),
    "one sigmoid": (lambda c: tables.is_long(c)[:, 1:], "output_0", {"labels": ["no", "yes"]}),
    "one logit": (lambda c: 2 * (tables.fare(c) - 20), "logits", {"labels": ["no", "yes"]}),
    "scores": (tables.is_long, "scores", {"labels": ["no", "yes"]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_classifier_may_answer_in_several_forms(table: str, tmp_path: Path, form: str) -> None:
    answer, output, more = FORMS[form]
    model = tables.export(tmp_path / "model", answer, output, **more)
    reasons, quality = tables.judged(model, table, CLASSES)
    assert reasons == []
    assert quality.measured.tally.figures()["top_1"].value > 0.95


def test_texts_as_labels_need_the_models_class_names(table: str, tmp_path: Path) -> None:
    model = tables.export(tmp_path / "model", tables.is_long, "probabilities")
    with pytest.raises(Exception, match=r"while the model numbers its classes 0 to 1.*labels\.txt"):
        tables.judged(model, table, CLASSES)


@pytest.mark.parametrize("kind", GOOD)
def test_a_model_behind_its_baseline_is_rejected(
    table: str, good: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    question, answer, output, more = GOOD[kind]
    model = tables.export(tmp_path / "model", stale(answer), output, **more)
    baseline = Baseline(good[kind], "version 3 of trips")
    question = Question.of(kind, question.label)  # no threshold of its own

    reasons, quality = tables.judged(model, table, question, baseline=baseline)

    (reason,) = reasons
    assert "falls behind the baseline's" in reason
    assert ("the other way round" if kind == "classification" else "further off") in reason
    assert quality.compared.worse > 0
    allowed = {"classification": {"max_top_1_drop": 1.0}, "regression": {"max_rmse_rise": 1e3}}[kind]
    question = Question.of(kind, question.label, thresholds=allowed)
    assert tables.judged(model, table, question, baseline=baseline)[0] == []


def test_the_label_is_not_sent_to_the_model(table: str, tmp_path: Path) -> None:
    spec = {"fare": tf.io.FixedLenFeature([1], tf.float32)}

    class Leak(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"predictions": tf.io.parse_example(examples, spec)["fare"]}

    leak = Leak()
    tf.saved_model.save(leak, str(tmp_path / "leak"), signatures={"serving_default": leak.serve})
    reasons, _ = tables.judged(tmp_path / "leak", table, FARES)
    assert any("Feature: fare (data type: float) is required" in reason for reason in reasons)


@pytest.mark.parametrize(("limit", "accepted"), [(5.0, True), (0.001, False)])
def test_the_thresholds_of_an_eval_config_count_too(
    table: str, good: dict[str, Path], tmp_path: Path, limit: float, accepted: bool
) -> None:
    import tensorflow_model_analysis as tfma

    threshold = tfma.MetricThreshold(value_threshold=tfma.GenericValueThreshold(upper_bound={"value": limit}))
    config = tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(label_key="fare", signature_name="serving_default")],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=["city"])],
        metrics_specs=[
            tfma.MetricsSpec(metrics=[tfma.MetricConfig(class_name="MeanSquaredError", threshold=threshold)])
        ],
    )
    verdict = tables.verdict(good["regression"], table, FARES, tmp_path, eval_config=config)

    assert (verdict.reasons == ()) == accepted
    if not accepted:
        assert any("eval_config: " in reason and "mean_squared_error" in reason for reason in verdict.reasons)
    assert len(tfma.load_eval_result(str(tmp_path / "evaluation")).slicing_metrics) == 4
