"""The server's own promises: limits, batching, warm-up, TLS, sockets, metrics, log, stop."""

import asyncio
import ctypes
import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from mlplatform.serving.client import Client, RequestFailedError
from mlplatform.serving.http_connection import LoopErrors
from mlplatform.serving.scheduling import BatchingParameters
from mlplatform.serving.servable import Servable, Signature, TensorSpec
from mlplatform.serving.server import batching_parameters
from mlplatform.serving.settings import ServerSettings, SettingsError
from mlplatform.serving.status import StatusError
from mlplatform.serving.tensors import fill_content
from mlplatform.serving.text_config import ConfigFileError, read_batching_parameters, read_ssl_config
from mlplatform.serving.warmup import WARMUP_FILE, warm_up

pytestmark = pytest.mark.e2e

X = np.array([[2.0]], np.float32)


def request(signature: str, *, model: str = "m", **inputs: Any) -> Any:
    """A PredictRequest of float or text inputs, for a stub that does nothing on its own."""
    asked = predict_pb2.PredictRequest()
    asked.model_spec.name, asked.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        is_text = isinstance(value[0], str)
        fill_content(asked.inputs[name], np.array(value, object if is_text else np.float32))
    return asked


def rest_body(held: Any) -> dict[str, Any]:
    return {"signature_name": "hold", "inputs": held.inputs}


def rest(
    server: Any, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """Ask over a connection of its own; returns status and document."""
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, data, dict(headers or {}))
    response = connection.getresponse()
    document = json.loads(response.read())
    connection.close()
    return response.status, document


