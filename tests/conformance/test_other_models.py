"""TensorFlow Lite models, several classes, replicas, free method names, large messages; a file not polled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2

pytestmark = pytest.mark.e2e


def _save_classes(folder: Path) -> None:
    """Signatures of TensorFlow 2, which all say that their method is predict, as Classify may call them."""

    class Classes(tf.Module):
        def result(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
            x = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
            names = tf.tile([["cat", "dog"]], [tf.size(x), 1])
            return {"classes": names, "scores": tf.stack([x, 1.0 - x], axis=1)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
        def both(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.result(inputs)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
        def labels(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"classes": self.result(inputs)["classes"]}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
        def scores(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"scores": self.result(inputs)["scores"]}

    module = Classes()
    signatures = {"serving_default": module.both, "labels": module.labels, "scores": module.scores}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _save_mirrored(folder: Path) -> None:
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        weight = tf.Variable(3.0)

    class Mirrored(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = weight

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def times(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x * self.weight}

    module = Mirrored()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.times})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, push: Any) -> Path:
    root = tmp_path_factory.mktemp("other")
    _save_classes(root / "classes" / "1")
    _save_mirrored(root / "mirrored" / "1")
    for name in ("lite", "lite_plain", "everything"):
        push(root / name, 1, f"{name}/1")
    push(root / "looked_at", 1)
    return root


def config(root: Path, *names: str) -> str:
    entries = (
        f'config {{ name: "{n}" base_path: "{root / n}" model_platform: "tensorflow" }}' for n in names
    )
    return f"model_config_list {{ {' '.join(entries)} }}"


NAMES = ("classes", "mirrored", "lite", "lite_plain", "everything", "looked_at")


@pytest.fixture(scope="module")
def server(serve: Any, root: Path) -> Any:
    file = root / "models.config"
    file.write_text(config(root, *NAMES))
    return serve(f"--model_config_file={file}", "--prefer_tflite_model=true")


def test_a_config_file_that_is_not_polled(server: Any, root: Path, push: Any, wait_for: Any) -> None:
    """Folders are: two new versions have been seen since, and the file still has not."""
    (root / "models.config").write_text(config(root, *NAMES[1:]))
    for version in (2, 3):
        push(root / "looked_at", version)
        wait_for(lambda version=version: server.states("looked_at").get(version) == "AVAILABLE")
    assert server.states("classes") == {1: "AVAILABLE"}


@pytest.mark.parametrize("name", ["lite", "lite_plain"])
def test_tflite_with_and_without_signatures(server: Any, name: str) -> None:
    for rows in (1, 3):
        x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
        (y,) = server.predict(name, {"x": x}).values()
        assert y.tolist() == (2 * x).tolist()
    answer = server.rest(f"/v1/models/{name}:predict", {"instances": [[1.0, 2.0]]})
    assert answer.body == {"predictions": [[2.0, 4.0]]}


def test_a_model_of_a_mirrored_strategy(server: Any) -> None:
    assert server.predict("mirrored", {"x": np.array([2.0], np.float32)})["y"].tolist() == [6.0]


class TestClassify:
    """The method name of a signature is not looked at: these say predict."""

    def ask(self, server: Any, signature: str) -> Any:
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name, request.model_spec.signature_name = "classes", signature
        for value in (0.25, 0.75):
            example = request.input.example_list.examples.add()
            example.features.feature["x"].float_list.value.append(value)
        answer = server.stub.Classify(request, timeout=30)
        return [[(c.label, c.score) for c in one.classes] for one in answer.result.classifications]

    def test_labels_and_scores(self, server: Any) -> None:
        assert self.ask(server, "") == [[("cat", 0.25), ("dog", 0.75)], [("cat", 0.75), ("dog", 0.25)]]

    def test_labels_alone(self, server: Any) -> None:
        assert self.ask(server, "labels") == [[("cat", 0), ("dog", 0)]] * 2

    def test_scores_alone(self, server: Any) -> None:
        assert self.ask(server, "scores") == [[("", 0.25), ("", 0.75)], [("", 0.75), ("", 0.25)]]

    def test_over_rest(self, server: Any) -> None:
        answer = server.rest("/v1/models/classes:classify", {"examples": [{"x": 0.25}]})
        assert answer.body == {"results": [[["cat", 0.25], ["dog", 0.75]]]}


def test_messages_beyond_the_default_limit_of_grpc(server: Any) -> None:
    x = np.ones(2_000_000, np.float32)  # 8 MB each way
    assert server.predict("everything", {"x": x}, "same_float")["y"].shape == x.shape


def test_alone_as_in_batches(server: Any) -> None:
    """Batching is off here; the server of the other files has it on."""
    two = {"a": np.array([5.0], np.float32), "b": np.array([2.0], np.float32)}
    assert server.predict("everything", two, "two")["difference"].tolist() == [3.0]
    first, second = (int(server.predict("everything", {}, "count")["calls"]) for _ in range(2))
    assert second == first + 1


def test_an_unreadable_config_file_stops_the_start(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text("model_config_list { confug {} }")
    server = start([f"--model_config_file={file}"], tmp_path / "server.log")
    code = server.process.wait(timeout=120)
    assert code != 0
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in server.text()
