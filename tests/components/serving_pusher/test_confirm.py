"""A push that real servers confirm, or that is taken back, over real sockets."""

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from mlplatform.components.serving_pusher import push as push_module
from mlplatform.components.serving_pusher.confirm import ServerTls
from mlplatform.components.serving_pusher.errors import (
    PushRejectedByServerError,
    ServerRefusesError,
)
from mlplatform.components.serving_pusher.push import push_and_confirm
from mlplatform.errors import GateError
from mlplatform.exported_model.contents import WarmupError
from mlplatform.registry import ModelStore
from mlplatform.registry.errors import ModelWithdrawnError
from mlplatform.serving import ModelServer
from mlplatform.serving.client import ServerAddressError
from mlplatform.serving.warmup import WARMUP_FILE
from mlplatform.vision.signatures import export_image_classifier

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
        file = folder / WARMUP_FILE
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
    again = push_and_confirm(tmp_path / "m", store, "scale", servers=[server], timeout_s=30, keep=1)
    assert (again.version.version, again.is_new) == (2, False)
    assert visible(store) == [2]
    assert [e["event"] for e in store.ledger("scale")] == ["push", "push", "confirm", "confirm", "remove"]


def test_a_version_that_answers_wrong_is_rolled_back(store: ModelStore, server: str, tmp_path: Path) -> None:
    model = scaling_model(tmp_path / "m", 3.0, golden_answer=7.0)
    with pytest.raises(
        PushRejectedByServerError, match="answered golden request 1 of 1 with other y"
    ) as told:
        push_and_confirm(model, store, "scale", servers=[server], timeout_s=30, keep=1)
    assert isinstance(told.value, GateError)
    assert "Version 1 goes on serving" in str(pickle.loads(pickle.dumps(told.value)))
    assert visible(store) == [1]  # though only one was to be kept
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
    with pytest.raises(PushRejectedByServerError, match="did not have it within 1 s") as told:
        push_and_confirm(model, store, "scale", servers=["127.0.0.1:9"], timeout_s=1)
    assert "There is no version before it, so nothing serves" in str(told.value)
    assert visible(store) == []


def test_a_version_that_was_confirmed_before_stays(store: ModelStore, server: str, tmp_path: Path) -> None:
    model = scaling_model(tmp_path / "m", 3.0, golden_answer=6.0)
    push_and_confirm(model, store, "scale", servers=[server], timeout_s=30)
    with pytest.raises(PushRejectedByServerError, match="stays pushed") as told:
        push_and_confirm(model, store, "scale", servers=["127.0.0.1:9"], timeout_s=1)
    assert "rolled back" not in str(told.value)
    assert visible(store) == [1, 2]


def test_a_version_that_was_pushed_without_servers_stays(store: ModelStore, tmp_path: Path) -> None:
    model = scaling_model(tmp_path / "m", 3.0)
    push_and_confirm(model, store, "scale")
    store.promote("scale", "1")
    for _ in range(2):  # what a failed run notes does not let the next one take it back
        with pytest.raises(PushRejectedByServerError, match="stays pushed") as told:
            push_and_confirm(model, store, "scale", servers=["127.0.0.1:9"], timeout_s=1)
        assert "rolled back" not in str(told.value)
    assert visible(store) == [1]
    assert store.version("scale", "stable").version == 1


