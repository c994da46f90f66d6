"""Evaluate a model's answers with TensorFlow Model Analysis.

TFMA is given each answer as the rank of the true class instead of one probability per class: top-k accuracies
depend on nothing else, and the evaluation of 1,100 classes costs what that of ten costs.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf.wrappers_pb2 import DoubleValue
from tensorflow_model_analysis.proto import config_pb2

from mlplatform.components.model_validator.scoring import NOT_FOUND, Answers
from mlplatform.components.model_validator.settings import Thresholds

# TFMA's shares are ratios in float32; the slack keeps a limit that is met exactly.
_SLACK = 1e-6
_LABEL, _RANK, _RANKED = "label", "rank", "ranked"
# A constant prediction whose k-th entry is the k-th best class.
_PREDICTION = [1.0 - place / (NOT_FOUND + 1) for place in range(NOT_FOUND + 1)]


def evaluate(answers: Answers, thresholds: Thresholds, output_dir: Path, *, top_1_floor: float = 0.0) -> None:
    """Write TFMA's results, and its own judgement of the thresholds, to `output_dir`.

    They are an output, for TFMA's tools and components that read them; the gate decides by `quality.missed`.

    Args:
        answers: The model's answers; at least one.
        thresholds: What the model must reach, overall and per class.
        output_dir: For TFMA's metrics, validations and configuration (`tfma.load_eval_result` reads them).
        top_1_floor: Lowest top-1 that is accepted, where the baseline asks for more than `thresholds`.
    """
    config = _config(answers, thresholds, max(thresholds.top_1, top_1_floor))
    with tempfile.TemporaryDirectory() as scratch:
        records = Path(scratch) / "answers.tfrecord"
        _write(answers, records)
        tfma.run_model_analysis(eval_config=config, data_location=str(records), output_path=str(output_dir))


def _config(answers: Answers, thresholds: Thresholds, top_1: float) -> config_pb2.EvalConfig:
    support = Counter(answers.truths)
    supported = [label for label, photos in sorted(support.items()) if photos >= thresholds.min_support]
    # A plain `threshold` would hold for every slice; these hold for the slices that they name.
    floors = {1: top_1, 3: thresholds.top_3, 5: thresholds.top_5}
    metrics = [config_pb2.MetricConfig(class_name="ExampleCount")] + [
        config_pb2.MetricConfig(
            class_name="SparseTopKCategoricalAccuracy",
            config=f'{{"name": "top_{k}", "k": {k}}}',
            per_slice_thresholds=[_at_least(floor, [config_pb2.SlicingSpec()])],
        )
        for k, floor in floors.items()
    ]
    if thresholds.per_class_recall and supported:
        slices = [config_pb2.SlicingSpec(feature_values={_LABEL: label}) for label in supported]
        metrics[1].per_slice_thresholds.append(_at_least(thresholds.per_class_recall, slices))
    return config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(label_key=_RANK, prediction_key=_RANKED)],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[_LABEL])],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
    )


def _at_least(limit: float, slices: Sequence[config_pb2.SlicingSpec]) -> config_pb2.PerSliceMetricThreshold:
    bound = config_pb2.GenericValueThreshold(lower_bound=DoubleValue(value=limit - _SLACK))
    return config_pb2.PerSliceMetricThreshold(
        slicing_specs=slices, threshold=config_pb2.MetricThreshold(value_threshold=bound)
    )


def _write(answers: Answers, path: Path) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for truth, rank in zip(answers.truths, answers.ranks, strict=True):
            example = tf.train.Example()
            features = example.features.feature
            features[_LABEL].bytes_list.value.append(truth.encode())
            features[_RANK].int64_list.value.append(int(rank))
            features[_RANKED].float_list.value.extend(_PREDICTION)
            writer.write(example.SerializeToString())
