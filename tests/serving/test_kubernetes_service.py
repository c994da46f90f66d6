"""Services of Kubernetes as addresses of servers: how they are written, and which pods they are."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlplatform.serving.client import ServerAddressError
from mlplatform.serving.kubernetes_service import (
    Service,
    ServiceEndpointsError,
    addresses,
    check_server,
    parse_service,
    ready_endpoints,
)


def piece(*endpoints: tuple[str, bool | None], kind: str = "IPv4", **ports: int) -> dict[str, Any]:
    """An EndpointSlice as the API has it: addresses, and whether they are ready."""
    return {
        "addressType": kind,
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports.items()],
        "endpoints": [
            {"addresses": [address], "conditions": {} if is_ready is None else {"ready": is_ready}}
            for address, is_ready in endpoints
        ],
    }


def test_addresses_of_services() -> None:
    assert parse_service("kubernetes://team/models:grpc") == Service("team", "models", "grpc")
    assert parse_service("kubernetes:///models:8500") == Service("", "models", "8500")
    assert parse_service("models.team.svc:8500") is None
    for address in ("kubernetes://team/models:grpc", "kubernetes:///models:8500", "10.0.0.1:8500"):
        check_server(address)


@pytest.mark.parametrize(
    "address",
    [
        "kubernetes://models:8500",  # of gRPC's syntax: no service
        "kubernetes://team/models",
        "kubernetes:///models:99999",
        "kubernetes://Team/models:8500",
        "kubernetes://team/models/more:8500",
        "models",
    ],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ServerAddressError) as caught:
        check_server(address)
    assert repr(address) in str(caught.value)
    assert "kubernetes://NAMESPACE/SERVICE:PORT" in str(caught.value)


def test_ready_pods_of_all_slices() -> None:
    slices = [
        piece(("10.0.0.2", True), ("10.0.0.1", None), ("10.0.0.3", False), grpc=8500, rest=8501),
        piece(("10.0.0.4", True), grpc=9500),
        piece(("fd00::1", True), kind="IPv6", grpc=8500),
        {"addressType": "IPv4", "ports": None, "endpoints": None},  # of a service without pods
    ]
    assert addresses(slices, "grpc") == ["10.0.0.1:8500", "10.0.0.2:8500", "10.0.0.4:9500", "[fd00::1]:8500"]
    assert addresses(slices, "8501") == ["10.0.0.1:8501", "10.0.0.2:8501"]
    assert addresses(slices, "http") == []


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server of the API's one path, named by the environment; the requests that it had."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers['Authorization']}")
            is_allowed = "/namespaces/team/" in self.path
            body = {"items": [piece(("10.0.0.1", True), grpc=8500)]} if is_allowed else {"kind": "Status"}
            self.send_response(200 if is_allowed else 403)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    file = tmp_path / "kubeconfig"
    clusters = [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}]
    contexts = [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "team"}}]
    users = [{"name": "u", "user": {"token": "secret"}}]
    config = {"clusters": clusters, "contexts": contexts, "users": users, "current-context": "x"}
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_kubernetes_is_asked(api: list[str]) -> None:
    assert ready_endpoints(Service("team", "models", "grpc")) == ["10.0.0.1:8500"]
    assert ready_endpoints(Service("", "models", "grpc")) == ["10.0.0.1:8500"]  # the context's namespace
    path = "/apis/discovery.k8s.io/v1/namespaces/team/endpointslices"
    query = "labelSelector=kubernetes.io%2Fservice-name%3Dmodels"
    assert api == [f"{path}?{query} Bearer secret"] * 2


def test_a_refusal_is_one_line(api: list[str]) -> None:
    with pytest.raises(ServiceEndpointsError) as caught:
        ready_endpoints(Service("other", "models", "grpc"))
    assert str(caught.value).startswith(
        "the endpoints of kubernetes://other/models:grpc cannot be listed: 403 Forbidden. In a pod"
    )


def test_no_cluster_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ServiceEndpointsError, match=r"\$KUBECONFIG names the cluster"):
        ready_endpoints(Service("team", "models", "grpc"))