def test_what_was_rolled_back_while_it_waited_is_told_as_that(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(address: str, name: str, version: int, *_: object, **__: object) -> int:
        store.withdraw(name, version, why="by hand")
        raise ServerRefusesError(address, "went away")

    monkeypatch.setattr(push_module, "confirm_serving", refused)
    with pytest.raises(PushRejectedByServerError, match="was pushed and rolled back: server h:1 went away"):
        push_and_confirm(scaling_model(tmp_path / "m", 3.0), store, "scale", servers=["h:1"])
    assert visible(store) == []


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and the certificate that it signed itself, for this machine."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return key, cert


@pytest.mark.parametrize("is_mutual", [False, True])
def test_a_server_with_tls_confirms(store: ModelStore, tmp_path: Path, is_mutual: bool) -> None:
    key, cert = certificate(tmp_path)
    text = f"server_key: {json.dumps(key.read_text())} server_cert: {json.dumps(cert.read_text())}"
    if is_mutual:
        text += f" custom_ca: {json.dumps(cert.read_text())} client_verify: true"
    (tmp_path / "ssl.config").write_text(text)
    model = scaling_model(tmp_path / "m", 3.0, golden_answer=6.0)
    push_and_confirm(scaling_model(tmp_path / "first", 2.0), store, "scale")
    tls = ServerTls(str(cert), *((str(cert), str(key)) if is_mutual else ()))
    with ModelServer(
        model_name="scale",
        model_base_path=store.models_dir / "scale",
        port=0,
        rest_api_port=0,
        file_system_poll_wait_seconds=0.1,
        ssl_config_file=str(tmp_path / "ssl.config"),
    ) as running:
        address = f"localhost:{running.grpc_port}"
        pushed = push_and_confirm(model, store, "scale", servers=[address], timeout_s=60, tls=tls)
        assert (pushed.version.version, pushed.confirmed_by) == (2, (address,))
        with pytest.raises(PushRejectedByServerError, match="did not have it within 1 s"):
            push_and_confirm(model, store, "scale", servers=[address], timeout_s=1)


def test_a_server_confirms_over_rest(store: ModelStore, tmp_path: Path) -> None:
    push_and_confirm(scaling_model(tmp_path / "first", 2.0), store, "scale")
    with ModelServer(
        model_name="scale",
        model_base_path=store.models_dir / "scale",
        port=-1,
        rest_api_port=0,
        file_system_poll_wait_seconds=0.1,
    ) as running:
        servers = [f"http://127.0.0.1:{running.rest_port}"]
        wrong = scaling_model(tmp_path / "wrong", 3.0, golden_answer=7.0)
        with pytest.raises(PushRejectedByServerError, match="with other y"):
            push_and_confirm(wrong, store, "scale", servers=servers, timeout_s=60)
        right = scaling_model(tmp_path / "right", 3.0, golden_answer=6.0)
        push_and_confirm(right, store, "scale", servers=servers, timeout_s=60)
    assert visible(store) == [1, 3]


def test_what_was_rolled_back_is_not_pushed_again(store: ModelStore, tmp_path: Path) -> None:
    first, second = (scaling_model(tmp_path / name, factor) for name, factor in (("a", 2.0), ("b", 3.0)))
    push_and_confirm(first, store, "scale")
    push_and_confirm(second, store, "scale")
    store.rollback("scale", why="bad on shoes")
    with pytest.raises(ModelWithdrawnError, match="bad on shoes"):
        push_and_confirm(second, store, "scale")
    assert visible(store) == [1]
    allowed = push_and_confirm(second, store, "scale", allows_withdrawn=True)
    assert (allowed.version.version, allowed.is_new) == (3, True)


PUSH = """
import sys
from pathlib import Path
from mlplatform.components.serving_pusher.push import push_and_confirm
from mlplatform.registry import ModelStore
push_and_confirm(Path(sys.argv[1]), ModelStore(Path(sys.argv[2])), "scale", servers=["127.0.0.1:9"])
"""


def killed_while_it_waits(processes: Any, store: ModelStore, model: Path) -> None:
    """Push, with a server that is not there, and die as soon as the version is to be seen."""
    before = visible(store) if store.names() else []
    command = [sys.executable, "-c", PUSH, str(model), str(store.models_dir)]
    with (model.parent / "pushing.log").open("w") as log:
        process = processes.Popen(command, stdout=log)
    deadline = time.monotonic() + 120
    while not store.names() or visible(store) == before:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()


@pytest.mark.parametrize("decision", ["push", "promote"])
def test_a_version_that_was_taken_as_it_is_after_a_kill_stays(
    warm_processes: Any, store: ModelStore, tmp_path: Path, decision: str
) -> None:
    model = scaling_model(tmp_path / "m", 3.0)
    killed_while_it_waits(warm_processes, store, model)
    if decision == "push":
        push_and_confirm(model, store, "scale")
    else:
        store.promote("scale", "1")
    with pytest.raises(PushRejectedByServerError, match="stays pushed"):
        push_and_confirm(model, store, "scale", servers=["127.0.0.1:9"], timeout_s=1)
    assert visible(store) == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whatever_ends_the_waiting_takes_the_push_back(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(push_module, "confirm_serving", interrupted)
    with pytest.raises(error):
        push_and_confirm(scaling_model(tmp_path / "m", 3.0), store, "scale", servers=["127.0.0.1:9"])
    assert visible(store) == []
    assert store.ledger("scale")[-1]["why"] == error.__name__


def test_a_push_killed_while_it_waits_is_decided_by_the_next(
    warm_processes: Any, store: ModelStore, server: str, tmp_path: Path
) -> None:
    model = scaling_model(tmp_path / "m", 3.0, golden_answer=7.0)
    killed_while_it_waits(warm_processes, store, model)

    with pytest.raises(PushRejectedByServerError, match="rolled back"):
        push_and_confirm(model, store, "scale", servers=[server], timeout_s=30)

    assert visible(store) == [1]
    assert [e["event"] for e in store.ledger("scale")] == ["push", "push", "rollback"]


def test_a_damaged_golden_request_is_told_before_the_push(store: ModelStore, tmp_path: Path) -> None:
    model = scaling_model(tmp_path / "m", 3.0, golden_answer=6.0)
    (model / WARMUP_FILE).write_bytes((model / WARMUP_FILE).read_bytes()[:-3])
    with pytest.raises(WarmupError, match="cannot be read"):
        push_and_confirm(model, store, "scale", servers=["127.0.0.1:9"])
    assert store.names() == []


@pytest.mark.parametrize("address", ["localhost", "localhost:", "localhost:http", "localhost:0", "h:70000"])
def test_an_address_that_is_none_is_told(store: ModelStore, tmp_path: Path, address: str) -> None:
    with pytest.raises(ServerAddressError, match="HOST:PORT"):
        push_and_confirm(scaling_model(tmp_path / "m", 1.0), store, "scale", servers=[address])
    assert store.names() == []


def test_an_image_model_is_confirmed_though_classes_that_score_alike_change_places(
    colours: ModuleType, store: ModelStore, tmp_path: Path
) -> None:
    """All of 24 classes score about alike; another processor ranks those in another order."""
    network = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.AveragePooling2D(8),
            keras.layers.Flatten(),
            keras.layers.Dense(24, kernel_initializer=keras.initializers.RandomNormal(stddev=1e-4)),
        ]
    )
    folder = tmp_path / "m"
    export_image_classifier(network, [f"c{n}" for n in range(24)], 32, folder, samples=colours.examples(2))
    logs = read_logs(folder)
    for log in logs:
        classes = tf.make_ndarray(log.predict_log.response.outputs["classes"])
        order = [0, 1, 2, 3, 4, 5, 6, 9, 7, 8]
        swapped = tf.make_tensor_proto(classes[:, order])
        log.predict_log.response.outputs["classes"].CopyFrom(swapped)
    write_logs(folder, logs)
    push_and_confirm(folder, store, "photos")  # a server waits for its first version
    with ModelServer(
        model_name="photos",
        model_base_path=store.models_dir / "photos",
        port=0,
        rest_api_port=0,
        file_system_poll_wait_seconds=0.1,
    ) as running:
        server = f"127.0.0.1:{running.grpc_port}"
        pushed = push_and_confirm(folder, store, "photos", servers=[server], timeout_s=60)
        assert pushed.confirmed_by == (server,)

        for log in logs:  # the best class is another, and surely so
            scores = log.predict_log.response.outputs["scores"]
            values = tf.make_ndarray(scores).copy()
            values[:, 0] += 0.5
            scores.CopyFrom(tf.make_tensor_proto(values))
        write_logs(folder, logs)
        with pytest.raises(PushRejectedByServerError, match="with other scores"):
            push_and_confirm(folder, store, "photos", servers=[server], timeout_s=60)


def read_logs(model: Path) -> list[prediction_log_pb2.PredictionLog]:
    records = tf.data.TFRecordDataset(str(model / WARMUP_FILE)).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records]


def write_logs(model: Path, logs: list[prediction_log_pb2.PredictionLog]) -> None:
    with tf.io.TFRecordWriter(str(model / WARMUP_FILE)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())
