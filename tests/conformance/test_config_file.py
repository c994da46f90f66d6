"""A server with a model config file that is polled: models, policies, versions, batching, socket, metrics."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

pytestmark = pytest.mark.e2e

TWO, THREE = "half_plus_two/00000123", "half_plus_three/1"


def entry(name: str, base_path: Path, more: str = "") -> str:
    return f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {more} }}'


class Config:
    """The file and the base paths under it."""

    def __init__(self, root: Path) -> None:
        self.root, self.file = root, root / "models.config"
        self.entries: dict[str, str] = {}

    def add(self, name: str, more: str = "", base_path: Path | None = None) -> None:
        self.entries[name] = entry(name, base_path or self.root / name, more)

    def write(self) -> None:
        partial = self.root / "partial.config"
        partial.write_text(f"model_config_list {{ {' '.join(self.entries.values())} }}")
        partial.rename(self.file)


POLICIES = {
    "newest": ("", {3}),
    "latest_2": ("model_version_policy { latest { num_versions: 2 } }", {2, 3}),
    "all": ("model_version_policy { all {} }", {1, 2, 3}),
    "specific": ("model_version_policy { specific { versions: 1 versions: 2 } }", {1, 2}),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, push: Any) -> Config:
    config = Config(tmp_path_factory.mktemp("config"))
    for name, (policy, _) in POLICIES.items():
        for version, model in ((1, TWO), (2, THREE), (3, THREE)):
            push(config.root / name, version, model)
        config.add(name, policy)
    for name in ("swapped", "spoiled", "shrinking", "going"):
        push(config.root / name, 1, TWO)
        config.add(name)
    push(config.root / "everything", 1, "everything/1")
    config.add("everything")
    _save_rows(config.root / "rows" / "1")
    config.add("rows")
    config.write()
    return config


def _save_rows(folder: Path) -> None:
    """A model that says how many rows it was run with."""
    import tensorflow as tf

    class Rows(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def rows(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"rows": tf.fill(tf.shape(x), tf.size(x)), "x": tf.identity(x)}

    module = Rows()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.rows})


@pytest.fixture(scope="module")
def server(serve: Any, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("files")
    (folder / "batching").write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 1000 } num_batch_threads { value: 2 } "
        "max_enqueued_batches { value: 1000 } allowed_batch_sizes: 2 allowed_batch_sizes: 8"
    )
    (folder / "monitoring").write_text("prometheus_config { enable: true }")
    flags = [
        f"--model_config_file={config.file}",
        "--model_config_file_poll_wait_seconds=1",
        "--file_system_poll_wait_seconds=1",
        "--model_name=ignored",
        "--model_base_path=/nowhere",
        "--enable_batching=true",
        f"--batching_parameters_file={folder / 'batching'}",
        f"--monitoring_config_file={folder / 'monitoring'}",
        f"--grpc_socket_path={folder / 'grpc.sock'}",
        "--rest_api_timeout_in_ms=1000",
    ]
    target = serve(*flags)
    # The port is open, so every model of the configuration must answer at once.
    assert {name: target.half(name) for name in ("newest", "swapped")} == {"newest": 4.0, "swapped": 3.0}
    target.socket = folder / "grpc.sock"
    return target


class TestModels:
    def test_the_flags_of_one_model_are_ignored(self, server: Any) -> None:
        assert server.states("ignored") == {}

    @pytest.mark.parametrize("name", list(POLICIES))
    def test_policies(self, server: Any, name: str) -> None:
        wanted = POLICIES[name][1]
        assert {v for v, state in server.states(name).items() if state == "AVAILABLE"} == wanted
        for version in (1, 2, 3):
            if version in wanted:
                assert server.half(name, version=version) == (3.0 if version == 1 else 4.0)
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    server.half(name, version=version)
                assert caught.value.code().name == "NOT_FOUND"

    def test_the_newest_answers_unless_told(self, server: Any) -> None:
        assert server.half("all") == 4.0


class TestPolling:
    def test_a_garbled_file_is_ignored_and_a_better_one_taken(
        self, server: Any, config: Config, models: Path, wait_for: Any
    ) -> None:
        config.file.write_text("garbage {")
        wait_for(lambda: "Error parsing text-format" in server.text())
        assert server.half("going") == 3.0
        going = config.entries.pop("going")
        config.add("coming", base_path=models / "half_plus_three")
        config.write()
        wait_for(lambda: server.states("coming") == {1: "AVAILABLE"})
        wait_for(lambda: server.states("going") == {1: "END"})  # unloaded, and still listed
        with pytest.raises(grpc.RpcError) as caught:
            server.half("going")
        assert caught.value.code().name == "NOT_FOUND"
        assert caught.value.details() == "Servable not found for request: Latest(going)"
        config.entries["going"] = going
        config.write()
        wait_for(lambda: server.states("going") == {1: "AVAILABLE"})

    def test_versions_swap_without_a_failed_request(
        self, server: Any, config: Config, push: Any, wait_for: Any
    ) -> None:
        answers: list[Counter[float]] = [Counter() for _ in range(4)]
        errors: list[BaseException] = []
        stop = threading.Event()

        def ask(seen: Counter[float]) -> None:
            try:
                while not stop.is_set():
                    seen[server.half("swapped")] += 1
            except BaseException as error:
                errors.append(error)
                raise

        threads = [threading.Thread(target=ask, args=(seen,)) for seen in answers]
        for thread in threads:
            thread.start()
        try:
            for version in (2, 3, 4):
                before = [sum(seen.values()) for seen in answers]
                push(config.root / "swapped", version, (TWO, THREE)[version % 2 == 0])
                wait_for(lambda v=version: server.states("swapped").get(v) == "AVAILABLE")
                wait_for(lambda v=version: server.states("swapped").get(v - 1) == "END")
                wait_for(
                    lambda b=before: all(
                        sum(s.values()) > n for s, n in zip(answers, b, strict=True)
                    )
                )  # fmt: skip
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not errors
        assert all(set(seen) == {3.0, 4.0} for seen in answers)
        assert server.half("swapped") == 4.0
        assert server.states("swapped") == {4: "AVAILABLE", 3: "END", 2: "END", 1: "END"}

    def test_a_version_taken_away_gives_way_to_the_one_before(
        self, server: Any, config: Config, push: Any, wait_for: Any
    ) -> None:
        push(config.root / "shrinking", 2)
        wait_for(lambda: server.states("shrinking").get(2) == "AVAILABLE")
        (config.root / "shrinking" / "2").rename(config.root / "shrinking" / "withdrawn")
        wait_for(lambda: server.states("shrinking").get(2) == "END")
        assert server.half("shrinking") == 3.0

    def test_a_broken_version_is_reported_and_the_old_one_goes_on(
        self, server: Any, config: Config, push: Any, wait_for: Any
    ) -> None:
        from tensorflow_serving.apis import get_model_status_pb2

        if not server.is_ours:
            pytest.skip("another server retries for minutes before it reports")
        push(config.root / "spoiled", 2, "broken/1")
        wait_for(lambda: server.states("spoiled").get(2) == "END")
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name, request.model_spec.version.value = "spoiled", 2
        (found,) = server.model_stub.GetModelStatus(request).model_version_status
        assert found.status.error_code != 0
        assert found.status.error_message
        assert server.half("spoiled") == 3.0


class TestBatching:
    def test_batches_are_padded_to_the_allowed_sizes(self, server: Any) -> None:
        found = server.predict("rows", {"x": np.array([5.0], np.float32)})
        assert (found["rows"].tolist(), found["x"].tolist()) == ([2], [5.0])

    def test_everyone_gets_the_own_answer(self, server: Any) -> None:
        found: dict[int, Any] = {}

        def ask(n: int) -> None:
            sent = np.array([n, n + 0.5] if n % 2 else [n], np.float32)
            found[n] = (sent, server.predict("rows", {"x": sent}))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 32
        for sent, answer in found.values():
            assert answer["x"].tolist() == sent.tolist()
            assert set(answer["rows"].tolist()) <= {2, 8}

    def test_an_error_stays_with_its_request(self, server: Any) -> None:
        outcomes: dict[int, Any] = {}

        def ask(n: int) -> None:
            sent = np.array([-1.0 if n % 8 == 3 else float(n * n)], np.float32)
            try:
                outcomes[n] = server.predict("everything", {"x": sent}, "sqrt")["y"][0]
            except grpc.RpcError as error:
                outcomes[n] = error.code().name

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if server.is_ours:  # TensorFlow Serving fails the whole batch
            assert outcomes == {n: "INVALID_ARGUMENT" if n % 8 == 3 else n for n in range(16)}
        assert {outcomes[n] for n in (3, 11)} == {"INVALID_ARGUMENT"}


def test_unix_socket(server: Any) -> None:
    from dataclasses import replace

    over_socket = replace(server, grpc=f"unix:{server.socket}")
    assert over_socket.half("all") == 4.0
    over_socket.close()


def test_a_rest_request_past_its_time(server: Any, tmp_path: Path) -> None:
    body = {"signature_name": "hold", "inputs": {"folder": [str(tmp_path)]}}
    answer = server.rest("/v1/models/everything:predict", body)  # which without "go" never ends by itself
    (tmp_path / "go").touch()
    assert answer.status == 504
    assert answer.error


class TestMetrics:
    @pytest.fixture
    def count(self, server: Any) -> Iterator[Callable[[str, str], int]]:
        def count(model: str, status: str) -> int:
            page = server.rest("/monitoring/prometheus/metrics").text
            start = f':tensorflow:serving:request_count{{model_name="{model}",status="{status}"}} '
            return sum(int(float(line[len(start) :])) for line in page.splitlines() if line.startswith(start))

        return count

    def test_requests_are_counted_by_model_and_status(self, server: Any, count: Any) -> None:
        before = count("latest_2", "OK")
        server.half("latest_2")
        server.rest("/v1/models/latest_2:predict", {"instances": [2.0]})
        assert count("latest_2", "OK") == before + 2

    def test_page(self, server: Any) -> None:
        server.half("latest_2")
        answer = server.rest("/monitoring/prometheus/metrics")
        assert answer.content_type.startswith("text/plain")
        assert "# TYPE :tensorflow:serving:request_count counter" in answer.text
        assert "# TYPE :tensorflow:serving:request_latency histogram" in answer.text
        assert ':tensorflow:serving:request_latency_bucket{model_name="latest_2",API="' in answer.text
