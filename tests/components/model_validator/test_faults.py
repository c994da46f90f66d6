"""Wrong models of every kind are rejected with the reason that a person would give; good ones are not."""

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tensorflow as tf

from mlplatform.components.model_validator.baseline import BaselineModel
from mlplatform.components.model_validator.settings import Budget, Question
from mlplatform.components.model_validator.waivers import WAIVABLE_COSTS, parse_waivers
from mlplatform.evaluation.limits import change_key
from mlplatform.training.trained_on import write_trained_on

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
TAGS = Question.of(
    "multi_label",
    "tags",
    thresholds={"micro_f1": 0.9, "macro_f1": 0.9, "map": 0.95},
    slices=[["city"]],
    slice_thresholds={"micro_f1": 0.9},
)
PLACES = Question.of(
    "embedding",
    "zone",
    thresholds={"recall_at_1": 0.9, "map_at_10": 0.8},
    slices=[["city"]],
    slice_thresholds={"recall_at_1": 0.85},
)
GOOD: dict[str, tuple[Question, Answer, str, dict[str, Any]]] = {
    "classification": (CLASSES, tables.is_long, "probabilities", {"labels": ["no", "yes"]}),
    "regression": (FARES, tables.fare, "predictions", {}),
    "multi_label": (TAGS, tables.tags, "probabilities", {"labels": tables.TAGS}),
    "embedding": (PLACES, tables.place, "embedding", {}),
}
SMALL = Budget(p99_latency_ms=50, model_size_mb=1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tables.rows(tmp_path_factory.mktemp("table") / "eval.gz"))


