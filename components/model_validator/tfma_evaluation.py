"""TensorFlow Model Analysis: its results of the answers, and what an EvalConfig of the user's own asks.

Of classes TFMA is given the rank of the true one instead of one probability per class: top-k accuracies
depend on nothing else, and no record costs more where there are 1,100 classes. Records with the same class,
rank and slices are one record with their number as its weight: TFMA takes longer for a record than many a
model does.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf.wrappers_pb2 import DoubleValue
from tensorflow_model_analysis.proto import config_pb2
from tfx_bsl.tfxio import tf_example_record

from mlplatform.beam.runners import pipeline_options
from mlplatform.components.model_validator.records import Record
from mlplatform.components.model_validator.settings import Question
from mlplatform.evaluation.classification import NOT_FOUND
from mlplatform.evaluation.kind import Scored

# TFMA's shares are ratios in float32; the slack keeps a limit that is met exactly.
_SLACK = 1e-6
_LABEL, _RANK, _RANKED, _PREDICTION, _SLICES = "label", "rank", "ranked", "prediction", "slices"
_WEIGHT = "weight"
# A constant prediction whose k-th entry is the k-th best class.
_CONSTANT = [1.0 - place / (NOT_FOUND + 1) for place in range(NOT_FOUND + 1)]
_TOP = {"top_1": 1, "top_3": 3, "top_5": 5}
_MISSED_SHOWN = 20


@dataclass
class Answers:
    """Truth and answer of each record, for TFMA.

    Attributes:
        path: TFRecord file or files, a pattern.
        records: How many there are.
        has_ranks: They are ranks of classes, else numbers.
    """

    path: str
    records: int = 0
    has_ranks: bool = False


class AnswersFile(Answers):
    """Writes truth and answer of each record, for kinds that give TFMA columns."""

    def __init__(self, path: Path) -> None:
        """Write to a local file, which the block ends."""
        super().__init__(str(path))
        self._counted: Counter[tuple[str, int, tuple[str, ...]]] = Counter()
        self._writer = tf.io.TFRecordWriter(self.path)

    def __enter__(self) -> "AnswersFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for (label, rank, slices), records in self._counted.items():
            example = _with_slices(slices)
            features = example.features.feature
            features[_LABEL].bytes_list.value.append(label.encode())
            features[_RANK].int64_list.value.append(rank)
            features[_RANKED].float_list.value.extend(_CONSTANT)
            features[_WEIGHT].float_list.value.append(records)
            self._writer.write(example.SerializeToString())
        self._writer.close()

    def name_only(self, classes: Collection[str]) -> None:
        """Leave out the names of all other classes: records that differ by them alone become one."""
        counted: Counter[tuple[str, int, tuple[str, ...]]] = Counter()
        for (label, rank, slices), records in self._counted.items():
            counted[label if label in classes else "", rank, slices] += records
        self._counted = counted

    def write(self, records: Sequence[Record], scored: Scored) -> None:
        """Add a batch; records without a finite answer are left out."""
        columns = scored.columns or {}
        self.has_ranks = {_LABEL, _RANK} <= {*columns}
        if not (self.has_ranks or {_LABEL, _PREDICTION} <= {*columns}):
            return
        answers = columns[_RANK if self.has_ranks else _PREDICTION].tolist()
        rows = zip(records, columns[_LABEL].tolist(), answers, scored.error.tolist(), strict=True)
        for record, label, answer, error in rows:
            if math.isnan(error):
                continue
            self.records += 1
            if self.has_ranks:
                self._counted[str(label), answer, record.slices] += 1
                continue
            example = _with_slices(record.slices)
            example.features.feature[_LABEL].float_list.value.append(label)
            example.features.feature[_PREDICTION].float_list.value.append(answer)
            self._writer.write(example.SerializeToString())


def _with_slices(slices: Sequence[str]) -> tf.train.Example:
    example = tf.train.Example()
    if slices:
        example.features.feature[_SLICES].bytes_list.value.extend(name.encode() for name in slices)
    return example


def evaluate(
    answers: Answers,
    question: Question,
    supported: Sequence[str],
    output_dir: Path,
    *,
    top_1_floor: float = 0.0,
    beam_arguments: Sequence[str] = (),
) -> None:
    """Write TFMA's results of the answers, and its own judgement of the thresholds, to `output_dir`.

    They are an output, for TFMA's tools and components that read them; the gate decides by its own figures.

    Args:
        answers: At least one record.
        question: Kind, slices and thresholds.
        supported: Classes with enough records to be judged by themselves.
        output_dir: For TFMA's metrics, validations and configuration (`tfma.load_eval_result` reads them).
        top_1_floor: Lowest top-1 that is accepted, where the baseline asks for more than the thresholds.
        beam_arguments: Beam's arguments that choose an engine; none works in this process.
    """
    has_ranks = answers.has_ranks
    config = _of_classes(question, supported, top_1_floor) if has_ranks else _of_numbers(question)
    tfma.run_model_analysis(
        eval_config=config,
        data_location=answers.path,
        output_path=str(output_dir),
        pipeline_options=pipeline_options(beam_arguments) if beam_arguments else None,
    )


def _of_classes(question: Question, supported: Sequence[str], top_1_floor: float) -> config_pb2.EvalConfig:
    # A plain `threshold` would hold for every slice; these hold for the slices that they name.
    levels = question.limits.levels
    floors = {name: levels.get(name, 0.0) for name in _TOP}
    floors["top_1"] = max(floors["top_1"], top_1_floor)
    metrics = [config_pb2.MetricConfig(class_name="ExampleCount")] + [
        config_pb2.MetricConfig(
            class_name="SparseTopKCategoricalAccuracy",
            config=f'{{"name": "{name}", "k": {_TOP[name]}}}',
            per_slice_thresholds=[_at_least(floor, [config_pb2.SlicingSpec()])],
        )
        for name, floor in floors.items()
    ]
    if levels.get("per_class_recall") and supported:
        slices = [config_pb2.SlicingSpec(feature_values={_LABEL: label}) for label in supported]
        metrics[1].per_slice_thresholds.append(_at_least(levels["per_class_recall"], slices))
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(label_key=_RANK, prediction_key=_RANKED, example_weight_key=_WEIGHT)
        ],
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *_slices_of_classes(question, supported),
            *_slicing(question),
        ],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
    )


def _slices_of_classes(question: Question, supported: Sequence[str]) -> list[config_pb2.SlicingSpec]:
    """Return the slices of single classes: where chance decides of them, only of those with enough records.

    Each slice costs TFMA some 30 ms, which for a long tail is more than all answers of the model.
    """
    if question.limits.per_class_alpha is None:
        return [config_pb2.SlicingSpec(feature_keys=[_LABEL])]
    return [config_pb2.SlicingSpec(feature_values={_LABEL: label}) for label in supported]


def _of_numbers(question: Question) -> config_pb2.EvalConfig:
    levels = question.limits.levels
    metrics = [config_pb2.MetricConfig(class_name="ExampleCount")]
    for name, metric, limit in (
        ("MeanSquaredError", "rmse", levels.get("rmse", 0.0) ** 2),
        ("MeanAbsoluteError", "mae", levels.get("mae", 0.0)),
    ):
        config = config_pb2.MetricConfig(class_name=name)
        if metric in levels:
            bound = config_pb2.GenericValueThreshold(upper_bound=DoubleValue(value=limit * (1 + _SLACK)))
            threshold = config_pb2.MetricThreshold(value_threshold=bound)
            config.per_slice_thresholds.append(
                config_pb2.PerSliceMetricThreshold(
                    slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold
                )
            )
        metrics.append(config)
    return config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(label_key=_LABEL, prediction_key=_PREDICTION)],
        slicing_specs=[config_pb2.SlicingSpec(), *_slicing(question)],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
    )


def _slicing(question: Question) -> list[config_pb2.SlicingSpec]:
    return [config_pb2.SlicingSpec(feature_keys=[_SLICES])] if question.slices else []


def _at_least(limit: float, slices: Sequence[config_pb2.SlicingSpec]) -> config_pb2.PerSliceMetricThreshold:
    bound = config_pb2.GenericValueThreshold(lower_bound=DoubleValue(value=limit - _SLACK))
    return config_pb2.PerSliceMetricThreshold(
        slicing_specs=slices, threshold=config_pb2.MetricThreshold(value_threshold=bound)
    )


def evaluate_as_asked(
    config: config_pb2.EvalConfig,
    model_dir: Path,
    baseline_dir: Path | None,
    files: Sequence[str],
    output_dir: Path,
    beam_arguments: Sequence[str] = (),
) -> list[str]:
    """Evaluate the model as TFX's Evaluator does with this EvalConfig; return the thresholds that it misses.

    Args:
        config: The user's own.
        model_dir: SavedModel that is judged.
        baseline_dir: SavedModel to compare with; without one, thresholds of changes are ignored.
        files: TFRecord files of the evaluation splits.
        output_dir: For TFMA's metrics, validations and configuration.
        beam_arguments: As for `evaluate`.
    """
    config = tfma.utils.update_eval_config_with_defaults(
        config, has_baseline=baseline_dir is not None, rubber_stamp=True
    )
    tfma.utils.verify_eval_config(config)
    models = [
        tfma.default_eval_shared_model(
            eval_saved_model_path=str(baseline_dir if spec.is_baseline else model_dir),
            model_name=spec.name,
            eval_config=config,
        )
        for spec in config.model_specs
    ]
    asked = models[0] if len(models) == 1 else models
    with beam.Pipeline(options=pipeline_options(beam_arguments)) as pipeline:
        parts = [
            pipeline
            | f"Read{number}"
            >> tf_example_record.TFExampleRecord(
                file_pattern=name, raw_record_column_name=tfma.constants.ARROW_INPUT_COLUMN
            ).BeamSource()
            for number, name in enumerate(files)
        ]
        _ = (
            parts
            | beam.Flatten()
            | tfma.ExtractEvaluateAndWriteResults(
                eval_config=config, eval_shared_model=asked, output_path=str(output_dir)
            )
        )
    if not tfma.metrics.metric_thresholds_from_metrics_specs(config.metrics_specs, eval_config=config):
        return []
    result = tfma.load_validation_result(str(output_dir))
    return [] if result.validation_ok else _missed(result)


def _missed(result: Any) -> list[str]:
    found = []
    for part in result.metric_validations_per_slice:
        keys = [f"{key.column} = {_value(key)}" for key in part.slice_key.single_slice_keys]
        where = f"{', '.join(keys)}: " if keys else ""
        for failure in part.failures:
            value = failure.metric_value.double_value.value
            bounds = " ".join(str(failure.metric_threshold).split())
            cause = failure.message or f"it is {value:.4g}, and the threshold is {bounds}"
            found.append(f"eval_config: {where}{failure.metric_key.name}: {cause}")
    for detail in result.missing_slices:
        found.append(f"eval_config: no record lies in the slice {' '.join(str(detail).split())}")
    return found[:_MISSED_SHOWN] or ["eval_config: TensorFlow Model Analysis does not accept the model"]


def _value(key: Any) -> str:
    value = getattr(key, key.WhichOneof("kind"))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
