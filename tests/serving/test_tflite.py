"""The TensorFlow Lite form of a signature: same refusals, honest comparison, clear errors of the export."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.serving.client import RequestFailedError

pytestmark = pytest.mark.e2e

SIZE = 8


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported image classifier with its signature `pixels` in both forms."""
    import keras
    import tensorflow as tf

    from mlplatform.serving.tflite_export import export_tflite
    from mlplatform.vision.signatures import export_image_classifier

    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(3, activation="tanh")]
    )
    photo = tf.io.encode_jpeg(np.full((SIZE, SIZE, 3), 120, np.uint8)).numpy()
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[photo]))
    sample = tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature}))
    folder = tmp_path_factory.mktemp("classifier") / "1"
    export_image_classifier(network, ["a", "b", "c"], SIZE, folder, samples=[sample.SerializeToString()])
    export_tflite(folder, "pixels")
    return folder


def images(rows: int) -> Any:
    return np.random.default_rng(1).uniform(0, 1, (rows, SIZE, SIZE, 3)).astype(np.float32)


@pytest.mark.parametrize("enable_batching", [False, True])
def test_what_the_saved_model_refuses_is_refused(
    serve: Any, client: Any, classifier: Path, enable_batching: bool
) -> None:
    asking = [
        client(
            serve(
                model_name="m",
                model_base_path=classifier.parent,
                prefer_tflite_model=prefers,
                enable_batching=enable_batching,
            )
        )
        for prefers in (False, True)
    ]
    broken, infinite = images(2), images(3)
    broken[1, 0, 0, 0], infinite[0, 1, 1, 1] = np.nan, -np.inf
    for wrong, text in (
        (broken, "pixels that are no finite numbers at place 1 of the batch"),
        (infinite, "pixels that are no finite numbers at place 0 of the batch"),
        (images(0), "the batch is empty"),
    ):
        said = []
        for one in asking:
            with pytest.raises(RequestFailedError, match="INVALID_ARGUMENT") as caught:
                one.predict("m", {"images": wrong}, signature="pixels")
            said.append(caught.value.text)
        assert text in said[0]
        assert said[0] == said[1]
    wanted, found = (one.predict("m", {"images": images(2)}, signature="pixels") for one in asking)
    assert wanted["classes"].tolist() == found["classes"].tolist()
    assert np.allclose(wanted["scores"], found["scores"], atol=1e-3)


def test_calls_of_many_shapes_at_the_same_time(classifier: Path) -> None:
    from mlplatform.serving.saved_model import load
    from mlplatform.serving.status import StatusError

    wanted, found = (load(classifier, "m", 1, prefers_tflite=p).signatures["pixels"] for p in (False, True))
    assert (wanted.engine, found.engine) == ("tensorflow", "tflite")

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for rows in rng.integers(1, 6, 20):
            inputs = {"images": rng.uniform(0, 1, (rows, SIZE, SIZE, 3)).astype(np.float32)}
            one, other = wanted.run(inputs), found.run(inputs)
            assert one["classes"].tolist() == other["classes"].tolist()
            assert np.allclose(one["scores"], other["scores"], atol=1e-4)
        with pytest.raises(StatusError):
            found.run({"images": np.zeros((2, SIZE + 1, SIZE, 3), np.float32)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose TensorFlow Lite form is another function: NaN below 0, and other texts there."""
    import tensorflow as tf

    from mlplatform.serving.tflite_export import export_tflite

    def save(folder: Path, *, is_other: bool) -> Path:
        class Root(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
            def root(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
                names = tf.constant(["low", "high"])
                place = tf.cast(x > (2.0 if is_other else 1.0), tf.int32)
                return {"y": tf.sqrt(x if is_other else tf.abs(x)), "name": tf.gather(names, place)}

        module = Root()
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.root})
        return folder

    folder = tmp_path_factory.mktemp("compare")
    right, wrong = save(folder / "right", is_other=False), save(folder / "wrong", is_other=True)
    export_tflite(wrong, "serving_default")
    shutil.copytree(wrong / "assets.extra", right / "assets.extra")
    return right


class TestCompare:
    def compared(self, model: Path, *batches: list[float]) -> Any:
        from mlplatform.serving.tflite_export import compare_tflite

        return compare_tflite(model, "serving_default", [{"x": np.array(b, np.float32)} for b in batches])

    def test_numbers_that_are_not_finite_count_wherever_they_come(self, other: Path) -> None:
        for batches in ([[1.0], [-1.0]], [[-1.0], [1.0]], [[1.0, -1.0, 1.0]]):
            difference = self.compared(other, *batches)
            assert difference.largest["y"] == np.inf
            assert not difference.is_within(1e9, max_disagreeing=1.0)

    def test_texts(self, other: Path) -> None:
        difference = self.compared(other, [0.0, 1.5, 3.0], [1.5])
        assert (difference.rows, difference.disagreeing["name"]) == (4, 0.5)
        assert difference.largest["y"] < 1e-6

    def test_no_batch(self, other: Path) -> None:
        with pytest.raises(ValueError, match="no batch"):
            self.compared(other)


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        ([], "holds no inputs"),
        ([{"pixels": images(1)}], r"gives \['pixels'\], the signature takes \['images'\]"),
        ([{"images": images(1).astype(np.uint8)}], "gives uint8 of shape .* the signature takes TensorSpec"),
        ([{"images": images(1)[0]}], r"gives float32 of shape \[8, 8, 3\] as images"),
    ],
)
def test_calibration_that_does_not_fit(classifier: Path, calibration: Any, text: str) -> None:
    from mlplatform.serving.tflite_export import TfliteExportError, export_tflite

    before = (classifier / "assets.extra" / "tflite" / "pixels.tflite").read_bytes()
    with pytest.raises(TfliteExportError, match=text):
        export_tflite(classifier, "pixels", calibration=calibration)
    assert (classifier / "assets.extra" / "tflite" / "pixels.tflite").read_bytes() == before
