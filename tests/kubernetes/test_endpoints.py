"""The pods behind a service, as the real API lists them: who may see them, and a push that each confirms.

The servers run on this machine: nothing but the API server is needed.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlplatform.components.serving_pusher.errors import PushRejectedByServerError
from mlplatform.components.serving_pusher.push import push_and_confirm
from mlplatform.registry import ModelStore
from mlplatform.serving import ModelServer
from mlplatform.serving.kubernetes_service import Service, ServiceEndpointsError, ready_endpoints

ADDRESS = "10.250.0.1"  # loopback addresses are refused as endpoints; this one, of the API server, is not
ACCESS = Path(__file__).parents[2] / "examples/serving-kubernetes/pusher-access.yaml"


def endpoint(name: str, port: int, *, is_ready: bool = True) -> dict[str, Any]:
    """A slice with one pod of the service `models`."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "models"}},
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": is_ready}}],
    }


def servers(root: Path, stack: ExitStack, count: int) -> list[int]:
    """Start model servers of a root, and return their gRPC ports."""
    made = [
        stack.enter_context(ModelServer(root=str(root), host=ADDRESS, port=0, rest_api_port=-1))
        for _ in range(count)
    ]
    return [server.grpc_port for server in made]


@pytest.fixture
def models(api_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty namespace `models`, for who asks as the administrator."""
    monkeypatch.setenv("KUBECONFIG", api_server.kubeconfig)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "models"}}
    api_server.apply(namespace, namespace="models")
    yield
    api_server.kubectl("delete", "endpointslices", "--all", "-n", "models")


def test_each_ready_pod_confirms(api_server: Any, models: None, scaling_model: Any, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "root/models")
    store.push(scaling_model(1.0), "scaled")
    with ExitStack() as stack:
        first, second = servers(tmp_path / "root", stack, 2)
        slices = [endpoint("a", first), endpoint("b", second), endpoint("c", 1, is_ready=False)]
        api_server.apply(*slices, namespace="models")
        expected = sorted(f"{ADDRESS}:{port}" for port in (first, second))
        assert ready_endpoints(Service("models", "models", "grpc")) == expected

        def push(factor: float, timeout_s: float) -> Any:
            address = "kubernetes://models/models:grpc"
            return push_and_confirm(
                scaling_model(factor), store, "scaled", servers=[address], timeout_s=timeout_s
            )

        assert list(push(2.0, 120).confirmed_by) == expected
        api_server.apply(endpoint("d", 1), namespace="models")  # a pod that is ready, and does not answer
        with pytest.raises(PushRejectedByServerError, match=rf"server {ADDRESS}:1 "):
            push(3.0, 3)
        serving = [each.version for each in store.versions("scaled") if not each.is_withdrawn]
        assert serving == [1, 2]
        api_server.kubectl("delete", "endpointslices", "a", "b", "d", "-n", "models")
        with pytest.raises(PushRejectedByServerError, match="had no ready pod within 1 s"):
            push(4.0, 1)


def test_who_may_see_them(api_server: Any, models: None, tmp_path: Path, monkeypatch: Any) -> None:
    """The service account of the example may in that namespace, and nowhere else."""
    api_server.kubectl("create", "namespace", "kubeflow")
    api_server.kubectl("create", "serviceaccount", "pipeline-runner", "-n", "kubeflow")
    api_server.kubectl("apply", "-f", ACCESS)
    api_server.apply(endpoint("a", 8500), namespace="models")
    token = api_server.kubectl("create", "token", "pipeline-runner", "-n", "kubeflow").strip()
    config = yaml.safe_load(Path(api_server.kubeconfig).read_text())
    config["users"][0]["user"] = {"token": token}
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert ready_endpoints(Service("models", "models", "grpc")) == [f"{ADDRESS}:8500"]
    with pytest.raises(ServiceEndpointsError, match="403 Forbidden"):
        ready_endpoints(Service("default", "models", "grpc"))
