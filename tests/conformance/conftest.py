"""The server under test: our own, or any that speaks TensorFlow Serving's API.

To test another one, write the models (`python tests/serving/models.py FOLDER`), start it on them
(`tensorflow_model_server --port=8500 --rest_api_port=8501 --model_config_file=FOLDER/models.config`) and set
`CONFORMANCE_GRPC=HOST:8500` and `CONFORMANCE_REST=http://HOST:8501`.
"""

import importlib.util
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest


def _running() -> Any:
    file = Path(__file__).parents[1] / "serving" / "running.py"
    spec = importlib.util.spec_from_file_location("serving_running", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
        is_ours: False where `CONFORMANCE_GRPC` names another.
    """

    grpc: str
    rest_url: str
    is_ours: bool

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


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    if "CONFORMANCE_GRPC" in os.environ:
        yield Target(os.environ["CONFORMANCE_GRPC"], os.environ["CONFORMANCE_REST"], is_ours=False)
        return
    running = _running()
    root = tmp_path_factory.mktemp("conformance")
    (root / "models").symlink_to(running.model_folder())
    server = running.ServerProcess("--root", str(root), log=root / "server.log")
    yield Target(server.grpc, server.rest, is_ours=True)
    assert server.stop() == 0


@pytest.fixture(scope="session")
def channel(target: Target) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(target.grpc) as channel:
        yield channel


@pytest.fixture(scope="session")
def stub(channel: grpc.Channel) -> Any:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="session")
def model_stub(channel: grpc.Channel) -> Any:
    from tensorflow_serving.apis import model_service_pb2_grpc

    return model_service_pb2_grpc.ModelServiceStub(channel)


@pytest.fixture(scope="session")
def refused() -> Any:
    """Call and return `(code name, text)` of the error that must come."""

    def call(method: Any, request: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            method(request, timeout=30)
        return caught.value.code().name, caught.value.details()

    return call
