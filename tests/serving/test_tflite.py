"""The TensorFlow Lite form of a signature: same refusals, honest comparison, clear errors of the export."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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

    from mlplatform.exported_model.tflite_export import export_tflite
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


@pytest.fixture(scope="module")
def with_any_batch(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same classifier beside a TensorFlow Lite file that takes any batch, as others write them."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(classifier))
    folder = tmp_path_factory.mktemp("any-batch") / "1"
    shutil.copytree(classifier, folder)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([loaded.signatures["pixels"]], loaded)
    (folder / "assets.extra" / "tflite" / "pixels.tflite").write_bytes(converter.convert())
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


@pytest.mark.parametrize("is_int8", [False, True])
def test_the_optimised_kernels_take_the_whole_network(
    classifier: Path, tmp_path: Path, is_int8: bool
) -> None:
    """Without a tensor of unknown size in the file, for one alone keeps them away from all of it."""
    from mlplatform.exported_model.tflite_export import export_tflite
    from mlplatform.serving.tflite_model import SizedInterpreter, texts_apart

    folder = shutil.copytree(classifier, tmp_path / "1")
    file = export_tflite(folder, "pixels", calibration=[{"images": images(3)}] if is_int8 else None)
    content, texts = texts_apart(file.read_bytes())
    assert {alias: table.tolist() for alias, table in texts.items()} == {"classes": [b"a", b"b", b"c"]}
    lite = SizedInterpreter(content).lite
    lite.allocate_tensors()
    operators = {operator["op_name"]: operator for operator in lite._get_ops_details()}
    taken = [operator for operator in lite._get_ops_details() if operator["op_name"] == "DELEGATE"]
    (network,) = (one for one in taken if operators["FULLY_CONNECTED"]["inputs"][1] in one["inputs"])
    first, after = (
        ("RESHAPE", "SOFTMAX") if is_int8 else ("MINIMUM", "TOPK_V2")
    )  # there is no int8 clip, softmax
    assert operators[first]["inputs"][0] in network["inputs"]
    assert list(network["outputs"]) == [operators[after]["inputs"][0]]


@pytest.mark.parametrize("kind", ["classifier", "with_any_batch"])
def test_calls_of_many_shapes_at_the_same_time(kind: str, request: pytest.FixtureRequest) -> None:
    from mlplatform.serving.saved_model import load
    from mlplatform.serving.status import StatusError

    folder = request.getfixturevalue(kind)
    wanted, found = (load(folder, "m", 1, prefers_tflite=p).signatures["pixels"] for p in (False, True))
    assert (wanted.engine, found.engine) == ("tensorflow", "tflite")

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for rows in rng.integers(1, 6, 8):
            inputs = {"images": rng.uniform(0, 1, (rows, SIZE, SIZE, 3)).astype(np.float32)}
            one, other = wanted.run(inputs), found.run(inputs)
            assert one["classes"].tolist() == other["classes"].tolist()
            assert np.allclose(one["scores"], other["scores"], atol=1e-4)
        with pytest.raises(StatusError):
            found.run({"images": np.zeros((2, SIZE + 1, SIZE, 3), np.float32)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))


def test_many_rows_are_computed_by_the_saved_model(classifier: Path) -> None:
    from mlplatform.serving.saved_model import load
    from mlplatform.serving.tflite_model import MAX_ROWS

    wanted, found = (load(classifier, "m", 1, prefers_tflite=p).signatures["pixels"] for p in (False, True))
    inputs = {"images": images(MAX_ROWS + 1)}
    assert np.array_equal(wanted.run(inputs)["scores"], found.run(inputs)["scores"])


def save(folder: Path, root: Any, **inputs: Any) -> Path:
    """Save a function of `inputs` as `serving_default`, and its TensorFlow Lite form."""
    import tensorflow as tf

    from mlplatform.exported_model.tflite_export import export_tflite

    module = tf.Module()
    specs = {alias: tf.TensorSpec(shape, dtype, name=alias) for alias, (shape, dtype) in inputs.items()}
    module.root = tf.function(root, autograph=False).get_concrete_function(**specs)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.root})
    export_tflite(folder, "serving_default")
    return folder


def test_texts_of_every_kind_and_places_outside_of_them(tmp_path: Path) -> None:
    import tensorflow as tf

    from mlplatform.serving.saved_model import load
    from mlplatform.serving.status import StatusError
    from mlplatform.serving.tflite_model import texts_apart

    names, others = ["", "é", "a\nb", "\0"], ["zero", "one"]

    def pick(x: Any) -> Any:
        name = tf.gather(tf.constant(names), x)
        return {
            "name": name,
            "again": name,
            "other": tf.gather(tf.constant(others), x[:, 0]),
            "x": x + 1,
        }

    folder = save(tmp_path / "1", pick, x=([None, 2], tf.int32))
    _, texts = texts_apart((folder / "assets.extra" / "tflite" / "serving_default.tflite").read_bytes())
    assert set(texts) >= {"name", "again"}
    found = load(folder, "m", 1, prefers_tflite=True).signatures["serving_default"]
    assert found.engine == "tflite"
    answer = found.run({"x": np.array([[0, 1], [1, 3], [1, 2]], np.int32)})
    assert answer["name"].tolist() == [[b"", "é".encode()], ["é".encode(), b"\0"], ["é".encode(), b"a\nb"]]
    assert answer["again"].tolist() == answer["name"].tolist()
    assert answer["other"].tolist() == [b"zero", b"one", b"one"]
    assert answer["x"].tolist() == [[1, 2], [2, 4], [2, 3]]
    for outside in (4, -1):
        with pytest.raises(StatusError, match="outside its 4 texts"):
            found.run({"x": np.array([[0, outside]], np.int32)})


def test_a_signature_whose_rows_belong_together_is_converted_as_it_is(tmp_path: Path) -> None:
    import tensorflow as tf

    from mlplatform.serving.saved_model import load

    folder = save(tmp_path / "1", lambda x: {"total": tf.reduce_sum(x)}, x=([None], tf.float32))
    found = load(folder, "m", 1, prefers_tflite=True).signatures["serving_default"]
    assert found.engine == "tflite"
    assert [float(found.run({"x": np.ones(n, np.float32)})["total"]) for n in (1, 3, 2)] == [1, 3, 2]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose TensorFlow Lite form is another function: NaN below 0, and other texts there."""
    import tensorflow as tf

    def root(x: tf.Tensor, *, is_other: bool) -> dict[str, tf.Tensor]:
        place = tf.cast(x > (2.0 if is_other else 1.0), tf.int32)
        return {
            "y": tf.sqrt(x if is_other else tf.abs(x)),
            "name": tf.gather(tf.constant(["low", "high"]), place),
        }

    folder = tmp_path_factory.mktemp("compare")
    right, wrong = (
        save(folder / name, partial(root, is_other=name == "wrong"), x=([None], tf.float32))
        for name in ("right", "wrong")
    )
    shutil.copytree(wrong / "assets.extra", right / "assets.extra", dirs_exist_ok=True)
    return right


class TestCompare:
    def compared(self, model: Path, *batches: list[float]) -> Any:
        from mlplatform.exported_model.tflite_export import compare_tflite

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

    def test_rows_that_the_server_leaves_to_the_saved_model(self, other: Path) -> None:
        difference = self.compared(other, [1.5] * 100)
        assert (difference.rows, difference.disagreeing["name"]) == (100, 1.0)

    def test_no_batch(self, other: Path) -> None:
        for batches in ([], [[]]):
            with pytest.raises(ValueError, match="no batch"):
                self.compared(other, *batches)


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
    from mlplatform.exported_model.tflite_export import TfliteExportError, export_tflite

    before = (classifier / "assets.extra" / "tflite" / "pixels.tflite").read_bytes()
    with pytest.raises(TfliteExportError, match=text):
        export_tflite(classifier, "pixels", calibration=calibration)
    assert (classifier / "assets.extra" / "tflite" / "pixels.tflite").read_bytes() == before
