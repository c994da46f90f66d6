"""ModelValidator against the bare model calls and stock TFX's Evaluator: many photos of many classes.

    python tests/benchmarks/bench_gates.py
    python tests/benchmarks/bench_gates.py --records 10000 --image_size 96

A classifier as item_category exports it (EfficientNet-Lite0, a head of 1,100 classes with random weights) is
asked about small photos three times, each in a process of its own: by calls of its signature alone, in the
gate's batches and without the reading; by the gate, all but its serving check; and by TFX's Evaluator
(ExampleCount, top-1 and top-5). CPU times of the whole machine's cores, so that other work does not count;
the peak is the process's resident memory. Exits with 1 where a target is missed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TARGET_RATIO, TARGET_MB = 1.1, 1536.0
PHOTOS = 500  # different ones; records repeat them under labels of their own
BATCH = 32  # as the gate asks about photos


def main() -> None:
    """Run the benchmark, or one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1_100)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--only", choices=["bare", "gate", "evaluator"], help="measure one alone")
    parser.add_argument("--in_folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_folder:
        facts = {"bare": bare, "gate": gate, "evaluator": evaluator}[arguments.only](arguments.in_folder)
        facts["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        (arguments.in_folder / "facts.json").write_text(json.dumps(facts))
        return
    with tempfile.TemporaryDirectory(prefix="bench-gates-") as scratch:
        folder = Path(scratch)
        prepared = ["--in_folder", scratch, "--records", str(arguments.records)]
        write_records(folder, arguments.records, arguments.classes, arguments.image_size)
        run([sys.executable, "-c", EXPORT, scratch, str(arguments.classes), str(arguments.image_size)])
        found: dict[str, dict[str, float]] = {}
        for name in [arguments.only] if arguments.only else ["bare", "gate", "evaluator"]:
            run([sys.executable, __file__, "--only", name, *prepared])
            found[name] = json.loads((folder / "facts.json").read_text())
            print(name, {key: round(value, 3) for key, value in found[name].items()}, flush=True)
    if {"bare", "gate"} <= {*found}:
        ratio = found["gate"]["cpu_s"] / found["bare"]["cpu_s"]
        own_us = 1e6 * (found["gate"]["cpu_s"] - found["bare"]["cpu_s"]) / arguments.records
        peak = found["gate"]["peak_mb"]
        is_met = ratio <= TARGET_RATIO and peak <= TARGET_MB
        print(f"the gate's own work: {own_us:.0f} us a record")
        print(
            f"gate / bare calls: {ratio:.3f} (target {TARGET_RATIO}), peak {peak:.0f} MB (target "
            f"{TARGET_MB:.0f}): {'met' if is_met else 'MISSED'}"
        )
        if "evaluator" in found:
            print(f"stock Evaluator / bare calls: {found['evaluator']['cpu_s'] / found['bare']['cpu_s']:.3f}")
        sys.exit(not is_met)


EXPORT = """
import sys
from pathlib import Path
import keras
from mlplatform.vision.backbones import build_backbone
from mlplatform.vision.signatures import export_image_classifier
import tensorflow as tf
folder, classes, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
keras.utils.set_random_seed(1)
inputs = keras.Input((size, size, 3))
features = build_backbone("efficientnet_lite0", size).network(inputs)
network = keras.Model(inputs, keras.layers.Dense(classes, kernel_initializer="he_normal")(features))
[record] = tf.data.TFRecordDataset(
    str(folder / "examples/Split-eval/data.gz"), "GZIP"
).take(1).as_numpy_iterator()
labels = [f"class-{number:04d}" for number in range(classes)]
export_image_classifier(network, labels, size, folder / "model/Format-Serving", samples=[record])
"""


def run(command: list[str]) -> None:
    """Run a process; the benchmark ends where it fails."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{ended.stderr[-3000:]}")


def write_records(folder: Path, records: int, classes: int, image_size: int) -> None:
    """Write the evaluation split; classes are a long tail, as those of careless categories are."""
    import io

    import tensorflow as tf
    from PIL import Image

    random = np.random.default_rng(1)
    photos = []
    for _ in range(PHOTOS):
        blocks = random.integers(0, 256, (4, 4, 3), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(blocks).resize((image_size, image_size), Image.Resampling.BICUBIC).save(
            stream, "JPEG"
        )
        photos.append(stream.getvalue())
    shares = 1 / (np.arange(classes) + 10)
    labels = random.choice(classes, records, p=shares / shares.sum())
    split = folder / "examples/Split-eval"
    split.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(split / "data.gz"), "GZIP") as writer:
        for number, label in enumerate(labels.tolist()):
            example = tf.train.Example()
            features = example.features.feature
            features["image/encoded"].bytes_list.value.append(photos[number % PHOTOS])
            features["item_id"].bytes_list.value.append(b"item-%06d" % number)
            features["label"].bytes_list.value.append(b"class-%04d" % label)
            features["class"].int64_list.value.append(label)
            writer.write(example.SerializeToString())


def bare(folder: Path) -> dict[str, float]:
    """Call the signature with batches of records, and nothing else."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder / "model/Format-Serving"))
    signature = model.signatures["serving_default"]
    cpu_s = 0.0
    records = tf.data.TFRecordDataset(str(folder / "examples/Split-eval/data.gz"), "GZIP")
    for batch in records.batch(BATCH).as_numpy_iterator():
        started = time.process_time()
        outputs = signature(examples=tf.constant(batch))
        for value in outputs.values():
            value.numpy()
        cpu_s += time.process_time() - started
    return {"cpu_s": cpu_s}


def gate(folder: Path) -> dict[str, float]:
    """Judge the model, all but its serving check."""
    from mlplatform.components.model_validator.serving_check import Finding, ServingCheck
    from mlplatform.components.model_validator.settings import Question
    from mlplatform.components.model_validator.validate import Terms, judge

    thresholds = {"top_1": 0.3, "top_5": 0.5, "per_class_recall": 0.1, "per_class_alpha": 0.05}
    terms = Terms(splits=["eval"], question=Question.of(thresholds=thresholds))
    serving = ServingCheck([Finding("signatures", passed=True)])
    files = [str(folder / "examples/Split-eval/data.gz")]
    started = time.process_time()
    verdict = judge(folder / "model/Format-Serving", files, serving, terms, output_dir=folder / "evaluation")
    cpu_s = time.process_time() - started
    facts = json.loads((folder / "evaluation/metrics.json").read_text())
    assert verdict.reasons, "random weights cannot be good"
    return {"cpu_s": cpu_s, "top_1": facts["quality"]["top_1"]["value"]}


def evaluator(folder: Path) -> dict[str, float]:
    """Run TFX's Evaluator: top-1 and top-5 of the same answers."""
    import tensorflow_model_analysis as tfma
    from tfx.components.evaluator import executor
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    metrics = [tfma.MetricConfig(class_name="ExampleCount")] + [
        tfma.MetricConfig(
            class_name="SparseTopKCategoricalAccuracy", config=json.dumps({"name": f"top_{k}", "k": k})
        )
        for k in (1, 5)
    ]
    config = tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                label_key="class", signature_name="serving_default", prediction_key="probabilities"
            )
        ],
        slicing_specs=[tfma.SlicingSpec()],
        metrics_specs=[tfma.MetricsSpec(metrics=metrics)],
    )
    examples, model = standard_artifacts.Examples(), standard_artifacts.Model()
    examples.uri, examples.split_names = str(folder / "examples"), '["eval"]'
    model.uri = str(folder / "model")
    evaluation = standard_artifacts.ModelEvaluation()
    evaluation.uri = str(folder / "stock")
    properties: dict[str, Any] = {
        "eval_config": proto_utils.proto_to_json(config),
        "example_splits": '["eval"]',
        "fairness_indicator_thresholds": "null",
    }
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"],
        tmp_dir=str(folder / "tmp"),
        unique_id="1",
    )
    started = time.process_time()
    executor.Executor(context).Do(
        {"examples": [examples], "model": [model]}, {"evaluation": [evaluation]}, properties
    )
    cpu_s = time.process_time() - started
    [(_, values)] = tfma.load_eval_result(evaluation.uri).slicing_metrics
    return {"cpu_s": cpu_s, "top_1": values[""][""]["top_1"]["doubleValue"]}


if __name__ == "__main__":
    main()
