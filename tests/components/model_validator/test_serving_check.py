"""Safe to serve: a good model passes every check; each fault is caught and named."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlplatform.components.model_validator.errors import ServingEnvironmentError
from mlplatform.components.model_validator.serving_check import ServingCheck, check_serving
from mlplatform.components.model_validator.serving_environment import ask_elsewhere
from mlplatform.components.model_validator.settings import Budget
from mlplatform.exported_model.tflite_export import export_tflite
from mlplatform.serving.mixed_precision import ask_for_bfloat16
from mlplatform.serving.tflite_model import TFLITE_FOLDER
from mlplatform.serving.warmup import WARMUP_FILE
from mlplatform.vision.decoding import decode_image
from mlplatform.vision.signatures import ImageClassifier, export_image_classifier, finite_pixels

LABELS = ["blue", "green", "red"]


def parsed(records: Sequence[bytes]) -> list[tf.train.Example]:
    """Return serialized Examples as Examples."""
    return [tf.train.Example.FromString(record) for record in records]


@pytest.fixture(scope="module")
def good_model(colours: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    network = colours.colour_network(16, LABELS)
    export_image_classifier(network, LABELS, 16, folder, samples=colours.examples(1))
    return folder


def failed(check: ServingCheck) -> set[str]:
    return {finding.name for finding in check.findings if not finding.passed}


@pytest.mark.usefixtures("real_probes")
@pytest.mark.slow
def test_a_good_model_passes_all_but_a_budget_that_is_too_small(
    colours: ModuleType, good_model: Path
) -> None:
    budget = Budget(p99_latency_ms=1e-3, load_time_s=1e-3, model_size_mb=1e-3)

    check = check_serving(good_model, parsed(colours.examples(2)), budget, environment=sys.prefix)

    assert failed(check) == {"budget: p99_latency_ms", "budget: load_time_s", "budget: model_size_mb"}
    assert any(reason.endswith("allowed 0.001") for reason in check.reasons)
    names = [finding.name for finding in check.findings]
    assert sum(name.startswith("odd image") for name in names) == 12
    assert sum(name.startswith("broken image") for name in names) == 6
    assert "same answers: pixels now and in training" in names
    server = f"TensorFlow {tf.__version__} of {sys.prefix}"
    assert server in names
    assert f"same answers: image_bytes here and in {server}" in names
    assert 0 < check.figures["p50_latency_ms"] <= check.figures["p99_latency_ms"]
    assert 0 < check.figures["peak_memory_mb"] < budget.peak_memory_mb


@pytest.mark.usefixtures("real_probes")
@pytest.mark.parametrize(
    ("budget", "cause"),
    [
        (Budget(peak_memory_mb=100), "MB of memory, more than 100 MB"),
        (Budget(time_limit_s=0.5), "it took more than 0.5 s"),
    ],
)
def test_a_process_over_its_limits_is_killed(
    colours: ModuleType, good_model: Path, budget: Budget, cause: str
) -> None:
    check = check_serving(good_model, parsed(colours.examples(1)), budget)

    assert any(cause in reason for reason in check.reasons)


class Faulty(ImageClassifier):
    """A model with several faults: NaN for dark images, and an answer for broken ones."""

    def _probabilities(self, images: tf.Tensor) -> tf.Tensor:
        is_dark = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True) < 5
        return super()._probabilities(tf.where(is_dark, np.float32(np.nan), images))

    def signatures(self) -> Any:
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def image_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            def read(encoded: tf.Tensor) -> tf.Tensor:
                looks_like_jpeg = tf.strings.length(encoded) > 300
                size = [self._image_size, self._image_size]
                return tf.cond(
                    looks_like_jpeg,
                    lambda: tf.image.resize(tf.io.decode_jpeg(encoded, 3, try_recover_truncated=True), size),
                    lambda: tf.zeros([*size, 3]),
                )

            images = tf.map_fn(read, image_bytes, fn_output_signature=tf.float32)
            return self._answer(images, self._probabilities(images))

        return {**super().signatures(), "image_bytes": image_bytes.get_concrete_function()}


def test_each_fault_is_named(colours: ModuleType, good_model: Path, tmp_path: Path) -> None:
    labels_file = tmp_path / "labels.txt"
    labels_file.write_text("".join(f"{label}\n" for label in LABELS))
    network = colours.colour_network(16, LABELS)
    network.layers[-1].set_weights([weight * 0.5 for weight in network.layers[-1].get_weights()])
    model = Faulty(network, LABELS, 16, labels_file)
    folder = tmp_path / "faulty"
    tf.saved_model.save(model, str(folder), signatures=model.signatures())
    (folder / WARMUP_FILE).parent.mkdir()
    (folder / WARMUP_FILE).write_bytes((good_model / WARMUP_FILE).read_bytes())

    check = check_serving(folder, parsed(colours.examples(1)), Budget())

    reasons = dict(reason.rsplit(": ", 1) for reason in check.reasons)
    assert reasons["odd image: black"] == "scores are not finite"
    assert reasons["broken image: text"] == "it got an answer instead of an error"
    assert "broken image: half a JPEG" in reasons
    for name in ("serving_default", "image_bytes", "pixels"):
        assert "answers differ by up to" in reasons[f"same answers: {name} now and in training"]
    assert "real photos, serving_default" not in failed(check)


class FaultyPixels(ImageClassifier):
    """A model whose signature `pixels` gives NaN for the second of several photos, and for nothing else."""

    def signatures(self) -> Any:
        size = self._image_size

        @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, name="images")])
        def pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
            answer = self._answer(images, self._probabilities(finite_pixels(images)))
            is_second = (tf.range(tf.shape(images)[0]) == 1)[:, None]
            return {**answer, "scores": tf.where(is_second, np.float32(np.nan), answer["scores"])}

        return {**super().signatures(), "pixels": pixels.get_concrete_function()}


def test_an_answer_that_is_no_number_is_found_in_every_signature(
    colours: ModuleType, good_model: Path, tmp_path: Path
) -> None:
    labels_file = tmp_path / "labels.txt"
    labels_file.write_text("".join(f"{label}\n" for label in LABELS))
    model = FaultyPixels(colours.colour_network(16, LABELS), LABELS, 16, labels_file)
    folder = tmp_path / "faulty"
    tf.saved_model.save(model, str(folder), signatures=model.signatures())
    (folder / WARMUP_FILE).parent.mkdir()
    (folder / WARMUP_FILE).write_bytes((good_model / WARMUP_FILE).read_bytes())

    check = check_serving(folder, parsed(colours.examples(1)), Budget())

    assert failed(check) == {"real photos, pixels", "same answers: pixels and image_bytes"}
    assert all("are not finite" in reason for reason in check.reasons)


@pytest.mark.slow
def test_tensorflow_lite_forms_are_held_against_the_signatures(
    colours: ModuleType, good_model: Path, tmp_path: Path
) -> None:
    model, wrong = tmp_path / "model", tmp_path / "wrong"
    shutil.copytree(good_model, model)
    photos = [
        decode_image(colours.encode(name, n), 16) for n in range(4) for name in ("red", "green", "blue")
    ]
    export_tflite(model, "pixels", calibration=[{"images": photo.numpy()[None]} for photo in photos])

    good = check_serving(model, parsed(colours.examples(6)), Budget())

    assert failed(good) == set()
    (found,) = (f for f in good.findings if f.name == "TensorFlow Lite, pixels")
    assert "and the first class of 0.0 % of the records" in found.detail

    network = colours.colour_network(16, LABELS)
    export_image_classifier(network, ["green", "blue", "red"], 16, wrong, samples=colours.examples(1))
    export_tflite(wrong, "pixels")
    shutil.copytree(wrong / TFLITE_FOLDER, model / TFLITE_FOLDER, dirs_exist_ok=True)
    (model / TFLITE_FOLDER / "image_bytes.tflite").write_bytes(b"")

    bad = check_serving(
        model, parsed(colours.examples(6)), Budget(tflite_score_tolerance=1.0, tflite_disagreement=0.5)
    )

    assert failed(bad) == {"TensorFlow Lite, pixels", "image_bytes.tflite"}
    assert any("the first class of 66.7 % of the records" in reason for reason in bad.reasons)


def test_a_model_that_asks_for_bfloat16_answers_so_too(
    colours: ModuleType, good_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(good_model, model)
    file = ask_for_bfloat16(model)
    good = check_serving(model, parsed(colours.examples(6)), Budget())
    assert failed(good) == set()
    found = {f.name: f.detail for f in good.findings if f.name.startswith("bfloat16")}
    assert set(found) == {f"bfloat16, {name}" for name in ("serving_default", "image_bytes", "pixels")}
    assert all("and the first class of 0.0 % of the records" in detail for detail in found.values())

    file.write_text("float8")
    bad = check_serving(model, parsed(colours.examples(1)), Budget())
    (reason,) = bad.reasons
    assert "'float8', not 'bfloat16' or 'none'" in reason


def test_a_model_that_the_examples_cannot_be_sent_to_is_told_what_it_takes(
    colours: ModuleType, tmp_path: Path
) -> None:
    network = keras.Sequential([keras.Input((4,), name="columns"), keras.layers.Dense(2)])
    network.export(tmp_path / "plain", verbose=False)

    check = check_serving(tmp_path / "plain", parsed(colours.examples(1)), Budget())

    assert failed(check) == {"signatures"}
    (reason,) = check.reasons
    assert "float32 (None, 4)), which the Examples cannot give: they have 'image/encoded' (bytes)" in reason
    assert "Export a signature that takes serialized Examples" in reason


def test_the_memory_of_a_process_is_not_that_of_the_one_that_started_it() -> None:
    ballast = os.urandom(1 << 20) * 300
    script = (
        "from mlplatform.components.model_validator.peak_memory import peak_memory_mb\n"
        "import os; before = peak_memory_mb(); held = os.urandom(1 << 20) * 100\n"
        "print(before, peak_memory_mb() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, grown = map(float, done.stdout.split())
    # getrusage would give what this process holds (at least the ballast) before and, so, no growth at all.
    assert before < len(ballast) / 2**20
    assert grown >= 95


def test_a_model_that_the_servers_tensorflow_does_not_load_is_rejected(
    good_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(good_model, folder)
    for file in (folder / "variables").iterdir():
        file.unlink()
    (tmp_path / "requests").write_text("")

    [fact] = ask_elsewhere(folder, tmp_path / "requests", sys.executable, time_limit_s=100)

    assert fact["check"] == f"TensorFlow {tf.__version__} of {sys.executable}"
    assert not fact["passed"]
    assert fact["detail"].startswith("ended with code 1: ")
    assert fact["detail"].endswith("at the step: load the model")


def test_an_environment_that_cannot_be_used_is_an_error_and_no_verdict(
    good_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ServingEnvironmentError, match=r"no Python that can be run at .*/none"):
        check_serving(good_model, [], Budget(), environment=str(tmp_path / "none"))
    venv.create(tmp_path / "bare", symlinks=True)
    with pytest.raises(ServingEnvironmentError, match=r"TensorFlow does not start in it: .*'tensorflow'"):
        ask_elsewhere(good_model, tmp_path / "requests", str(tmp_path / "bare"), time_limit_s=100)
