"""Rows of a small table, and models of them whose faults are known: no training, no pipeline."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from mlplatform.components.model_validator.probe import probe
from mlplatform.components.model_validator.records import Records
from mlplatform.components.model_validator.serving_check import ServingCheck, concluded
from mlplatform.components.model_validator.settings import Budget, Question
from mlplatform.components.model_validator.validate import Quality, Terms, judge, measure_quality
from mlplatform.components.model_validator.verdict import ModelVerdict
from mlplatform.components.model_validator.waivers import apart
from mlplatform.evaluation.limits import in_words
from mlplatform.serving.warmup import WARMUP_FILE

ROWS = 300
CITIES = (b"Bern", b"Genf", b"Basel")
SPEC = {
    "miles": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
    "minutes": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
    "city": tf.io.FixedLenFeature([1], tf.string, default_value=[b""]),
}
TAGS = ("dear", "far", "near", "slow")
ZONES = 6
Columns = dict[str, tf.Tensor]  # by feature, each [batch, 1]


def rows(path: Path, seed: int = 1) -> str:
    """Write trips.

    Their fare is 3 + 2 per mile + 0.5 per minute and noise; they are `long` where it is over 20; `tags` are
    several of `TAGS`, and `zone` is one of `ZONES` parts of the miles.
    """
    random = np.random.default_rng(seed)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for number in range(ROWS):
            miles, minutes = random.uniform(0.5, 10), random.uniform(2, 30)
            fare = 3 + 2 * miles + 0.5 * minutes + random.normal(0, 0.4)
            example = tf.train.Example()
            features = example.features.feature
            features["miles"].float_list.value.append(miles)
            features["minutes"].float_list.value.append(minutes)
            features["city"].bytes_list.value.append(CITIES[number % 3])
            features["id"].int64_list.value.append(number)
            features["fare"].float_list.value.append(fare)
            features["long"].bytes_list.value.append(b"yes" if fare > 20 else b"no")
            tags = [("dear", fare > 20), ("far", miles > 5), ("near", miles <= 5), ("slow", minutes > 15)]
            features["tags"].bytes_list.value.extend(tag.encode() for tag, has in tags if has)
            features["zone"].int64_list.value.append(int(miles / 10 * ZONES))
            writer.write(example.SerializeToString())
    return str(path)


def fare(columns: Columns) -> tf.Tensor:
    """Return the right fare, [batch, 1]."""
    return 3 + 2 * columns["miles"] + 0.5 * columns["minutes"]


def is_long(columns: Columns) -> tf.Tensor:
    """Return probabilities of `no` and `yes`, [batch, 2]."""
    yes = tf.sigmoid(2 * (fare(columns) - 20))
    return tf.concat([1 - yes, yes], axis=1)


def tags(columns: Columns) -> tf.Tensor:
    """Return probabilities of the `TAGS`, [batch, 4]."""
    dear, miles, minutes = fare(columns) - 20, columns["miles"], columns["minutes"]
    return tf.sigmoid(tf.concat([2 * dear, 8 * (miles - 5), 8 * (5 - miles), 4 * (minutes - 15)], axis=1))


def place(columns: Columns) -> tf.Tensor:
    """Return a vector in whose neighbourhood are trips of as many miles, [batch, 2]."""
    angle = columns["miles"] / 10 * (2 * math.pi * (ZONES - 1) / ZONES)
    return tf.concat([tf.cos(angle), tf.sin(angle)], axis=1)


class TableModel(tf.Module):
    """A model of one function, asked by serialized Examples and by columns."""

    def __init__(
        self,
        answer: Callable[[Columns], tf.Tensor],
        output: str,
        *,
        labels_file: Path | None = None,
        by_columns: Callable[[Columns], tf.Tensor] | None = None,
        ballast: int = 0,
    ) -> None:
        super().__init__()
        self.answer, self.by_columns, self.output = answer, by_columns, output
        self.offset = tf.Variable(0.0)
        if ballast:
            self.ballast = tf.Variable(np.random.default_rng(0).random(ballast, np.float32))
        if labels_file:
            self.labels_file = tf.saved_model.Asset(str(labels_file))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answer serialized Examples."""
        return {self.output: self.answer(dict(tf.io.parse_example(examples, SPEC))) + self.offset}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 1], tf.float32, name="miles"),
            tf.TensorSpec([None, 1], tf.float32, name="minutes"),
            tf.TensorSpec([None, 1], tf.string, name="city"),
        ]
    )
    def serve_columns(self, miles: tf.Tensor, minutes: tf.Tensor, city: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answer columns."""
        answer = self.by_columns or self.answer
        return {self.output: answer({"miles": miles, "minutes": minutes, "city": city}) + self.offset}


def export(
    folder: Path,
    answer: Callable[[Columns], tf.Tensor],
    output: str,
    *,
    labels: Sequence[str] = (),
    by_columns: Callable[[Columns], tf.Tensor] | None = None,
    has_columns: bool = True,
    then: Callable[[Columns], tf.Tensor] | None = None,
    samples: Sequence[tf.train.Example] = (),
    ballast: int = 0,
    signature: str = "serving_default",
) -> Path:
    """Write a SavedModel.

    Args:
        folder: Where.
        answer: What it answers.
        output: Name of the output.
        labels: Class names, written to its assets.
        by_columns: What its second signature answers, where that is something else.
        has_columns: It has a second signature.
        then: What it answered in its training, where that is recorded with the samples.
        samples: What it was asked in its training.
        ballast: Floats that it carries for nothing.
        signature: Name of its first signature.
    """
    labels_file = None
    if labels:
        labels_file = folder.parent / "labels.txt"
        labels_file.write_text("".join(f"{label}\n" for label in labels))
    model = TableModel(answer, output, labels_file=labels_file, by_columns=by_columns, ballast=ballast)
    signatures = {signature: model.serve.get_concrete_function()}
    if has_columns:
        signatures["columns"] = model.serve_columns.get_concrete_function()
    tf.saved_model.save(model, str(folder), signatures=signatures)
    if then is not None:
        _record(folder, samples, then, output)
    return folder


def _record(
    folder: Path, samples: Sequence[tf.train.Example], then: Callable[[Columns], tf.Tensor], output: str
) -> None:
    """Write what training was asked and answered, as TensorFlow Serving reads it for its warm-up."""
    records = tf.constant([sample.SerializeToString() for sample in samples])
    spec = model_pb2.ModelSpec(name="default", signature_name="serving_default")
    answer = then(dict(tf.io.parse_example(records, SPEC)))
    request = predict_pb2.PredictRequest(
        model_spec=spec, inputs={"examples": tf.make_tensor_proto(records.numpy())}
    )
    response = predict_pb2.PredictResponse(
        model_spec=spec, outputs={output: tf.make_tensor_proto(answer.numpy())}
    )
    log = prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request, response=response)
    )
    (folder / WARMUP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        writer.write(log.SerializeToString())


class Clock:
    """A clock on which each request takes the same time: it is looked at twice for each."""

    def __init__(self, request_ms: float) -> None:
        self._step_s = request_ms / 1000
        self._now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        self._now += self._step_s
        return self._now


def checked(
    model: Path, file: str, question: Question, *, budget: Budget, request_ms: float = 1.0
) -> ServingCheck:
    """Ask the model in this process, with a clock of its own."""
    facts: list[dict[str, Any]] = []
    samples = Records([file], question).samples(8)
    probe(
        model,
        samples,
        question,
        runs=20,
        say=lambda **fact: facts.append(fact),
        clock=Clock(request_ms),
    )
    return concluded(facts, budget, model)


def judged(
    model: Path, file: str, question: Question, *, request_ms: float = 1.0, **changes: Any
) -> tuple[list[str], Quality]:
    """Return all reasons to reject a model, and its figures; nothing is written.

    Args:
        model: SavedModel.
        file: Its records.
        question: What it is to answer.
        request_ms: What a request takes.
        changes: Of the terms.
    """
    # The memory is that of this process, which holds all tests: the real probe has its own.
    budget = changes.pop("budget", Budget()).model_copy(update={"peak_memory_mb": 1e6})
    serving = checked(model, file, question, budget=budget, request_ms=request_ms)
    terms = Terms(splits=["eval"], question=question, budget=budget, **changes)
    quality = Quality()
    if serving.is_loadable:
        quality = measure_quality(model, Records([file], question), terms)
    unsafe, _ = apart(serving.missed, terms.waivers)
    return [*quality.reasons, *in_words(unsafe)], quality


def verdict(model: Path, file: str, question: Question, out: Path, **changes: Any) -> ModelVerdict:
    """Return the gate's verdict, with everything that it writes."""
    budget = changes.pop("budget", Budget()).model_copy(update={"peak_memory_mb": 1e6})
    serving = checked(model, file, question, budget=budget)
    terms = Terms(splits=["eval"], question=question, budget=budget, **changes)
    return judge(
        model, [file], serving, terms, output_dir=out / "evaluation", reports_dir=str(out / "reports")
    )
