"""The servers under test: our own, or any that speaks TensorFlow Serving's API.

Most tests ask one server that holds the models of `tests/serving/models.py`. Those that need another
configuration start a server for it. Two ways to test another server than ours:

- `CONFORMANCE_SERVER="tensorflow_model_server"`: a command that takes TensorFlow Serving's flags. Every test
  runs; for a container give `docker run --rm --network host -v /tmp:/tmp tensorflow/serving`, with models and
  configuration lying under /tmp.
- `CONFORMANCE_GRPC=HOST:8500 CONFORMANCE_REST=http://HOST:8501`: a server that runs already on the models
  (`python tests/serving/models.py FOLDER`, then `--model_config_file=FOLDER/models.config`). Tests that need
  other configurations are skipped.
"""

import importlib.util
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

START_S = 120.0  # a container that is fetched first takes longest


def _sibling(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"serving_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _running() -> Any:
    return _sibling(Path(__file__).parents[1] / "serving" / "running.py")


@dataclass
class Answer:
    status: int
    body: Any
    text: str
    content_type: str

    @property
    def error(self) -> str:
        return str(self.body["error"])


@dataclass
class Target:
    """A running server.

    Attributes:
        is_ours: False where the environment names another.
        log: What the server writes, where it was started here.
    """

    grpc: str
    rest_url: str
    is_ours: bool
    log: Path | None = None

    def text(self) -> str:
        """Return what the server has logged so far."""
        return self.log.read_text("utf-8", "replace") if self.log else ""

    def rest(self, path: str, body: Any = None, *, method: str | None = None) -> Answer:
        """Ask `path`; a body that is not bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.rest_url + path, data=data, method=method)
        try:
            response = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            text = response.read().decode()
            kind = response.headers.get("Content-Type", "")
            parsed = json.loads(text) if "json" in kind and text else None
            return Answer(response.status, parsed, text, kind)

    @cached_property
    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.grpc, options=[("grpc.max_receive_message_length", -1)])

    @cached_property
    def stub(self) -> Any:
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    @cached_property
    def model_stub(self) -> Any:
        from tensorflow_serving.apis import model_service_pb2_grpc

        return model_service_pb2_grpc.ModelServiceStub(self.channel)

    def close(self) -> None:
        if "channel" in self.__dict__:
            self.channel.close()

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        signature: str = "",
        version: int | None = None,
        label: str = "",
    ) -> dict[str, Any]:
        """Call Predict with arrays, once; return arrays."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        if version is not None:
            request.model_spec.version.value = version
        if label:
            request.model_spec.version_label = label
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        answer = self.stub.Predict(request, timeout=60, wait_for_ready=True)
        return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}

    def half(self, model: str = "half", **spec: Any) -> float:
        """Ask `y = 0.5 x + (2 or 3)` about 2: half_plus_two says 3, half_plus_three 4."""
        import numpy as np

        return float(self.predict(model, {"x": np.array([[2.0]], np.float32)}, **spec)["y"][0, 0])

    def states(self, model: str = "half") -> dict[int, str]:
        """Return the state of each version; none where the model is unknown."""
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            answer = self.model_stub.GetModelStatus(request, timeout=30)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        names = get_model_status_pb2.ModelVersionStatus.State
        return {s.version: names.Name(s.state) for s in answer.model_version_status}

    def reload(self, *entries: Mapping[str, Any]) -> None:
        """Call HandleReloadConfigRequest with these entries."""
        from tensorflow_serving.apis import model_management_pb2

        request = model_management_pb2.ReloadConfigRequest()
        for entry in entries:
            plain = {k: v for k, v in entry.items() if k != "version_labels"}
            added = request.config.model_config_list.config.add(**{"model_platform": "tensorflow", **plain})
            added.version_labels.update(entry.get("version_labels", {}))
        answer = self.model_stub.HandleReloadConfigRequest(request, timeout=60)
        assert answer.status.error_code == 0


