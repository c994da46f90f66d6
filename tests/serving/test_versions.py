"""Versions come and go: polling, policies, labels, reload, configuration files, failures."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from mlplatform.serving.client import RequestFailedError
from mlplatform.serving.model_config import ModelConfigFileError
from mlplatform.serving.status import StatusError

pytestmark = pytest.mark.e2e


def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come to pass in time"
        time.sleep(0.02)


X = np.array([[2.0]], np.float32)


def half(client: Any, **spec: Any) -> float:
    return float(client.predict("half", {"x": X}, **spec)["y"][0, 0])


def states(client: Any, model: str = "half") -> dict[int, str]:
    return {s.version: s.state for s in client.status(model)}


class TestPolling:
    def test_a_new_version_takes_over_without_a_failed_request(
        self, serve: Any, client: Any, base_path: Path, push: Any
    ) -> None:
        asking = client(serve(model_name="half", model_base_path=base_path))
        answers: list[float] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answers.append(half(asking))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in range(2, 6):
            push(base_path, version, ("half_plus_three/1", "half_plus_two/00000123")[version % 2])
            wait_for(lambda v=version: states(asking).get(v) == "AVAILABLE")
            wait_for(lambda v=version: states(asking).get(v - 1) == "END")
        stop.set()
        for thread in threads:
            thread.join()
        assert set(answers) == {3.0, 4.0}
        assert half(asking) == 3.0
        assert states(asking) == {5: "AVAILABLE", 4: "END", 3: "END", 2: "END", 1: "END"}

    def test_a_version_taken_away_gives_way_to_the_one_before(
        self, serve: Any, client: Any, base_path: Path, push: Any
    ) -> None:
        push(base_path, 2)
        asking = client(serve(model_name="half", model_base_path=base_path))
        assert half(asking) == 4.0
        (base_path / "2").rename(base_path / "withdrawn")
        wait_for(lambda: states(asking).get(2) == "END")
        assert half(asking) == 3.0

    def test_a_broken_version_is_reported_and_the_old_one_goes_on(
        self, serve: Any, client: Any, base_path: Path, push: Any, models: Path
    ) -> None:
        asking = client(serve(model_name="half", model_base_path=base_path))
        push(base_path, 2, "broken/1")
        wait_for(lambda: states(asking).get(2) == "END")
        (failed,) = asking.status("half", 2)
        assert "Can't parse" in failed.error
        assert half(asking) == 3.0
        shutil.rmtree(base_path / "2")
        push(base_path, 2)  # repaired: tried again
        wait_for(lambda: states(asking).get(2) == "AVAILABLE")
        assert half(asking) == 4.0

    def test_the_root_folder_is_followed(
        self, serve: Any, client: Any, tmp_path: Path, push: Any, models: Path
    ) -> None:
        server = serve(root=tmp_path)
        asking = client(server)
        with pytest.raises(RequestFailedError, match="Could not find any versions"):
            asking.status("half")
        (tmp_path / "models" / "half").mkdir(parents=True)
        push(tmp_path / "models" / "half", 7)
        assert asking.wait_until_available("half", timeout_s=20).version == 7
        assert half(asking) == 4.0

    def test_labels_of_pushed_models(self, serve: Any, client: Any, tmp_path: Path, models: Path) -> None:
        from mlplatform.registry import ModelStore

        store = ModelStore(tmp_path / "models")
        pushed = store.push(models / "half_plus_two" / "00000123", "half")
        store.promote("half", str(pushed.version.version if hasattr(pushed, "version") else pushed))
        asking = client(serve(root=tmp_path))
        assert half(asking, label="stable") == 3.0

    def test_a_model_that_cannot_load_stops_the_start(self, serve: Any, models: Path) -> None:
        with pytest.raises(StatusError, match="did not become available"):
            serve(model_name="broken", model_base_path=models / "broken")


def config(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "models.config"
    file.write_text(f"model_config_list {{ {text} }}")
    return file


class TestConfiguration:
    @pytest.mark.parametrize(
        ("policy", "available"),
        [
            ("", {3}),
            ("model_version_policy { latest { num_versions: 2 } }", {2, 3}),
            ("model_version_policy { all {} }", {1, 2, 3}),
            ("model_version_policy { specific { versions: 1 versions: 2 } }", {1, 2}),
        ],
    )
    def test_policies(
        self,
        serve: Any,
        client: Any,
        base_path: Path,
        push: Any,
        tmp_path: Path,
        policy: str,
        available: set[int],
    ) -> None:
        push(base_path, 2)
        push(base_path, 3)
        text = f'config {{ name: "half" base_path: "{base_path}" model_platform: "tensorflow" {policy} }}'
        asking = client(serve(model_config_file=config(tmp_path, text)))
        assert {v for v, state in states(asking).items() if state == "AVAILABLE"} == available
        assert half(asking, version=min(available)) == (3.0 if min(available) == 1 else 4.0)

    def test_several_models_and_the_name_flags_are_ignored(
        self, serve: Any, client: Any, models: Path, tmp_path: Path
    ) -> None:
        text = " ".join(
            f'config {{ name: "{name}" base_path: "{models / name}" model_platform: "tensorflow" }}'
            for name in ("half_plus_two", "half_plus_three")
        )
        file = config(tmp_path, text)
        asking = client(serve(model_config_file=file, model_name="other", model_base_path="/nowhere"))
        answers = [asking.predict(n, {"x": X})["y"][0, 0] for n in ("half_plus_two", "half_plus_three")]
        assert answers == [3.0, 4.0]

    def test_unreadable_file(self, serve: Any, tmp_path: Path) -> None:
        file = config(tmp_path, "confug {}")
        with pytest.raises(ModelConfigFileError, match="Error parsing text-format") as caught:
            serve(model_config_file=file)
        assert "confug" in str(caught.value)

    def test_the_file_is_polled_and_garbage_is_ignored(
        self, serve: Any, client: Any, models: Path, tmp_path: Path, base_path: Path
    ) -> None:
        first = f'config {{ name: "half" base_path: "{base_path}" model_platform: "tensorflow" }}'
        second = first.replace(str(base_path), str(models / "half_plus_three")).replace('half"', 'three"')
        file = config(tmp_path, first)
        asking = client(serve(model_config_file=file, model_config_file_poll_wait_seconds=0.1))
        file.write_text("garbage {")
        time.sleep(0.5)
        assert half(asking) == 3.0
        config(tmp_path, f"{first} {second}")
        asking.wait_until_available("three", timeout_s=20)
        config(tmp_path, second)
        wait_for(lambda: states(asking) == {1: "END"})


class TestReload:
    @pytest.fixture
    def reload(self) -> Any:
        def reload(server: Any, *entries: dict[str, Any]) -> None:
            request = model_management_pb2.ReloadConfigRequest()
            for entry in entries:
                labels = entry.pop("labels", {})
                added = request.config.model_config_list.config.add(
                    **{"model_platform": "tensorflow", **entry}
                )
                added.version_labels.update(labels)
            with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
                stub = model_service_pb2_grpc.ModelServiceStub(channel)
                answer = stub.HandleReloadConfigRequest(request, timeout=30)
            assert answer.status.error_code == 0

        return reload

    def test_models_come_go_and_come_back(
        self, serve: Any, client: Any, base_path: Path, models: Path, reload: Any
    ) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        asking = client(server)
        half_entry = {"name": "half", "base_path": str(base_path)}
        other = {"name": "other", "base_path": str(models / "half_plus_three")}
        reload(server, dict(half_entry), dict(other))
        assert asking.predict("other", {"x": X})["y"][0, 0] == 4.0  # available as soon as it returns
        reload(server, dict(other))
        wait_for(lambda: states(asking) == {1: "END"})
        with pytest.raises(RequestFailedError, match="Servable not found for request: Latest"):
            half(asking)
        reload(server, dict(half_entry))
        assert half(asking) == 3.0

    def test_the_base_path_may_change(
        self, serve: Any, client: Any, base_path: Path, models: Path, reload: Any
    ) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        asking = client(server)
        reload(server, {"name": "half", "base_path": str(models / "half_plus_three")})
        wait_for(lambda: half(asking) == 4.0)

    def test_deprecated_model_type(self, serve: Any, client: Any, base_path: Path, reload: Any) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        reload(server, {"name": "half", "base_path": str(base_path), "model_platform": "", "model_type": 1})
        assert half(client(server)) == 3.0

    def test_labels_are_set_move_and_need_a_loaded_version(
        self, serve: Any, client: Any, base_path: Path, push: Any, tmp_path: Path, reload: Any
    ) -> None:
        push(base_path, 2)
        text = (
            f'config {{ name: "half" base_path: "{base_path}" model_platform: "tensorflow" '
            "model_version_policy { all {} } }"
        )
        server = serve(model_config_file=config(tmp_path, text))
        grpc_client, rest_client = client(server), client(server, over="rest")
        entry: dict[str, Any] = {
            "name": "half",
            "base_path": str(base_path),
            "model_version_policy": {"all": {}},
        }
        reload(server, {**entry, "labels": {"stable": 1, "canary": 2}})
        for asking in (grpc_client, rest_client):
            assert half(asking, label="stable") == 3.0
            assert half(asking, label="canary") == 4.0
        reload(server, {**entry, "labels": {"stable": 2}})
        assert half(grpc_client, label="stable") == 4.0
        with pytest.raises(grpc.RpcError) as caught:
            reload(server, {**entry, "labels": {"stable": 9}})
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "version 9 of model half, which is not currently available" in caught.value.details()
        assert half(grpc_client, label="stable") == 4.0