class Clock:
    """The REST server's clock, which moves only when a test moves it; counts its reads."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.reads = 0

    def monotonic(self) -> float:
        self.reads += 1
        return self.now_s


@pytest.fixture
def rest_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("mlplatform.serving.rest_api.time", clock)
    return clock


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except OSError:
        return True
    return False


class TestWarmUp:
    def test_recorded_requests_are_run_before_it_serves(self, serve: Any, client: Any, models: Path) -> None:
        server = serve(
            model_name="warm", model_base_path=models / "warm", num_request_iterations_for_warmup=2
        )
        assert client(server).predict("warm", {})["calls"] == 7  # 3 records twice, and this one

    def test_it_can_be_left_out(self, serve: Any, client: Any, models: Path) -> None:
        server = serve(model_name="warm", model_base_path=models / "warm", enable_model_warmup=False)
        assert client(server).predict("warm", {})["calls"] == 1

    def test_what_was_recorded_is_run_at_the_sizes_of_shared_runs_too(self, tmp_path: Path) -> None:
        import tensorflow as tf

        runs: list[list[float]] = []

        def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
            runs.append(inputs["x"].tolist())
            return {"y": inputs["x"]}

        spec = {"x": TensorSpec(1, (None,))}
        outputs = {"y": TensorSpec(1, (None,))}
        signature = Signature("serving_default", meta_graph_pb2.SignatureDef(), spec, outputs, run)
        entry = prediction_log_pb2.PredictionLog()
        entry.predict_log.request.CopyFrom(request("", x=[1.0, 2.0]))
        (tmp_path / WARMUP_FILE).parent.mkdir()
        with tf.io.TFRecordWriter(str(tmp_path / WARMUP_FILE)) as writer:
            writer.write(entry.SerializeToString())
        servable = Servable("m", 1, tmp_path, {}, {"serving_default": signature})
        warm_up(servable, batch_sizes=(1, 5))
        assert runs == [[1, 2], [1], [1, 2, 1, 2, 1]]
        runs.clear()
        warm_up(servable)
        assert runs == [[1, 2]]


class TestBatching:
    def test_an_error_stays_with_its_request(self, serve: Any, client: Any, models: Path) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", enable_batching=True)
        asking = client(server)
        outcomes: dict[int, Any] = {}

        def ask(n: int) -> None:
            value = -1.0 if n % 8 == 3 else float(n * n)
            try:
                outcomes[n] = asking.predict("m", {"x": np.array([value], np.float32)}, signature="sqrt")[
                    "y"
                ][0]
            except RequestFailedError as error:
                outcomes[n] = error

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for n, outcome in outcomes.items():
            if n % 8 == 3:
                assert "negative number" in str(outcome)
            else:
                assert outcome == n

    def test_parameters_file(self, tmp_path: Path) -> None:
        file = tmp_path / "batching.config"
        file.write_text("max_batch_size { value: 8 } allowed_batch_sizes: 2 allowed_batch_sizes: 8")
        parameters = batching_parameters(ServerSettings(batching_parameters_file=str(file)))
        assert (parameters.max_batch_size, parameters.allowed_batch_sizes) == (8, (2, 8))

    def test_parameters_that_do_not_fit(self, serve: Any, models: Path, tmp_path: Path) -> None:
        file = tmp_path / "batching.config"
        file.write_text("max_batch_size { value: 8 } allowed_batch_sizes: 4")
        with pytest.raises(ConfigFileError, match="end with max_batch_size 8"):
            serve(model_name="m", model_base_path=models / "everything", batching_parameters_file=str(file))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_batch_size", 0),
            ("num_batch_threads", 0),
            ("max_enqueued_batches", -1),
            ("batch_timeout_micros", -1),
        ],
    )
    def test_parameters_with_which_no_request_would_be_answered(
        self, serve: Any, models: Path, tmp_path: Path, name: str, value: int
    ) -> None:
        file = tmp_path / "batching.config"
        file.write_text(f"{name} {{ value: {value} }}")
        with pytest.raises(ConfigFileError, match=f"{name} {value} is below"):
            serve(model_name="m", model_base_path=models / "everything", batching_parameters_file=str(file))


class TestLimits:
    def test_a_large_request_is_refused(self, serve: Any, client: Any, models: Path) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", max_request_bytes=10_000)
        big = {"x": np.zeros((5000, 2), np.float32)}
        with pytest.raises(RequestFailedError, match="RESOURCE_EXHAUSTED"):
            client(server).predict("m", big)
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port)
        connection.request("POST", "/v1/models/m:predict", b"x" * 20_000)
        assert connection.getresponse().status == 413

    def test_a_rest_request_has_one_time_limit(
        self, serve: Any, models: Path, hold: Any, running: Any, rest_clock: Any
    ) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", rest_api_timeout_in_ms=300_000)
        body = json.dumps(rest_body(hold())).encode()
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=60) as connection:
            connection.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: localhost\r\n")
            connection.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body[:5])
            running.until(lambda: rest_clock.reads > 0)  # the request has begun
            rest_clock.now_s = 300.0  # while its body arrived
            connection.sendall(body[5:])
            assert b" 504 " in connection.recv(1000)  # the answer has no time limit of its own

    @pytest.mark.parametrize("timeout_s", [1.0, None])
    def test_a_grpc_request_does_not_wait_for_ever(
        self, serve: Any, models: Path, tmp_path: Path, hold: Any, running: Any, timeout_s: float | None
    ) -> None:
        held = hold()
        one_runner = tmp_path / "batching.config"
        one_runner.write_text("num_batch_threads { value: 1 }")
        server = serve(
            model_name="m",
            model_base_path=models / "everything",
            batching_parameters_file=one_runner,
            grpc_timeout_in_ms=300,
        )
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            computing = stub.Predict.future(request("hold", **held.inputs), timeout=60)
            held.until_it_computes()
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(request("specials", x=[1.0]), timeout=timeout_s)
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert not computing.done()
            running.until(lambda: 'status="DEADLINE_EXCEEDED"} 1' in server.metrics.page())
            held.let_go()
            computing.result()

    def test_calls_that_nobody_waits_for_keep_their_place(
        self, serve: Any, models: Path, hold: Any, running: Any
    ) -> None:
        server = serve(
            model_name="m",
            model_base_path=models / "everything",
            rest_api_timeout_in_ms=2000,
            rest_api_num_threads=1,
            max_concurrent_requests=3,
        )
        held, *waiting = hold(), hold(), hold()
        statuses: list[int] = []

        def ask(one: Any) -> None:
            statuses.append(rest(server, "/v1/models/m:predict", rest_body(one))[0])

        threads = [threading.Thread(target=ask, args=(one,)) for one in (held, *waiting)]
        threads[0].start()
        held.until_it_computes()
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [504, 504, 504]
        assert rest(server, "/v1/models/m:predict", {})[0] == 429  # one computes, two wait: unrun
        for one in (held, *waiting):
            one.let_go()
        running.until(lambda: rest(server, "/v1/models/m")[0] == 200)
        page = server.metrics.page()
        assert 'status="OK"} 1' in page  # only what ran before its time was up
        assert "DEADLINE_EXCEEDED" not in page

    def test_bytes_in_flight_are_limited(self, serve: Any, base_path: Path, running: Any) -> None:
        def asked(body: Any) -> tuple[int, Any]:
            return rest(server, "/v1/models/half:predict", body)

        server = serve(model_name="half", model_base_path=base_path, max_request_bytes_in_flight=10_000)
        with socket.create_connection(("127.0.0.1", server.rest_port)) as connection:
            connection.sendall(b"POST /v1/models/half:predict HTTP/1.1\r\nHost: localhost\r\n")
            connection.sendall(b"Content-Length: 9000\r\n\r\n" + b" " * 8000)
            refused = {"error": "requests of 10000 bytes are in flight already"}
            running.until(lambda: asked(b" " * 5000) == (429, refused))
        running.until(lambda: asked({"instances": [2.0]})[0] == 200)

    def test_health_and_status_answer_while_every_thread_computes(
        self, serve: Any, client: Any, models: Path, hold: Any
    ) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", grpc_max_threads=2)
        asking = client(server)
        held = [hold() for _ in range(4)]
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            running = [stub.Predict.future(request("hold", **one.inputs), timeout=60) for one in held[:2]]
            for one in held[:2]:
                one.until_it_computes()
            running += [stub.Predict.future(request("hold", **one.inputs), timeout=60) for one in held[2:]]
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == 1
            assert asking.status("m")[0].state == "AVAILABLE"
            assert not any(call.done() for call in running)
            for one in held:
                one.let_go()
            for call in running:
                call.result()

    def test_status_over_rest_answers_while_every_thread_computes(
        self, serve: Any, client: Any, models: Path, hold: Any
    ) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", rest_api_num_threads=1)
        asking, held = client(server, over="rest"), hold()
        computing = threading.Thread(target=lambda: asking.predict("m", held.inputs, signature="hold"))
        computing.start()
        held.until_it_computes()
        assert client(server, over="rest", timeout_s=5).status("m")[0].state == "AVAILABLE"
        held.let_go()
        computing.join()

    def test_open_reflection_streams_hold_up_no_request(
        self, serve: Any, client: Any, base_path: Path
    ) -> None:
        server = serve(model_name="half", model_base_path=base_path, grpc_max_threads=2)
        done = threading.Event()

        def questions() -> Iterator[Any]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")
            done.wait()

        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            streams = [stub.ServerReflectionInfo(questions()) for _ in range(8)]
            time.sleep(0.3)
            assert len(streams) == 8
            assert client(server).predict("half", {"x": X}, timeout_s=10)["y"][0, 0] == 3.0
            done.set()

    def test_what_callers_break_is_no_error_of_the_server(
        self, serve: Any, base_path: Path, caplog: Any, running: Any, rest_clock: Any
    ) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        with socket.create_connection(("127.0.0.1", server.rest_port)) as connection:
            connection.sendall(b"POST /v1/models/half:predict HTTP/1.1\r\nHost: localhost\r\n")
            connection.sendall(b"Content-Length: 1000\r\n\r\n{")
            running.until(lambda: rest_clock.reads > 0)  # the request has begun
        status, answer = rest(
            server, "/v1/models/half:predict", b"no gzip", headers={"Content-Encoding": "gzip"}
        )
        assert status == 400
        assert "the body cannot be read" in answer["error"]
        server.stop()  # no request is left
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    def test_headers_that_never_end_are_cut(self, serve: Any, base_path: Path) -> None:
        server = serve(model_name="half", model_base_path=base_path, rest_api_timeout_in_ms=300)
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=60) as connection:
            connection.sendall(b"GET /v1/models/half HTTP/1.1\r\nHost: loc")
            assert connection.recv(10_000) == b""  # closed

    def test_a_connection_that_is_kept_open_is_not_cut(
        self, serve: Any, base_path: Path, running: Any
    ) -> None:
        server = serve(model_name="half", model_base_path=base_path, rest_api_timeout_in_ms=100)
        kept = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
        kept.request("GET", "/v1/models/half")
        assert kept.getresponse().read()
        used = kept.sock
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=60) as later:
            later.sendall(b"GET ")
            assert later.recv(10) == b""  # what began after it has run out of time already
        kept.request("GET", "/v1/models/half")
        assert kept.getresponse().status == 200
        assert kept.sock is used
        kept.close()

    def test_status_answers_while_large_documents_are_read(self, serve: Any, base_path: Path) -> None:
        """Bodies of a few kilobytes that inflate to megabytes hold up no other request."""
        server = serve(model_name="half", model_base_path=base_path)
        body = gzip.compress(b'{"instances": [' + b"[1.0]," * 700_000 + b"[1.0]]}", 1)
        headers = {"Content-Encoding": "gzip"}
        statuses: list[int] = []
        loads = [
            threading.Thread(
                target=lambda: statuses.append(
                    rest(server, "/v1/models/half:predict", body, headers=headers)[0]
                )
            )
            for _ in range(4)
        ]
        for load in loads:
            load.start()
        answered_meanwhile = 0
        while any(load.is_alive() for load in loads):
            assert rest(server, "/v1/models/half")[0] == 200
            answered_meanwhile += len(statuses) < len(loads)
        assert answered_meanwhile > len(loads)
        assert set(statuses) <= {200, 429, 504}

    @pytest.mark.parametrize("host", ["attacker.example", "attacker.example:8501"])
    def test_another_sites_name(self, serve: Any, base_path: Path, host: str) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        status, answer = rest(server, "/v1/models/half", headers={"Host": host})
        assert (status, host in answer["error"]) == (403, True)
        server = serve(
            model_name="half", model_base_path=base_path, rest_api_allowed_hosts=("attacker.example",)
        )
        assert rest(server, "/v1/models/half", headers={"Host": host})[0] == 200

    def test_a_lack_of_descriptors_is_one_line(self, caplog: Any) -> None:
        loop, report = asyncio.new_event_loop(), LoopErrors()
        for _ in range(512):
            report(
                loop, {"message": "socket.accept() out of system resource", "exception": OSError(24, "many")}
            )
        loop.close()
        (record,) = caplog.records
        assert "REST connections cannot be accepted: many" in record.getMessage()
        assert not record.exc_info

    def test_too_many_rest_requests(self, serve: Any, models: Path, hold: Any) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", max_concurrent_requests=1)
        held = hold()
        first = threading.Thread(target=lambda: rest(server, "/v1/models/m:predict", rest_body(held)))
        first.start()
        held.until_it_computes()
        status, answer = rest(server, "/v1/models/m:predict", rest_body(held))
        assert (status, answer["error"]) == (429, "1 requests are in flight already")
        held.let_go()
        first.join()

    def test_an_error_text_of_any_language_passes(self, serve: Any, base_path: Path) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        asked = request("serving_default", model="half", x=[[2.0]])
        asked.output_filter.append("漢" * 2000)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(asked, timeout=20)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details().endswith("漢...TRUNCATED")

    def test_past_the_concurrency_limit_requests_are_refused_at_once(
        self, serve: Any, client: Any, models: Path, hold: Any
    ) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", max_concurrent_requests=2)
        asking = client(server)
        held = [hold() for _ in range(2)]
        threads = [
            threading.Thread(target=lambda one=one: asking.predict("m", one.inputs, signature="hold"))
            for one in held
        ]
        for thread in threads:
            thread.start()
        for one in held:
            one.until_it_computes()
        address = f"127.0.0.1:{server.grpc_port}"
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        for one in held:
            one.let_go()
        for thread in threads:
            thread.join()


def certificate(folder: Path) -> tuple[Path, Path]:
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return key, cert


class TestListening:
    @pytest.mark.parametrize("is_mutual", [False, True])
    def test_tls(self, serve: Any, client: Any, base_path: Path, tmp_path: Path, is_mutual: bool) -> None:
        key, cert = certificate(tmp_path)
        text = f"server_key: {json.dumps(key.read_text())} server_cert: {json.dumps(cert.read_text())}"
        if is_mutual:
            text += f" custom_ca: {json.dumps(cert.read_text())} client_verify: true"
        file = tmp_path / "ssl.config"
        file.write_text(text)
        server = serve(model_name="half", model_base_path=base_path, ssl_config_file=str(file))
        mine = {"cert_file": cert, "key_file": key} if is_mutual else {}
        assert client(server, ca_file=cert, **mine).predict("half", {"x": X})["y"][0, 0] == 3.0
        if is_mutual:
            with pytest.raises(RequestFailedError):
                client(server, ca_file=cert, timeout_s=3).predict("half", {"x": X})
        with pytest.raises(RequestFailedError, match="UNAVAILABLE"):
            client(server, timeout_s=3).predict("half", {"x": X})

    def test_swapped_key_and_certificate(self, tmp_path: Path) -> None:
        key, cert = certificate(tmp_path)
        file = tmp_path / "ssl.config"
        file.write_text(
            f"server_key: {json.dumps(cert.read_text())} server_cert: {json.dumps(key.read_text())}"
        )
        with pytest.raises(ConfigFileError) as caught:
            read_ssl_config(file)
        assert str(caught.value).endswith(
            "server_key holds no private key but: certificate; are server_key and server_cert swapped?"
        )
        file.write_text('server_key: "k" server_cert: "c"')
        with pytest.raises(ConfigFileError, match="server_key holds no private key but: no pem text"):
            read_ssl_config(file)

    @pytest.mark.parametrize("is_one_file", [False, True])
    def test_a_clients_certificate_needs_no_authority_of_its_own(
        self, serve: Any, base_path: Path, tmp_path: Path, is_one_file: bool
    ) -> None:
        key, cert = certificate(tmp_path)
        text = f"server_key: {json.dumps(key.read_text())} server_cert: {json.dumps(cert.read_text())}"
        file = tmp_path / "ssl.config"
        file.write_text(text + f" custom_ca: {json.dumps(cert.read_text())} client_verify: true")
        server = serve(model_name="half", model_base_path=base_path, ssl_config_file=str(file))
        both = tmp_path / "both.pem"
        both.write_text(key.read_text() + cert.read_text())
        files = f"cert_file=Path({str(both)!r})"
        if not is_one_file:
            files = f"cert_file=Path({str(cert)!r}), key_file=Path({str(key)!r})"
        asking = f"Client('localhost:{server.grpc_port}', timeout_s=10, {files}).status('half')[0].state"
        asked = subprocess.run(
            [sys.executable, "-c"]
            + [f"from pathlib import Path; from mlplatform.serving import Client; print({asking})"],
            env={**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(cert)},  # the system's authorities
            capture_output=True,
            text=True,
        )
        assert asked.stdout == "AVAILABLE\n", asked.stderr

    def test_tls_holds_for_the_socket_too(self, serve: Any, base_path: Path, tmp_path: Path) -> None:
        from mlplatform.serving import Client

        key, cert = certificate(tmp_path)
        file = tmp_path / "ssl.config"
        file.write_text(
            f"server_key: {json.dumps(key.read_text())} server_cert: {json.dumps(cert.read_text())}"
        )
        path = tmp_path / "grpc.sock"
        serve(
            model_name="half",
            model_base_path=base_path,
            ssl_config_file=str(file),
            grpc_socket_path=str(path),
        )
        with (
            Client(f"unix:{path}", timeout_s=3) as asking,
            pytest.raises(RequestFailedError, match="UNAVAILABLE"),
        ):
            asking.predict("half", {"x": X})

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (lambda key, cert: {"server_key": key}, "server_key and server_cert .* are both needed"),
            (
                lambda key, cert: {"server_key": key, "server_cert": cert, "client_verify": True},
                "client_verify needs custom_ca",
            ),
            (lambda key, cert: {"server_key": "k", "server_cert": cert}, "server_key holds no private key"),
            (
                lambda key, cert: {"server_key": key, "server_cert": cert, "custom_ca": "c"},
                "custom_ca holds no certificate",
            ),
        ],
    )
    def test_tls_files_that_are_wrong_are_told_before_anything_is_loaded(
        self, tmp_path: Path, base_path: Path, change: Any, text: str
    ) -> None:
        from mlplatform.serving import ModelServer

        key, cert = (file.read_text() for file in certificate(tmp_path))
        file = tmp_path / "ssl.config"
        file.write_text(" ".join(f"{n}: {json.dumps(v)}" for n, v in change(key, cert).items()))
        with pytest.raises(ConfigFileError, match=text):
            ModelServer(model_name="half", model_base_path=base_path, ssl_config_file=file)

    def test_a_file_that_is_no_socket_is_left_alone(
        self, serve: Any, base_path: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "precious.txt"
        path.write_text("data")
        with pytest.raises(StatusError, match="no socket lies there"):
            serve(model_name="half", model_base_path=base_path, grpc_socket_path=str(path))
        assert path.read_text() == "data"
        with pytest.raises(StatusError, match="cannot listen for gRPC on unix:"):
            serve(model_name="half", model_base_path=base_path, grpc_socket_path=str(tmp_path / "no" / "s"))

    def test_a_socket_is_taken_over_and_removed(self, serve: Any, base_path: Path, tmp_path: Path) -> None:
        path = tmp_path / "grpc.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        server = serve(model_name="half", model_base_path=base_path, grpc_socket_path=str(path))
        assert path.is_socket()
        server.stop()
        assert not path.exists()

    def test_ipv6(self, serve: Any, base_path: Path) -> None:
        from mlplatform.serving import Client

        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        server = serve(model_name="half", model_base_path=base_path, host="::1")
        for address in (f"[::1]:{server.grpc_port}", f"http://[::1]:{server.rest_port}"):
            with Client(address) as asking:
                assert asking.predict("half", {"x": X})["y"][0, 0] == 3.0

    def test_unix_socket(self, serve: Any, base_path: Path, tmp_path: Path) -> None:
        from mlplatform.serving import Client

        path = tmp_path / "grpc.sock"
        serve(model_name="half", model_base_path=base_path, grpc_socket_path=str(path))
        with Client(f"unix:{path}") as asking:
            assert asking.predict("half", {"x": X})["y"][0, 0] == 3.0

    def test_loopback_unless_told(self, serve: Any, base_path: Path) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        with socket.socket() as other:
            other.bind(("127.0.0.2", 0))
            for port in (server.rest_port, server.grpc_port):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.2", port), timeout=2)

    def test_rest_can_be_off(self, serve: Any, base_path: Path) -> None:
        assert serve(model_name="half", model_base_path=base_path, rest_api_port=-1).rest_port == -1

    def test_cors(self, serve: Any, base_path: Path) -> None:
        server = serve(model_name="half", model_base_path=base_path, rest_api_enable_cors_support=True)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}/v1/models/half") as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"


class TestMetrics:
    def test_page(self, serve: Any, client: Any, base_path: Path, tmp_path: Path) -> None:
        file = tmp_path / "monitoring.config"
        file.write_text("prometheus_config { enable: true }")
        server = serve(model_name="half", model_base_path=base_path, monitoring_config_file=str(file))
        asking = client(server)
        asking.predict("half", {"x": X})
        client(server, over="rest").predict("half", {"x": X})
        with pytest.raises(RequestFailedError):
            asking.predict("half", {"z": X})
        with pytest.raises(RequestFailedError):
            asking.predict("made_up_by_the_caller", {"x": X})
        url = f"http://127.0.0.1:{server.rest_port}/monitoring/prometheus/metrics"
        page = urllib.request.urlopen(url).read().decode()
        assert "# TYPE :tensorflow:serving:request_count counter" in page
        assert ':tensorflow:serving:request_count{model_name="half",status="OK"} 2' in page
        assert ':tensorflow:serving:request_count{model_name="half",status="INVALID_ARGUMENT"} 1' in page
        assert "# TYPE :tensorflow:serving:request_latency histogram" in page
        labels = 'model_name="half",API="Predict",entrypoint="REST"'
        assert f":tensorflow:serving:request_latency_count{{{labels}}} 1" in page
        assert f':tensorflow:serving:request_latency_bucket{{{labels},le="+Inf"}} 1' in page
        assert "made_up" not in page

    def test_names_that_callers_make_up_are_not_kept(self, serve: Any, client: Any, base_path: Path) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        for method in ("predict", "classify", "regress"):
            assert rest(server, f"/v1/models/made_up:{method}", b"{")[0] == 400
        with pytest.raises(RequestFailedError):
            client(server).predict("made_up", {"x": X}, label="no")
        page = server.metrics.page()
        assert "made_up" not in page
        assert 'request_count{model_name="",status="INVALID_ARGUMENT"} 4' in page

    def test_requests_that_cannot_be_read_are_counted(self, serve: Any, base_path: Path) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        for method in ("predict", "classify", "regress"):
            assert rest(server, f"/v1/models/half:{method}", b"{")[0] == 400
        assert 'request_count{model_name="half",status="INVALID_ARGUMENT"} 3' in server.metrics.page()

    def test_off_unless_asked_for(self, serve: Any, base_path: Path) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}/monitoring/prometheus/metrics")


class TestRequestLog:
    def read(self, folder: Path) -> list[prediction_log_pb2.PredictionLog]:
        import tensorflow as tf

        files = sorted(str(file) for file in folder.glob("*/*.tfrecord"))
        return [
            prediction_log_pb2.PredictionLog.FromString(r)
            for r in tf.data.TFRecordDataset(files).as_numpy_iterator()
        ]

    def test_requests_of_both_protocols_without_what_is_never_logged(
        self, serve: Any, client: Any, models: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "log"
        server = serve(
            model_name="m",
            model_base_path=models / "half_plus_two",
            request_log_dir=str(folder),
            request_log_sampling_rate=1.0,
            request_log_never=("seller_email",),
        )
        import tensorflow as tf

        example = tf.train.Example()
        example.features.feature["x"].float_list.value.append(2.0)
        example.features.feature["seller_email"].bytes_list.value.append(b"a@example.org")
        sent = np.array([example.SerializeToString()], object)
        for over in ("grpc", "rest"):
            asking = client(server, over=over)
            asking.predict("m", {"inputs": sent}, signature="regress_x_to_y")
        server.stop()
        logs = self.read(folder)
        assert len(logs) == 2
        for log in logs:
            assert log.log_metadata.model_spec.name == "m"
            assert log.predict_log.response.outputs["outputs"].float_val == [3.0]
            (kept,) = log.predict_log.request.inputs["inputs"].string_val
            assert b"example.org" not in kept
            assert tf.train.Example.FromString(kept).features.feature["x"].float_list.value == [2.0]

    def test_nothing_is_written_unless_asked_for(
        self, serve: Any, client: Any, base_path: Path, monkeypatch: Any, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        before = set(tmp_path.rglob("*"))
        server = serve(model_name="half", model_base_path=base_path, request_log_sampling_rate=1.0)
        client(server).predict("half", {"x": X})
        server.stop()
        assert set(tmp_path.rglob("*")) == before

    def test_size_and_sample(self, tmp_path: Path) -> None:
        from tensorflow_serving.apis import predict_pb2

        from mlplatform.serving.request_log import RequestLog

        log = RequestLog(tmp_path, sampling_rate=0.25, max_bytes=64_000)
        request = predict_pb2.PredictRequest()
        request.inputs["x"].tensor_content = b"x" * 1000
        taken = 0
        for _ in range(2000):
            if log.takes_next():
                taken += 1
                log.write("predict_log", "m", request, predict_pb2.PredictResponse())
        log.close()
        assert 350 < taken < 650
        sizes = [file.stat().st_size for file in tmp_path.glob("*/*")]
        assert 40_000 < sum(sizes) < 70_000
        assert len(self.read(tmp_path)) < taken


class TestTflite:
    @pytest.mark.parametrize("model", ["lite", "lite_plain"])
    def test_a_tflite_model_alone(self, serve: Any, client: Any, models: Path, model: str) -> None:
        server = serve(model_name="m", model_base_path=models / model)
        for rows in (1, 3):
            x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
            assert np.array_equal(client(server).predict("m", {"x": x})["y"], 2 * x)
        with pytest.raises(RequestFailedError, match="INVALID_ARGUMENT"):
            client(server).predict("m", {"x": np.zeros((1, 5), np.float32)})

    def test_variant_beside_the_saved_model(
        self, serve: Any, client: Any, models: Path, tmp_path: Path
    ) -> None:
        import shutil

        from mlplatform.exported_model.tflite_export import TfliteExportError, compare_tflite, export_tflite
        from mlplatform.serving.saved_model import load

        folder = tmp_path / "m" / "1"
        shutil.copytree(models / "everything" / "1", folder)
        batches = [{"x": np.random.default_rng(n).random((4, 2), np.float32)} for n in range(4)]
        assert export_tflite(folder, "serving_default").is_file()
        assert compare_tflite(folder, "serving_default", batches).is_within(1e-5)
        export_tflite(folder, "serving_default", calibration=batches)
        difference = compare_tflite(folder, "serving_default", batches)
        assert not difference.is_within(1e-7)
        assert difference.is_within(0.2)
        with pytest.raises(TfliteExportError, match="texts"):
            export_tflite(folder, "texts")
        loaded = load(folder, "m", 1, prefers_tflite=True)
        engines = {name: s.engine for name, s in loaded.signatures.items()}
        assert engines["serving_default"] == "tflite"
        assert engines["sqrt"] == "tensorflow"
        server = serve(model_name="m", model_base_path=folder.parent, prefer_tflite_model=True)
        y = client(server).predict("m", {"x": np.full((2, 2), 0.5, np.float32)})["y"]
        assert np.allclose(y, [[2, 3], [2, 3]], atol=0.1)


class TestClient:
    def test_rest_and_grpc_give_the_same(self, serve: Any, client: Any, models: Path) -> None:
        server = serve(model_name="m", model_base_path=models / "everything")
        over_grpc, over_rest = client(server), client(server, over="rest")
        for signature, inputs in (
            ("two", {"a": np.array([1, 2], np.float32), "b": np.array([3, 5], np.float32)}),
            ("texts", {"text": ["cat", "dog"]}),
            ("texts", {"text": [b"cat", b"\xff\xfe"]}),
            ("same_float", {"x": np.array([0.5], np.float32)}),
        ):
            one = over_grpc.predict("m", inputs, signature=signature)
            other = over_rest.predict("m", inputs, signature=signature)
            assert set(one) == set(other)
            for name in one:
                if name != "upper":
                    assert one[name].tolist() == other[name].tolist()

    def test_no_server(self) -> None:
        from mlplatform.serving import Client

        for address in ("127.0.0.1:1", "http://127.0.0.1:1"):
            with (
                Client(address, timeout_s=2) as asking,
                pytest.raises(RequestFailedError, match="UNAVAILABLE"),
            ):
                asking.predict("m", {"x": X})

    def test_the_client_needs_no_tensorflow(
        self, running: Any, warm_processes: Any, models: Path, tmp_path: Path
    ) -> None:
        flags = ("--model_name", "m", "--model_base_path", str(models / "half_plus_two"))
        server = running.ServerProcess(*flags, log=tmp_path / "log", processes=warm_processes)
        program = (
            "import sys, numpy as np\n"
            "from mlplatform.serving import Client\n"
            "for address in sys.argv[1:]:\n"
            "    with Client(address) as c:\n"
            "        print(c.predict('m', {'x': np.array([[2]], np.float32)})['y'].tolist())\n"
            "assert 'tensorflow' not in sys.modules\n"
        )
        try:
            done = subprocess.run(
                [sys.executable, "-c", program, server.grpc, server.rest], capture_output=True, text=True
            )
        finally:
            assert server.stop() == 0
        assert done.stdout.split() == ["[[3.0]]", "[[3.0]]"], done.stderr


class TestStop:
    def test_in_flight_requests_finish_and_health_says_so_first(
        self, running: Any, models: Path, tmp_path: Path, hold: Any
    ) -> None:
        from mlplatform.serving import Client

        held, held_rest = hold(), hold()
        server = running.ServerProcess(
            "--model_name", "m", "--model_base_path", str(models / "everything"), "--lame_duck_s", "5",
            log=tmp_path / "log",
        )  # fmt: skip
        answers: dict[str, Any] = {}

        def ask() -> None:
            with Client(server.grpc) as asking:
                answers["grpc"] = asking.predict("m", held.inputs, signature="hold")["done"].tolist()

        def ask_rest() -> None:
            body = json.dumps(rest_body(held_rest)).encode()
            with urllib.request.urlopen(f"{server.rest}/v1/models/m:predict", body) as answer:
                answers["rest"] = json.loads(answer.read())["outputs"]

        threads = [threading.Thread(target=one) for one in (ask, ask_rest)]
        for thread in threads:
            thread.start()
        held.until_it_computes()
        held_rest.until_it_computes()
        server.process.send_signal(signal.SIGTERM)
        with grpc.insecure_channel(server.grpc) as channel:
            health, asked = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
            running.until(lambda: health.Check(asked, timeout=5).status == 2)  # NOT_SERVING
        assert answers == {}
        held.let_go()
        held_rest.let_go()
        for thread in threads:
            thread.join()
        (folder,) = held.inputs["folder"]
        assert answers == {"grpc": [folder.encode()], "rest": held_rest.inputs["folder"]}
        assert server.process.wait(timeout=30) == 0
        assert "stopped" in server.log.read_text()

    def test_the_process_ends_though_a_request_goes_on(
        self, running: Any, warm_processes: Any, models: Path, tmp_path: Path, hold: Any
    ) -> None:
        held = hold()
        server = running.ServerProcess(
            "--model_name", "m", "--model_base_path", str(models / "everything"),
            "--lame_duck_s", "0", "--drain_s", "0.5", log=tmp_path / "log", processes=warm_processes,
        )  # fmt: skip
        with grpc.insecure_channel(server.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            asked = stub.Predict.future(request("hold", **held.inputs), timeout=100)
            held.until_it_computes()
            server.process.terminate()
            assert server.process.wait(timeout=10) == 0
            assert asked.code() == grpc.StatusCode.UNAVAILABLE

    def test_the_process_ends_whichever_thread_takes_the_signal(
        self, running: Any, models: Path, tmp_path: Path
    ) -> None:
        server = running.ServerProcess(
            "--model_name", "m", "--model_base_path", str(models / "everything"),
            "--lame_duck_s", "0", log=tmp_path / "log",
        )  # fmt: skip
        pid, term = server.process.pid, signal.SIGTERM
        takes_it = [
            int(thread.name)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            if not int(re.search(r"SigBlk:\s+(\w+)", (thread / "status").read_text())[1], 16) >> (term - 1)
            & 1
        ]
        assert ctypes.CDLL(None).tgkill(pid, max(takes_it), term) == 0
        assert max(takes_it) != pid
        assert server.process.wait(timeout=30) == 0

    def test_sighup_reloads_and_sigterm_still_stops(
        self, running: Any, warm_processes: Any, models: Path, tmp_path: Path
    ) -> None:
        def config(*names: str) -> str:
            entries = (
                f'config {{ name: "{name}" base_path: "{models / name}" model_platform: "tensorflow" }}'
                for name in names
            )
            return f"model_config_list {{ {' '.join(entries)} }}"

        file = tmp_path / "models.config"
        file.write_text(config("half_plus_two"))
        flags = ("--model_config_file", str(file))
        server = running.ServerProcess(*flags, log=tmp_path / "log", processes=warm_processes)
        file.write_text(config("half_plus_two", "half_plus_three"))
        server.process.send_signal(signal.SIGHUP)
        with Client(server.grpc) as asking:
            asking.wait_until_available("half_plus_three")
        file.write_text("broken {")
        server.process.send_signal(signal.SIGHUP)
        running.until(lambda: "the model config file is not taken over" in server.log.read_text())
        with Client(server.grpc) as asking:
            assert asking.status("half_plus_three")[0].state == "AVAILABLE"
        assert server.stop() == 0

    def test_connections_that_are_kept_open_end_with_their_answer(
        self, serve: Any, models: Path, hold: Any, running: Any
    ) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", drain_s=600.0)
        held = hold()
        kept = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
        kept.request("POST", "/v1/models/m:predict", json.dumps(rest_body(held)))
        held.until_it_computes()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        running.until(lambda: refuses_connections(server.rest_port))  # it drains
        held.let_go()
        answer = kept.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (200, "close")
        stopping.join(60)
        assert not stopping.is_alive()  # it does not wait for the whole drain

    def test_a_body_that_never_ends_is_cut_after_the_drain(
        self, serve: Any, base_path: Path, running: Any, rest_clock: Any
    ) -> None:
        server = serve(
            model_name="half", model_base_path=base_path, drain_s=600.0, rest_api_timeout_in_ms=3_600_000
        )
        with socket.create_connection(("127.0.0.1", server.rest_port)) as connection:
            connection.sendall(b"POST /v1/models/half:predict HTTP/1.1\r\nHost: localhost\r\n")
            connection.sendall(b"Content-Length: 1000\r\n\r\n{")
            running.until(lambda: rest_clock.reads > 0)  # the request has begun
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            running.until(lambda: refuses_connections(server.rest_port))  # it drains
            rest_clock.now_s = 600.0
            stopping.join(60)
            assert not stopping.is_alive()  # the cut does not take a second drain

    def test_grpc_takes_no_request_while_rest_drains(
        self, serve: Any, models: Path, hold: Any, running: Any
    ) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", drain_s=60.0)
        held = hold()
        statuses: list[int] = []
        asking = threading.Thread(
            target=lambda: statuses.append(rest(server, "/v1/models/m:predict", rest_body(held))[0])
        )
        asking.start()
        held.until_it_computes()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

            def is_refused() -> bool:
                try:
                    stub.Predict(request("", x=[[1.0, 2.0]]), timeout=5)
                except grpc.RpcError as error:
                    return error.code() == grpc.StatusCode.UNAVAILABLE
                return False

            running.until(is_refused)
        assert statuses == []
        held.let_go()
        stopping.join()
        asking.join()
        assert statuses == [200]

    def test_it_stops_while_it_waits_for_a_model(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "mlplatform.cli.main", "serve", "--rest_api_port", "0"]
        log = tmp_path / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [*command, "--port", "0", "--model_base_path", str(tmp_path / "no")], stderr=file
            )
        deadline = time.monotonic() + 60
        while "cannot be read" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        assert process.wait(timeout=30) == 0

    def test_a_taken_port_is_told(self, serve: Any, base_path: Path) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            for flag in ("port", "rest_api_port"):
                with pytest.raises(StatusError, match=f"cannot listen for .* on 127.0.0.1:{port}: "):
                    serve(model_name="half", model_base_path=base_path, **{flag: port})
        assert "rest" not in {thread.name for thread in threading.enumerate()}


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"port": 5, "rest_api_port": 5}, "rest_api_port cannot be same as port"),
            ({"model_config_file": "/nowhere"}, "there is no such file"),
            ({"request_log_sampling_rate": 2.0}, "not within 0 and 1"),
            ({"model_config_file_poll_wait_seconds": 1.0}, "needs model_config_file"),
            ({"port": -1, "rest_api_port": -1}, "nobody could ask this server"),
            ({"port": 70000}, "^port 70000 is above 65535"),
            ({"rest_api_port": 65536}, "^rest_api_port 65536 is above 65535"),
            ({"max_request_bytes": 1 << 31}, "^max_request_bytes 2147483648 is above 2147483647"),
            ({"model_name": "m"}, "^model_name m needs model_base_path"),
            ({"grpc_max_threads": 0}, "^grpc_max_threads 0 is not above 0"),
            ({"max_concurrent_requests": -1}, "^max_concurrent_requests -1 is not above 0"),
            ({"drain_s": -1.0}, "^drain_s -1.0 is negative"),
            ({"ssl_config_file": "/nowhere"}, "there is no such file"),
            ({"grpc_channel_arguments": "a"}, "^grpc_channel_arguments: 'a' is no key=value pair"),
        ],
    )
    def test_refused(self, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(SettingsError, match=text):
            ServerSettings(**settings)

    def test_flags_as_tensorflow_serving_takes_them(self) -> None:
        from click.testing import CliRunner

        from mlplatform.cli.serve import serve

        flags = ["--enable_batching=true", "--port=5", "--rest_api_port=5"]
        idle = ["--num_load_threads=4", "--flush_filesystem_caches", "--per_process_gpu_memory_fraction=0.5"]
        done = CliRunner().invoke(serve, [*flags, *idle])
        assert isinstance(done.exception, SettingsError)
        assert "--rest_api_port cannot be same as --port (5)" in str(done.exception)
        assert "--num_load_threads has no effect" in done.output
        assert "--flush_filesystem_caches has no effect" in done.output
        assert "--num_tflite_pools" not in done.output

    def test_parameters_of_tensorflow_serving_that_are_not_taken_are_told(
        self, tmp_path: Path, caplog: Any
    ) -> None:
        file = tmp_path / "batching.config"
        file.write_text("enable_large_batch_splitting { value: true } max_batch_size { value: 4 }")
        read_batching_parameters(file, BatchingParameters())
        assert "enable_large_batch_splitting is read and has no effect" in caplog.text
