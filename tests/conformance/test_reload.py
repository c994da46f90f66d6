"""HandleReloadConfigRequest, and labels, on a server that was started with one model by flags."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import model_management_pb2

pytestmark = pytest.mark.e2e

TWO, THREE = "half_plus_two/00000123", "half_plus_three/1"


@pytest.fixture(scope="module")
def base_path(tmp_path_factory: pytest.TempPathFactory, push: Any) -> Path:
    """Version 1 says 3, version 2 says 4."""
    base = tmp_path_factory.mktemp("reload") / "half"
    for version, model in ((1, TWO), (2, THREE)):
        push(base, version, model)
    return base


@pytest.fixture(scope="module")
def server(serve: Any, base_path: Path) -> Any:
    flags = ["--model_name=half", f"--model_base_path={base_path}", "--file_system_poll_wait_seconds=1"]
    # A name in a connection's arguments that changes what a client sees: connections are closed by age.
    flags.append(
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.max_connection_age_grace_ms=60000"
    )
    return serve(*flags)


@pytest.fixture
def half(server: Any, base_path: Path) -> dict[str, Any]:
    """The entry of `half` with both versions; it alone is configured."""
    entry = {"name": "half", "base_path": str(base_path), "model_version_policy": {"all": {}}}
    server.reload(entry)
    return entry


def code_of(call: Any, *arguments: Any, **named: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)
    return caught.value.code().name, caught.value.details()


def test_the_newest_version_is_served_by_default(server: Any) -> None:
    assert server.states("half") == {2: "AVAILABLE"}
    assert server.half() == 4.0


def test_channel_arguments(server: Any, wait_for: Any) -> None:
    seen = []
    with grpc.insecure_channel(server.grpc) as channel:
        channel.subscribe(seen.append, try_to_connect=True)
        wait_for(lambda: grpc.ChannelConnectivity.READY in seen)
        wait_for(lambda: seen[-1] == grpc.ChannelConnectivity.IDLE, timeout_s=10)


class TestReload:
    def test_it_returns_when_new_models_are_available(self, server: Any, half: Any, models: Path) -> None:
        three = {"name": "three", "base_path": str(models / "half_plus_three")}
        server.reload(half, three)
        assert server.half("three") == 4.0
        assert server.half() == 4.0

    def test_what_is_left_out_goes_and_may_come_back(
        self, server: Any, half: Any, models: Path, wait_for: Any
    ) -> None:
        other = {"name": "other", "base_path": str(models / "half_plus_two")}
        server.reload(half, other)
        server.reload(half)
        wait_for(lambda: server.states("other") == {123: "END"})
        assert code_of(server.half, "other") == (
            "NOT_FOUND",
            "Servable not found for request: Latest(other)",
        )
        server.reload(half, other)
        assert server.half("other") == 3.0
        assert server.states("other") == {123: "AVAILABLE"}

    def test_the_base_path_may_change(self, server: Any, models: Path, wait_for: Any) -> None:
        server.reload({"name": "moved", "base_path": str(models / "half_plus_two")})
        assert server.half("moved") == 3.0
        server.reload({"name": "moved", "base_path": str(models / "half_plus_three")})
        wait_for(lambda: server.states("moved").get(1) == "AVAILABLE")
        wait_for(lambda: server.half("moved") == 4.0)

    def test_deprecated_model_type(self, server: Any, base_path: Path) -> None:
        server.reload({"name": "half", "base_path": str(base_path), "model_platform": "", "model_type": 1})
        assert server.half() == 4.0


def with_entries(*entries: dict[str, Any]) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    for entry in entries:
        request.config.model_config_list.config.add(**{"model_platform": "tensorflow", **entry})
    return request


def custom() -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    request.config.custom_model_config.type_url = "made-up/config"
    return request


M = {"name": "m", "base_path": "/a"}


@pytest.mark.parametrize(
    "request_",
    [
        model_management_pb2.ReloadConfigRequest(),
        custom(),
        with_entries(M, {**M, "base_path": "/b"}),
        with_entries({**M, "base_path": "a/b"}),
        with_entries({**M, "name": "half", "model_platform": "other"}),
        with_entries({**M, "model_platform": ""}),
        with_entries({**M, "model_type": 1}),
    ],
    ids=["neither", "custom", "twice", "relative", "platform changed", "no platform", "platform and type"],
)
def test_what_is_refused_changes_nothing(server: Any, half: Any, refused: Any, request_: Any) -> None:
    assert refused(server.model_stub.HandleReloadConfigRequest, request_)[0] == "INVALID_ARGUMENT"
    assert server.states("m") == {}
    assert {v: s for v, s in server.states("half").items() if s == "AVAILABLE"} == {
        1: "AVAILABLE",
        2: "AVAILABLE",
    }
    assert (server.half(version=1), server.half(version=2)) == (3.0, 4.0)


class TestLabels:
    def test_they_are_set_and_move(self, server: Any, half: Any, wait_for: Any) -> None:
        wait_for(lambda: server.states().get(1) == "AVAILABLE")
        server.reload({**half, "version_labels": {"stable": 1, "canary": 2}})
        assert (server.half(label="stable"), server.half(label="canary")) == (3.0, 4.0)
        server.reload({**half, "version_labels": {"stable": 2}})
        assert server.half(label="stable") == 4.0
        assert code_of(server.half, label="canary") == (
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: canary",
        )

    def test_in_the_path_over_rest(self, server: Any, half: Any, wait_for: Any) -> None:
        wait_for(lambda: server.states().get(1) == "AVAILABLE")
        server.reload({**half, "version_labels": {"stable": 1}})
        path = "/v1/models/half/labels/stable"
        assert server.rest(f"{path}:predict", {"instances": [2.0]}).body == {"predictions": [3.0]}
        body = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}
        assert server.rest(f"{path}:regress", body).body == {"results": [3.0]}
        assert server.rest(f"{path}/metadata").body["model_spec"]["version"] == "1"
        (state,) = server.rest(path).body["model_version_status"]
        assert (state["version"], state["state"]) == ("1", "AVAILABLE")

    def test_of_a_version_that_is_not_loaded(self, server: Any, half: Any, wait_for: Any) -> None:
        wait_for(lambda: server.states().get(1) == "AVAILABLE")
        server.reload({**half, "version_labels": {"stable": 1}})
        code, text = code_of(server.reload, {**half, "version_labels": {"stable": 9}})
        assert code == "FAILED_PRECONDITION"
        assert "not currently available for inference" in text
        assert server.half(label="stable") == 3.0
