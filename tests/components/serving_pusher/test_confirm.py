"""A push that real servers confirm, or that is taken back, over real sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from mlplatform.components.serving_pusher.confirm import GOLDEN_REQUESTS_FILE
from mlplatform.components.serving_pusher.errors import PushRejectedByServerError, ServerAddressError
from mlplatform.components.serving_pusher.push import push_and_confirm
from mlplatform.registry import ModelStore
from mlplatform.serving import ModelServer

pytestmark = pytest.mark.e2e


def scaling_model(folder: Path, factor: float, *, golden_answer: float | None = None) -> Path:
    """A SavedModel that multiplies by `factor`, with one golden request: 2.0."""
    module = tf.Module()
    module.factor = tf.Variable(factor)
    scale = tf.function(
        lambda x: {"y": x * module.factor}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
    )
    module.scale = scale
    tf.saved_model.save(module, str(folder), signatures={"serving_default": scale})
    if golden_answer is not None:
        log = prediction_log_pb2.PredictLog(
            request=predict_pb2.PredictRequest(inputs={"x": tf.make_tensor_proto([2.0])}),
            response=predict_pb2.PredictResponse(outputs={"y": tf.make_tensor_proto([golden_answer])}),
        )
        file = folder / GOLDEN_REQUESTS_FILE
        file.parent.mkdir()
        with tf.io.TFRecordWriter(str(file)) as writer:
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def server(store: ModelStore, tmp_path: Path) -> Iterator[str]:
    """A server that has version 1, which doubles; yields its gRPC address."""
    push_and_confirm(scaling_model(tmp_path / "first", 2.0, golden_answer=4.0), store, "scale")
    with ModelServer(
        model_name="scale",
        model_base_path=store.models_dir / "scale",
        port=0,
        rest_api_port=0,
        file_system_poll_wait_seconds=0.1,
    ) as running:
        yield f"127.0.0.1:{running.grpc_port}"


def visible(store: ModelStore) -> list[int]:
    return [v.version for v in store.versions("scale") if not v.is_withdrawn]


def test_a_good_version_is_confirmed(store: ModelStore, server: str, tmp_path: Path) -> None:
    pushed = push_and_confirm(
        scaling_model(tmp_path / "m", 3.0, golden_answer=6.0), store, "scale", servers=[server], timeout_s=30
    )
    assert (pushed.version.version, pushed.confirmed_by) == (2, (server,))
    assert visible(store) == [1, 2]


def test_a_version_that_answers_wrong_is_rolled_back(store: ModelStore, server: str, tmp_path: Path) -> None:
    model = scaling_model(tmp_path / "m", 3.0, golden_answer=7.0)
    with pytest.raises(PushRejectedByServerError, match="answered golden request 1 of 1 with other y"):
        push_and_confirm(model, store, "scale", servers=[server], timeout_s=30)
    assert visible(store) == [1]
    assert store.version("scale", "2").is_withdrawn


def test_a_version_that_cannot_be_loaded_is_rolled_back(
    store: ModelStore, server: str, tmp_path: Path
) -> None:
    model = scaling_model(tmp_path / "m", 3.0, golden_answer=6.0)
    (model / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(PushRejectedByServerError, match="failed to load it"):
        push_and_confirm(model, store, "scale", servers=[server], timeout_s=30)
    assert visible(store) == [1]


def test_a_server_that_is_not_there_takes_the_push_back(store: ModelStore, tmp_path: Path) -> None:
    model = scaling_model(tmp_path / "m", 3.0)
    with pytest.raises(PushRejectedByServerError, match="did not have it within 1 s"):
        push_and_confirm(model, store, "scale", servers=["127.0.0.1:9"], timeout_s=1)
    assert visible(store) == []


def test_an_address_that_is_none_is_told(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(ServerAddressError, match="HOST:PORT"):
        push_and_confirm(scaling_model(tmp_path / "m", 1.0), store, "scale", servers=["localhost"])
    assert store.names() == []