class Server:
    """A server as a process, of the command under test; ours is started by `processes`."""

    def __init__(self, flags: Sequence[str], log: Path, processes: Any = subprocess) -> None:
        other = os.environ.get("CONFORMANCE_SERVER")
        command = shlex.split(other) if other else [sys.executable, "-m", "mlplatform.cli.main", "serve"]
        self.is_ours, self.log = other is None, log
        self.grpc_port, self.rest_port = _free_ports(2)
        ports = (f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port}")
        with log.open("w") as file:
            self.process = (subprocess if other else processes).Popen(
                [*command, *ports, *flags], stdout=file, stderr=file
            )

    def wait_until_open(self) -> Target:
        """Wait for both ports: from then on every configured model must answer."""
        deadline = time.monotonic() + START_S
        for port in (self.rest_port, self.grpc_port):
            while not _is_open(port):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"the server did not start:\n{self.text()}")
                time.sleep(0.05)
        return Target(
            f"127.0.0.1:{self.grpc_port}", f"http://127.0.0.1:{self.rest_port}", self.is_ours, self.log
        )

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _is_open(port: int) -> bool:
    try:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of all test models; not to be changed."""
    folder: Path = _running().model_folder()
    return folder


@pytest.fixture(scope="session")
def target(models: Path, warm_processes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The server with all models of `tests/serving/models.py`."""
    root = tmp_path_factory.mktemp("conformance")
    if "CONFORMANCE_GRPC" in os.environ:
        target = Target(os.environ["CONFORMANCE_GRPC"], os.environ["CONFORMANCE_REST"], is_ours=False)
        yield target
    elif "CONFORMANCE_SERVER" in os.environ:
        shutil.copytree(models, root / "models")
        names = ("half_plus_two", "half_plus_three", "everything", "keras", "warm")
        entries = (
            f'config {{ name: "{n}" base_path: "{root / "models" / n}" model_platform: "tensorflow" }}'
            for n in names
        )
        config = root / "models.config"
        config.write_text(f"model_config_list {{ {' '.join(entries)} }}")
        server = Server([f"--model_config_file={config}"], root / "server.log")
        target = server.wait_until_open()
        yield target
        server.stop()
    else:
        (root / "models").symlink_to(models)
        log = root / "server.log"
        ours = _running().ServerProcess("--root", str(root), log=log, processes=warm_processes)
        target = Target(ours.grpc, ours.rest, is_ours=True)
        yield target
        assert ours.stop() == 0
    target.close()


@pytest.fixture(scope="session")
def start(warm_processes: Any) -> Callable[[Sequence[str], Path], Server]:
    """Start a server of the command under test: `start(flags, log)`."""
    if "CONFORMANCE_GRPC" in os.environ:
        pytest.skip("needs servers of several configurations: set CONFORMANCE_SERVER")
    return partial(Server, processes=warm_processes)


@pytest.fixture(scope="module")
def serve(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Target]]:
    """Start servers with flags, `serve(*flags)`; they are stopped after the module, ours with code 0."""
    started: list[tuple[Server, Target]] = []

    def serve(*flags: str) -> Target:
        server = start(flags, tmp_path_factory.mktemp("server") / "server.log")
        target = server.wait_until_open()
        started.append((server, target))
        return target

    yield serve
    for server, target in started:
        target.close()
        assert server.stop() == 0 or not server.is_ours, server.text()


@pytest.fixture(scope="session")
def push(models: Path) -> Callable[..., None]:
    """Put a version under a base path, in one step: half_plus_three, or another model."""

    def push(base: Path, version: int, model: str = "half_plus_three/1") -> None:
        partial = base.with_name(f".{base.name}-{version}")
        shutil.copytree(models / model, partial)
        base.mkdir(parents=True, exist_ok=True)
        partial.rename(base / str(version))

    return push


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """Wait until a condition holds; versions and files are looked at once a second."""

    return _running().until


@pytest.fixture(scope="session")
def channel(target: Target) -> grpc.Channel:
    return target.channel


@pytest.fixture(scope="session")
def stub(target: Target) -> Any:
    return target.stub


@pytest.fixture(scope="session")
def model_stub(target: Target) -> Any:
    return target.model_stub


@pytest.fixture(scope="session")
def refused() -> Any:
    """Call and return `(code name, text)` of the error that must come."""

    def call(method: Any, request: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            method(request, timeout=30)
        return caught.value.code().name, caught.value.details()

    return call