@pytest.fixture(scope="module")
def runs(table: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What trainings on other records, and on those that judge the model, left."""
    folder = tmp_path_factory.mktemp("runs")
    other = str(tables.rows(folder / "train.gz", seed=2))
    for name, file in (("train", other), ("eval", table)):
        (folder / name).mkdir()
        write_trained_on(folder / name, [file])
    return {name: folder / name for name in ("train", "eval")}


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


def of_two_records(answer: Answer) -> Answer:
    return lambda c: answer({name: tf.reverse(column, [0]) for name, column in c.items()})


def a_row_too_many(answer: Answer) -> Answer:
    return lambda c: tf.concat([answer(c), answer(c)[:1]], axis=0)


def not_a_number(answer: Answer) -> Answer:
    return lambda c: answer(c) * math.nan


def in_training(answer: Answer) -> Answer:
    """Its dropout is still there."""
    return lambda c: answer(
        {**c, "miles": c["miles"] * tf.random.uniform(tf.shape(c["miles"]), 0.5, 1.5, seed=1)}
    )


def few_at_once(answer: Answer) -> Answer:
    def few(c: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.control_dependencies([tf.debugging.assert_less(tf.shape(c["miles"])[0], 600)]):
            return tf.identity(answer(c))

    return few


def padded(answer: Answer) -> Answer:
    """No record is one record of zeros."""

    def pad(c: dict[str, tf.Tensor]) -> tf.Tensor:
        found = answer(c)
        return tf.pad(found, [[0, tf.cast(tf.shape(found)[0] == 0, tf.int32)], [0, 0]])

    return pad


def of_short_trips(answer: Answer) -> Answer:
    """It was trained on short trips alone."""
    return lambda c: answer({**c, "miles": tf.minimum(c["miles"], 3.5)})


def mixed_up(answer: Answer) -> Answer:
    """Its last step is another one than in training: classes stand in another order, a fare is in cents."""

    def mixed(c: dict[str, tf.Tensor]) -> tf.Tensor:
        found = answer(c)
        return 100 * found if found.shape[1] == 1 else found[:, ::-1]

    return mixed


def halved(answer: Answer) -> Answer:
    return lambda c: answer(c) * [1.0, 0.0]


def unreadable(answer: Answer) -> Answer:
    return lambda c: tf.concat([answer(c)] * 3, axis=1) * 0.5


def flat(answer: Answer) -> Answer:
    return lambda c: answer(c)[:, 0]


def alike(says: str) -> dict[str, str]:
    return dict.fromkeys(GOOD, says)


DIFFER = "answers differ"
BELOW = {
    "classification": "top-1 is 0.",
    "regression": "RMSE is",
    "multi_label": "micro F1 is 0.",
    "embedding": "recall at 1 is 0.",
}
# Fault, how the model is made wrong, what the export and the terms get, and a part of the reason, by kind.
FAULTS: list[tuple[str, Callable[[Answer], dict[str, Any]], dict[str, Any], dict[str, str]]] = [
    (
        "constant answers",
        lambda a: {"answer": constant(a)},
        {},
        alike("to all 300 records: it does not look at them"),
    ),
    (
        "shuffled labels",
        lambda a: {"answer": shuffled(a)},
        {},
        {
            "classification": "no better than always answering 'yes'",
            "regression": "no better than always answering the mean",
            "multi_label": "no better than always answering every class",
            "embedding": "recall at 1 is 0.",
        },
    ),
    ("swapped columns", lambda a: {"answer": swapped(a)}, {}, BELOW),
    (
        "stale preprocessing",
        lambda a: {"answer": stale(a), "then": a},
        {},
        alike(f"serving_default now and in training: {DIFFER}"),
    ),
    (
        "signatures differ",
        lambda a: {"by_columns": swapped(a)},
        {},
        alike(f"serving_default and columns: {DIFFER}"),
    ),
    (
        "NaN for a slice",
        lambda a: {"answer": nan_in_basel(a)},
        {},
        alike("not finite numbers, such as that to record 2, all of them with city = Basel"),
    ),
    (
        "wrong for a slice",
        lambda a: {"answer": wrong_in_genf(a)},
        {},
        {kind: f"city = Genf: {reason}" for kind, reason in BELOW.items()},
    ),
    (
        "NaN for texts that it does not know",
        lambda a: {"answer": nan_for_unknown_cities(a)},
        {},
        alike("odd records: an empty text: city: answers are not finite"),
    ),
    (
        "the answer depends on the batch",
        lambda a: {"answer": of_the_batch(a)},
        {},
        {
            **alike(f"alone and in a batch: {DIFFER}"),
            "classification": "it changes the answers to the other records of the request",
        },
    ),
    ("too slow", lambda a: {}, {"request_ms": 60.0}, alike("p99_latency_ms: 60, allowed 50")),
    ("too large", lambda a: {"ballast": 1 << 19}, {}, alike("budget: model_size_mb")),
    (
        "an answer of another form",
        lambda a: {"answer": unreadable(a)},
        {},
        {
            "classification": "the answer is not a classification",
            "regression": "has 3 numbers per record",
            "multi_label": "it has 12 scores per record, and the model names 4 classes",
        },
    ),
    (
        "a number alone",
        lambda a: {"answer": flat(a)},
        {},
        {
            "multi_label": "the answer is not a multi-label classification",
            "embedding": "the answer is not a embedding",
        },
    ),
    (
        "the answers of other records",
        lambda a: {"answer": of_two_records(a)},
        {},
        BELOW,
    ),
    ("a row too many", lambda a: {"answer": a_row_too_many(a)}, {}, alike("has 9 rows for 8 records")),
    ("NaN for all", lambda a: {"answer": not_a_number(a)}, {}, alike("the answers to 300 of 300 records")),
    ("dropout is active", lambda a: {"answer": in_training(a)}, {}, alike(DIFFER)),
    (
        "large batches fail",
        lambda a: {"answer": few_at_once(a)},
        {},
        alike("a batch of 1000: InvalidArgumentError"),
    ),
    ("no record is answered", lambda a: {"answer": padded(a)}, {}, alike("an empty batch: it got 1 answers")),
    ("trained on short trips", lambda a: {"answer": of_short_trips(a)}, {}, BELOW),
    (
        "another last step",
        lambda a: {"answer": mixed_up(a)},
        {},
        {kind: reason for kind, reason in BELOW.items() if kind != "embedding"},
    ),
    (
        "trained on the evaluation split",
        lambda a: {},
        {"trained_on": "eval"},
        alike("it was trained on 300 of 300 evaluation records"),
    ),
    ("half of its numbers are 0", lambda a: {"answer": halved(a)}, {}, {"embedding": BELOW["embedding"]}),
    (
        "another signature",
        lambda a: {"signature": "predict"},
        {},
        {**alike("it has no signature 'serving_default'"), "embedding": "no signature 'embed' or"},
    ),
]


def marks_of(number: int, place: int, kinds: int = len(GOOD)) -> list[pytest.MarkDecorator]:
    """By default a row of a table is tested with one kind, the next row with the next; `soak` tests all."""
    return [] if number % kinds == place else [pytest.mark.soak]


@pytest.mark.parametrize(
    ("kind", "fault", "make", "terms", "says"),
    [
        pytest.param(
            kind, fault, make, terms, says, id=f"{kind}: {fault}", marks=marks_of(number, place, len(by_kind))
        )
        for number, (fault, make, terms, by_kind) in enumerate(FAULTS)
        for place, (kind, says) in enumerate(by_kind.items())
    ],
)
def test_a_wrong_model_is_rejected_with_the_reason(
    table: str,
    runs: dict[str, Path],
    tmp_path: Path,
    kind: str,
    fault: str,
    make: Callable[[Answer], dict[str, Any]],
    terms: dict[str, Any],
    says: str,
) -> None:
    question, answer, output, more = GOOD[kind]
    samples = tables.Records([table], question).samples(4)
    made = {"answer": answer, **more, **make(answer), "samples": samples}
    model = tables.export(tmp_path / "model", made.pop("answer"), output, **made)
    terms = dict(terms)
    run_dir = runs[terms.pop("trained_on", "train")]

    reasons, _ = tables.judged(model, table, question, budget=SMALL, run_dir=run_dir, **terms)

    assert any(says in reason for reason in reasons), (fault, reasons)


CANNOT_BE_WAIVED = {
    "constant answers": "classification",
    "stale preprocessing": "regression",
    "NaN for a slice": "multi_label",
    "NaN for texts that it does not know": "embedding",
    "NaN for all": "regression",
    "large batches fail": "embedding",
    "trained on the evaluation split": "multi_label",
    "another signature": "classification",
}


@pytest.mark.parametrize("fault", CANNOT_BE_WAIVED)
def test_who_waives_every_threshold_waives_no_fault(
    table: str, runs: dict[str, Path], tmp_path: Path, fault: str
) -> None:
    kind = CANNOT_BE_WAIVED[fault]
    [(make, terms, says)] = [(make, terms, says[kind]) for name, make, terms, says in FAULTS if name == fault]
    question, answer, output, more = GOOD[kind]
    made = {"answer": answer, **more, **make(answer), "samples": tables.Records([table], question).samples(4)}
    model = tables.export(tmp_path / "model", made.pop("answer"), output, **made)
    metrics = question.find_kind().metrics
    names = [*metrics, *(change_key(name, metric) for name, metric in metrics.items()), *WAIVABLE_COSTS]
    who = {"by": "ann", "why": "so", "until": "9999-12-31"}
    waivers = parse_waivers(
        question.kind,
        [
            {"threshold": name, "class_name": class_name, "slice": part, **who}
            for name in names
            for class_name in ("", "no", "yes")
            for part in ("", *(f"city = {city.decode()}" for city in tables.CITIES))
        ],
    )
    run_dir = runs[terms.get("trained_on", "train")]

    reasons, _ = tables.judged(model, table, question, budget=SMALL, run_dir=run_dir, waivers=waivers)

    assert any(says in reason for reason in reasons), reasons


def test_each_kind_has_twenty_faults() -> None:
    for kind in GOOD:
        assert sum(kind in says for *_, says in FAULTS) >= 20


def strict(answer: Answer) -> Answer:
    """It refuses what is not a number."""

    def checked(c: dict[str, tf.Tensor]) -> tf.Tensor:
        checks = [tf.debugging.check_numerics(c[name], name) for name in ("miles", "minutes")]
        with tf.control_dependencies(checks):
            return tf.identity(answer(c))

    return checked


def rounded(answer: Answer) -> Answer:
    return lambda c: tf.round(answer(c) * 1e4) / 1e4


GOOD_FORMS: dict[str, Callable[[Answer], dict[str, Any]]] = {
    "Examples alone": lambda _: {"has_columns": False},
    "a little larger": lambda _: {"ballast": 1000},
    "with answers of training": lambda a: {"then": a},
    "strict": lambda a: {"answer": strict(a)},
    "rounded": lambda a: {"answer": rounded(a), "then": a},
}


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        pytest.param(kind, make, id=f"{kind}: {form}", marks=marks_of(number, place))
        for number, (form, make) in enumerate(GOOD_FORMS.items())
        for place, kind in enumerate(GOOD)
    ],
)
def test_a_good_model_is_accepted(
    table: str, runs: dict[str, Path], tmp_path: Path, kind: str, make: Callable[[Answer], dict[str, Any]]
) -> None:
    question, answer, output, more = GOOD[kind]
    samples = tables.Records([table], question).samples(4)
    made = {"answer": answer, **more, **make(answer), "samples": samples}
    model = tables.export(tmp_path / "model", made.pop("answer"), output, **made)

    assert tables.judged(model, table, question, budget=SMALL, run_dir=runs["train"])[0] == []


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
    baseline = BaselineModel(good[kind], "version 3 of trips")
    question = Question.of(kind, question.label)  # no threshold of its own

    reasons, quality = tables.judged(model, table, question, baseline=baseline)

    (reason,) = reasons
    assert "falls behind the baseline's" in reason
    words, allowed = {
        "classification": ("the other way round", {"max_top_1_drop": 1.0}),
        "regression": ("further off", {"max_rmse_rise": 1e3}),
        "multi_label": ("more wrong classes than before", {"max_micro_f1_drop": 1.0}),
        "embedding": ("MAP at 10 falls", {"max_map_at_10_drop": 1.0}),
    }[kind]
    assert words in reason
    assert (quality.compared.worse > 0) == (kind != "embedding")
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
