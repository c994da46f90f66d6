"""Versions come and go: polling, policies, labels, reload, configuration files, failures."""

import gc
import shutil
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from mlplatform.registry import ModelStore
from mlplatform.serving.client import RequestFailedError
from mlplatform.serving.manager import ModelManager, State
from mlplatform.serving.model_config import ModelConfig, ModelConfigFileError
from mlplatform.serving.saved_model import load
from mlplatform.serving.servable import Servable
from mlplatform.serving.status import StatusError, invalid_argument
from mlplatform.serving.tensors import fill_content
from mlplatform.serving.version_folders import AllVersions, SpecificVersions

pytestmark = pytest.mark.e2e


def wait_for(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come to pass in time"
        time.sleep(0.02)


X = np.array([[2.0]], np.float32)


def half(client: Any, **spec: Any) -> float:
    return float(client.predict("half", {"x": X}, **spec)["y"][0, 0])


def states(client: Any, model: str = "half") -> dict[int, str]:
    return {s.version: s.state for s in client.status(model)}


class Load:
    """Threads that ask a model all the time, without retries; every answer and every error is kept."""

    def __init__(self, server: Any, *, label: str = "") -> None:
        self.answers: list[float] = []
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = "half"
        self._request.model_spec.version_label = label
        fill_content(self._request.inputs["x"], X)
        self._address = f"127.0.0.1:{server.grpc_port}"
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def _ask(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self._stop.is_set():
                try:
                    answer = stub.Predict(self._request, timeout=30)
                    self.answers.append(answer.outputs["y"].float_val[0])
                except grpc.RpcError as error:
                    self.errors.append(error)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, count: int = 20) -> None:
        """Wait for some more answers."""
        before = len(self.answers)
        wait_for(lambda: len(self.answers) >= before + count or bool(self.errors))


class TestPolling:
    def test_a_new_version_takes_over_without_a_failed_request(
        self, serve: Any, client: Any, base_path: Path, push: Any
    ) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        asking = client(server)
        with Load(server) as load:
            for version in range(2, 6):
                load.go_on()
                push(base_path, version, ("half_plus_three/1", "half_plus_two/00000123")[version % 2])
                wait_for(lambda v=version: states(asking).get(v) == "AVAILABLE")
                wait_for(lambda v=version: states(asking).get(v - 1) == "END")
            load.go_on()
        assert load.errors == []
        assert set(load.answers) == {3.0, 4.0}
        assert half(asking) == 3.0
        assert states(asking) == {5: "AVAILABLE", 4: "END", 3: "END", 2: "END", 1: "END"}

    def test_a_request_that_takes_long_holds_up_no_other_version(
        self, serve: Any, client: Any, tmp_path: Path, push: Any, hold: Any
    ) -> None:
        base = tmp_path / "m"
        base.mkdir()
        push(base, 1, "everything/1")
        asking = client(serve(model_name="half", model_base_path=base))
        answers: list[Any] = []
        held = hold()
        thread = threading.Thread(
            target=lambda: answers.append(
                asking.predict("half", held.inputs, signature="hold", timeout_s=100)
            )
        )
        thread.start()
        held.until_it_computes()
        for version in (2, 3):
            push(base, version)
            wait_for(lambda v=version: states(asking).get(v) == "AVAILABLE")
        assert half(asking) == 4.0
        assert answers == []
        assert states(asking)[1] == "UNLOADING"
        held.let_go()
        thread.join()
        assert len(answers) == 1
        wait_for(lambda: states(asking)[1] == "END")

    def test_an_unloaded_version_is_let_go(self, serve: Any, client: Any, base_path: Path, push: Any) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        asking = client(server)
        with server.manager.servable("half") as servable:
            kept = weakref.ref(servable)
        del servable
        push(base_path, 2)
        wait_for(lambda: states(asking).get(1) == "END")
        gc.collect()
        assert kept() is None

    def test_a_version_copied_in_place_is_loaded_once_it_is_whole(
        self, serve: Any, client: Any, base_path: Path, models: Path
    ) -> None:
        asking = client(serve(model_name="half", model_base_path=base_path))
        source, target = models / "half_plus_three" / "1", base_path / "2"
        shutil.copytree(source, target)
        data = "variables/variables.data-00000-of-00001"
        whole = (source / data).read_bytes()
        (target / data).write_bytes(whole[:4])
        wait_for(lambda: states(asking).get(2) in ("END", "AVAILABLE"))
        if states(asking)[2] == "AVAILABLE":  # it was looked at before it was cut
            return
        (target / data).write_bytes(whole)
        wait_for(lambda: states(asking).get(2) == "AVAILABLE")
        assert half(asking) == 4.0

    def test_a_number_too_large_for_a_version_is_no_version(
        self, serve: Any, client: Any, base_path: Path, push: Any
    ) -> None:
        push(base_path, 2**63)
        asking = client(serve(model_name="half", model_base_path=base_path))
        assert half(asking) == 3.0
        assert states(asking) == {1: "AVAILABLE"}

    def test_zero_looks_once(self, serve: Any, client: Any, base_path: Path, push: Any, manage: Any) -> None:
        server = serve(model_name="half", model_base_path=base_path, file_system_poll_wait_seconds=0)
        asking = client(server)
        loads = Loads()
        loads.go.set()
        following = manage(loads, poll_wait_s=0.2)
        following.configure({"half": ModelConfig("half", base_path)}, 10)
        for version in (2, 3):  # seen at two looks of one that does look again
            push(base_path, version)
            wait_for(lambda newest=version: following.serving() == {"half": [newest]})
        assert states(asking) == {1: "AVAILABLE"}
        server.manager.look_now()
        assert states(asking)[3] == "AVAILABLE"

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
        assert half(asking, version=1) == 3.0
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

    def test_a_root_folder_that_is_away_for_a_while_unloads_nothing(
        self, serve: Any, client: Any, tmp_path: Path, push: Any, caplog: Any
    ) -> None:
        models = tmp_path / "models"
        (models / "half").mkdir(parents=True)
        push(models / "half", 7)
        server = serve(root=tmp_path)
        models.rename(tmp_path / "away")
        wait_for(lambda: "those that are served stay" in caplog.text)
        server.manager.look_now()
        assert half(client(server)) == 4.0
        assert caplog.text.count("those that are served stay") == 1
        (tmp_path / "away").rename(models)
        push(models / "half", 8)
        wait_for(lambda: server.manager.serving() == {"half": [8]})

    def test_a_base_path_that_is_the_model_itself_is_told(
        self, manage: Any, models: Path, caplog: Any
    ) -> None:
        folder = models / "half_plus_three" / "1"
        manager = manage(lambda *_: None)
        with pytest.raises(StatusError, match="not available in time"):
            manager.configure({"m": ModelConfig("m", folder)}, 0.5)
        told = (
            f"No versions of servable m found under base path {folder}: it needs a numbered folder. It holds"
        )
        assert caplog.text.count(told) == 1

    def test_a_model_that_cannot_load_stops_the_start(self, serve: Any, models: Path) -> None:
        with pytest.raises(StatusError) as caught:
            serve(model_name="broken", model_base_path=models / "broken")
        file = models / "broken" / "1" / "saved_model.pb"
        assert str(caught.value) == (
            "1 servable(s) did not become available: {{{name: broken version: 1} due to error: "
            f"DATA_LOSS: Can't parse {file} as binary proto}}, }}"
        )

    def test_the_error_of_a_load_tells_of_the_model_only(self, tmp_path: Path) -> None:
        import tensorflow as tf

        words = tmp_path / "words.txt"
        words.write_text("cat\n")

        class Words(tf.Module):
            def __init__(self) -> None:
                super().__init__()
                lines = tf.lookup.TextFileIndex
                rows = tf.lookup.TextFileInitializer(
                    str(words), tf.string, lines.WHOLE_LINE, tf.int64, lines.LINE_NUMBER
                )
                self.table = tf.lookup.StaticHashTable(rows, -1)

            @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
            def find(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
                return {"y": self.table.lookup(x)}

        module = Words()
        tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.find)
        (tmp_path / "1" / "assets" / "words.txt").unlink()
        with pytest.raises(StatusError) as caught:
            load(tmp_path / "1", "m", 1)
        assert "words.txt" in str(caught.value)
        assert "File " not in str(caught.value)
        assert not str(caught.value).startswith("Graph execution error")


class TestPushedModels:
    @pytest.fixture
    def store(self, tmp_path: Path, models: Path) -> ModelStore:
        """Version 1 of `half`, half plus two, is `stable`."""
        store = ModelStore(tmp_path / "models")
        store.push(models / "half_plus_two" / "00000123", "half")
        store.promote("half", "1")
        return store

    def test_a_label_outlives_the_next_push(
        self, serve: Any, client: Any, tmp_path: Path, models: Path, store: ModelStore
    ) -> None:
        asking = client(serve(root=tmp_path))
        assert half(asking, label="stable") == 3.0
        store.push(models / "half_plus_three" / "1", "half")
        asking.wait_until_available("half", 2)
        assert half(asking) == 4.0
        assert half(asking, label="stable") == 3.0
        store.promote("half", "2")
        wait_for(lambda: half(asking, label="stable") == 4.0)
        wait_for(lambda: states(asking) == {1: "END", 2: "AVAILABLE"})

    def test_a_label_moves_without_a_failed_request(
        self, serve: Any, client: Any, tmp_path: Path, models: Path, store: ModelStore
    ) -> None:
        server = serve(root=tmp_path)
        asking = client(server)
        with Load(server, label="stable") as load:
            for version in range(2, 6):
                load.go_on()
                name = ("half_plus_three/1", "half_plus_two/00000123")[version % 2]
                store.push(models / name, "half")
                store.promote("half", str(version))
                wait_for(lambda v=version: states(asking).get(v - 1) == "END")
            load.go_on()
        assert load.errors == []
        assert set(load.answers) == {3.0, 4.0}

    def test_a_broken_push_takes_neither_the_newest_nor_the_labelled_version_away(
        self, serve: Any, client: Any, tmp_path: Path, models: Path, store: ModelStore, push: Any
    ) -> None:
        store.push(models / "half_plus_three" / "1", "half")
        server = serve(root=tmp_path)
        asking = client(server)
        push(tmp_path / "models" / "half", 3, "broken/1")
        wait_for(lambda: states(asking).get(3) == "END")
        server.manager.look_now()
        assert (half(asking), half(asking, label="stable")) == (4.0, 3.0)

    def test_what_is_no_model_is_passed_over(
        self, serve: Any, client: Any, tmp_path: Path, models: Path, store: ModelStore
    ) -> None:
        (tmp_path / "models" / "my model").mkdir()
        (tmp_path / "models" / "half" / "1" / "push.json").write_text("{")
        assert half(client(serve(root=tmp_path)), label="stable") == 3.0

    def test_no_other_configuration_is_taken(
        self, serve: Any, client: Any, tmp_path: Path, models: Path, store: ModelStore, reload: Any
    ) -> None:
        server = serve(root=tmp_path)
        with pytest.raises(grpc.RpcError) as caught:
            reload(server, {"name": "other", "base_path": str(models / "half_plus_three")})
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "follows its root folder" in caught.value.details()
        assert server.manager.serving() == {"half": [1]}


class Loads:
    """Loads nothing real; each load waits until it may go on, and fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.go = threading.Event()
        self.failures = failures
        self.tries = 0

    def __call__(self, folder: Path, model: str, version: int) -> Servable:
        assert self.go.wait(10)
        self.tries += 1
        if self.tries <= self.failures:
            raise invalid_argument("not yet")
        return Servable(model, version, folder, {}, {})


@pytest.fixture
def manage(tmp_path: Path) -> Iterator[Callable[..., ModelManager]]:
    """Start managers of versions 1 and 2 of model `m`; they are stopped at the end."""
    managers: list[ModelManager] = []
    for version in (1, 2):
        (tmp_path / "m" / str(version)).mkdir(parents=True)

    def manage(loads: Loads, **options: Any) -> ModelManager:
        managers.append(ModelManager(loads, **{"poll_wait_s": 0.02, **options}))
        managers[-1].start()
        return managers[-1]

    yield manage
    for manager in managers:
        manager.stop()


class TestManager:
    def states(self, manager: ModelManager) -> list[State]:
        try:
            return [status.state for status in manager.statuses("m")]
        except StatusError:  # nothing looked for yet
            return []

    def test_versions_that_wait_for_their_turn_are_listed(self, manage: Any, tmp_path: Path) -> None:
        loads = Loads()
        manager = manage(loads)
        configs = {"m": ModelConfig("m", tmp_path / "m", AllVersions())}
        thread = threading.Thread(target=lambda: manager.configure(configs, 10))
        thread.start()
        wait_for(lambda: State.LOADING in self.states(manager))
        assert self.states(manager) == [State.START, State.LOADING]
        loads.go.set()
        thread.join()
        wait_for(lambda: self.states(manager) == [State.AVAILABLE] * 2)

    def test_a_load_that_failed_is_tried_again(self, manage: Any, tmp_path: Path) -> None:
        loads = Loads(failures=2)
        loads.go.set()
        manager = manage(loads, max_load_retries=2, load_retry_interval_s=0.05)
        with pytest.raises(StatusError, match="not yet"):
            manager.configure({"m": ModelConfig("m", tmp_path / "m")}, 10)
        wait_for(lambda: manager.serving() == {"m": [2]})
        assert loads.tries == 3

    def test_but_not_for_ever(self, manage: Any, tmp_path: Path) -> None:
        loads = Loads(failures=99)
        loads.go.set()
        manager = manage(loads, max_load_retries=2, load_retry_interval_s=0)
        with pytest.raises(StatusError, match="not yet"):
            manager.configure({"m": ModelConfig("m", tmp_path / "m")}, 10)
        for _ in range(4):  # a retry is due at each
            manager.look_now()
        assert loads.tries == 3

    def test_a_model_taken_away_and_given_back_at_once_is_kept(self, manage: Any, tmp_path: Path) -> None:
        loads = Loads()
        loads.go.set()
        manager = manage(loads)
        configs = {"m": ModelConfig("m", tmp_path / "m")}
        for wanted in (configs, {}, configs, {}, configs, {}):
            manager.configure(wanted, 10)
        wait_for(lambda: manager.serving() == {})
        wait_for(lambda: self.states(manager) == [State.END])


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
        self, serve: Any, client: Any, models: Path, tmp_path: Path, base_path: Path, caplog: Any
    ) -> None:
        first = f'config {{ name: "half" base_path: "{base_path}" model_platform: "tensorflow" }}'
        second = first.replace(str(base_path), str(models / "half_plus_three")).replace('half"', 'three"')
        file = config(tmp_path, first)
        asking = client(serve(model_config_file=file, model_config_file_poll_wait_seconds=0.1))
        file.write_text("garbage {")
        wait_for(lambda: "is not taken over" in caplog.text)
        assert half(asking) == 3.0
        config(tmp_path, f"{first} {second}")
        asking.wait_until_available("three", timeout_s=20)
        config(tmp_path, second)
        wait_for(lambda: states(asking) == {1: "END"})

    def test_a_file_that_is_empty_for_a_moment_unloads_nothing(
        self, serve: Any, client: Any, tmp_path: Path, base_path: Path, caplog: Any
    ) -> None:
        text = f'config {{ name: "half" base_path: "{base_path}" model_platform: "tensorflow" }}'
        file = config(tmp_path, text)
        asking = client(serve(model_config_file=file, model_config_file_poll_wait_seconds=0.1))
        file.write_text("")
        wait_for(lambda: "it is empty" in caplog.text)
        assert half(asking) == 3.0
        file.write_text("model_config_list {}")
        wait_for(lambda: states(asking) == {1: "END"})

    def test_a_label_that_came_early_is_taken_over_later(
        self, serve: Any, client: Any, tmp_path: Path, base_path: Path, push: Any, caplog: Any
    ) -> None:
        entry = (
            f'name: "half" base_path: "{base_path}" model_platform: "tensorflow" '
            "model_version_policy { all {} }"
        )
        file = config(tmp_path, f"config {{ {entry} }}")
        asking = client(serve(model_config_file=file, model_config_file_poll_wait_seconds=0.1))
        config(tmp_path, f'config {{ {entry} version_labels {{ key: "canary" value: 2 }} }}')
        wait_for(lambda: "is not taken over" in caplog.text)
        push(base_path, 2)
        asking.wait_until_available("half", 2)

        def is_taken_over() -> bool:
            try:
                return half(asking, label="canary") == 4.0
            except RequestFailedError:
                return False

        wait_for(is_taken_over)
        assert caplog.text.count("is not taken over") == 1

    def test_the_file_is_not_polled_unless_asked_for(
        self, serve: Any, client: Any, models: Path, tmp_path: Path, base_path: Path
    ) -> None:
        text = f'config {{ name: "half" base_path: "{base_path}" model_platform: "tensorflow" }}'
        file = config(tmp_path, text)
        asking = client(serve(model_config_file=file))
        polling = client(serve(model_config_file=file, model_config_file_poll_wait_seconds=0.1))
        for name in ("second", "third"):  # taken over at two looks of one that does poll
            config(tmp_path, text.replace('"half"', f'"{name}"'))
            polling.wait_until_available(name, timeout_s=20)
        assert half(asking) == 3.0
        for name in ("second", "third"):
            with pytest.raises(RequestFailedError, match="NOT_FOUND"):
                asking.status(name)

    @pytest.mark.parametrize("is_allowed", [False, True])
    def test_a_label_needs_a_loaded_version_at_the_start_too(
        self, serve: Any, client: Any, tmp_path: Path, base_path: Path, is_allowed: bool
    ) -> None:
        text = (
            f'config {{ name: "half" base_path: "{base_path}" model_platform: "tensorflow" '
            'version_labels { key: "stable" value: 1 } }'
        )
        settings = {
            "model_config_file": config(tmp_path, text),
            "allow_version_labels_for_unavailable_models": is_allowed,
        }
        if is_allowed:
            assert half(client(serve(**settings)), label="stable") == 3.0
        else:
            with pytest.raises(
                StatusError, match="version 1 of model half, which is not currently available"
            ):
                serve(**settings)


@pytest.fixture
def reload() -> Any:
    def reload(server: Any, *entries: dict[str, Any]) -> None:
        request = model_management_pb2.ReloadConfigRequest()
        for entry in entries:
            labels = entry.pop("labels", {})
            added = request.config.model_config_list.config.add(**{"model_platform": "tensorflow", **entry})
            added.version_labels.update(labels)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            answer = stub.HandleReloadConfigRequest(request, timeout=30)
        assert answer.status.error_code == 0

    return reload


class TestReload:
    @pytest.mark.parametrize(
        ("entry", "code", "text"),
        [
            (
                {"model_platform": "other"},
                "INVALID_ARGUMENT",
                "Illegal to change a model's platform. For model half platform was tensorflow "
                "and new platform requested is other",
            ),
            (
                {"name": "new", "labels": {"stable": 1}},
                "FAILED_PRECONDITION",
                "Request to assign label to version 1 of model new, "
                "which is not currently available for inference",
            ),
            ({"name": ""}, "INVALID_ARGUMENT", "Illegal to list a model without a name"),
        ],
    )
    def test_refused_and_nothing_changes(
        self, serve: Any, client: Any, base_path: Path, reload: Any, entry: Any, code: str, text: str
    ) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        with pytest.raises(grpc.RpcError) as caught:
            reload(server, {"name": "half", "base_path": str(base_path), **entry})
        assert (caught.value.code().name, caught.value.details().split(": base_path")[0]) == (code, text)
        assert server.manager.serving() == {"half": [1]}

    def test_what_a_model_could_not_load_for(
        self, serve: Any, base_path: Path, models: Path, reload: Any
    ) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        with pytest.raises(grpc.RpcError) as caught:
            reload(
                server,
                {"name": "half", "base_path": str(base_path)},
                {"name": "b", "base_path": str(models / "broken")},
            )
        assert caught.value.details().startswith(
            "1 model(s) did not become available: {{{name: b version: 1} due to error: DATA_LOSS: Can't parse"
        )
        assert server.manager.serving() == {"half": [1]}

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


def test_what_a_load_sets_for_the_whole_process_ends_with_it() -> None:
    from mlplatform.serving.saved_model import beside_requests

    before = sys.getswitchinterval(), gc.isenabled()
    first, second = beside_requests(), beside_requests()  # of two servers in one process
    first.__enter__()
    second.__enter__()
    assert (sys.getswitchinterval(), gc.isenabled()) == (pytest.approx(0.0005), False)
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert (sys.getswitchinterval(), gc.isenabled()) == before


def test_a_version_serves_until_the_next_one_is_there_though_its_folder_is_withdrawn_between_two_reads(
    tmp_path: Path,
) -> None:
    """A roll-back moves the folder away after the ledger was read, and before the folders are."""
    folders, wanted = {4: tmp_path / "4", 5: tmp_path / "5"}, [5]

    class Source:
        def folders(self) -> dict[int, Path]:
            return dict(folders)

        def fetch(self, version: int) -> None:
            pass

        def fingerprint(self, version: int) -> tuple[()]:
            return ()

    manager = ModelManager(
        lambda folder, name, version: Servable(name, version, folder, {}, {}),
        poll_wait_s=0,
        discover=lambda: {"m": ModelConfig("m", tmp_path, SpecificVersions(tuple(wanted)))},
        source=lambda _: Source(),
    )

    def served() -> int:
        manager.look_now()
        with manager.servable("m") as servable:
            return servable.version

    manager.start()
    try:
        assert served() == 5
        del folders[5]
        assert served() == 5
        wanted[:] = [4]
        assert served() == 4
    finally:
        manager.stop()
