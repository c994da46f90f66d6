"""The server's own promises: limits, batching, warm-up, TLS, sockets, metrics, log, stop."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import prediction_log_pb2

from mlplatform.serving.client import RequestFailedError
from mlplatform.serving.settings import ServerSettings, SettingsError
from mlplatform.serving.status import StatusError
from mlplatform.serving.text_config import ConfigFileError

pytestmark = pytest.mark.e2e

X = np.array([[2.0]], np.float32)


def slow(seconds: float) -> dict[str, Any]:
    return {"seconds": np.array([seconds], np.float32)}


class TestWarmUp:
    def test_recorded_requests_are_run_before_it_serves(self, serve: Any, client: Any, models: Path) -> None:
        server = serve(
            model_name="warm", model_base_path=models / "warm", num_request_iterations_for_warmup=2
        )
        assert client(server).predict("warm", {})["calls"] == 7  # 3 records twice, and this one

    def test_it_can_be_left_out(self, serve: Any, client: Any, models: Path) -> None:
        server = serve(model_name="warm", model_base_path=models / "warm", enable_model_warmup=False)
        assert client(server).predict("warm", {})["calls"] == 1


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

    def test_parameters_file(self, serve: Any, models: Path, tmp_path: Path) -> None:
        file = tmp_path / "batching.config"
        file.write_text("max_batch_size { value: 8 } allowed_batch_sizes: 2 allowed_batch_sizes: 8")
        server = serve(
            model_name="m", model_base_path=models / "everything", batching_parameters_file=str(file)
        )
        parameters = server._api.inference.scheduler.parameters
        assert (parameters.max_batch_size, parameters.allowed_batch_sizes) == (8, (2, 8))

    def test_parameters_that_do_not_fit(self, serve: Any, models: Path, tmp_path: Path) -> None:
        file = tmp_path / "batching.config"
        file.write_text("max_batch_size { value: 8 } allowed_batch_sizes: 4")
        with pytest.raises(ConfigFileError, match="end with max_batch_size 8"):
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

    def test_deadlines(self, serve: Any, client: Any, models: Path) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", rest_api_timeout_in_ms=300)
        with pytest.raises(RequestFailedError, match="DEADLINE_EXCEEDED"):
            client(server).predict("m", slow(2.0), signature="slow", timeout_s=0.3)
        started = time.monotonic()
        with pytest.raises(RequestFailedError) as caught:
            client(server, over="rest").predict("m", slow(2.0), signature="slow")
        assert caught.value.code.name == "DEADLINE_EXCEEDED"
        assert time.monotonic() - started < 2.0

    def test_past_the_concurrency_limit_requests_are_refused_at_once(
        self, serve: Any, client: Any, models: Path
    ) -> None:
        server = serve(model_name="m", model_base_path=models / "everything", max_concurrent_requests=2)
        asking = client(server)
        threads = [
            threading.Thread(target=lambda: asking.predict("m", slow(1.0), signature="slow"))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        address = f"127.0.0.1:{server.grpc_port}"
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
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
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", server.rest_port), timeout=2)

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

    def test_nothing_is_written_unless_asked_for(self, serve: Any, client: Any, base_path: Path) -> None:
        server = serve(model_name="half", model_base_path=base_path)
        client(server).predict("half", {"x": X})
        assert server._request_log is None

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

        from mlplatform.serving.tflite_export import TfliteExportError, compare_tflite, export_tflite

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
        server = serve(model_name="m", model_base_path=folder.parent, prefer_tflite_model=True)
        with server.manager.servable("m") as servable:
            engines = {name: s.engine for name, s in servable.signatures.items()}
        assert engines["serving_default"] == "tflite"
        assert engines["sqrt"] == "tensorflow"
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

    def test_the_client_needs_no_tensorflow(self, running: Any, models: Path, tmp_path: Path) -> None:
        server = running.ServerProcess(
            "--model_name", "m", "--model_base_path", str(models / "half_plus_two"), log=tmp_path / "log"
        )
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
        self, running: Any, models: Path, tmp_path: Path, client: Any
    ) -> None:
        from mlplatform.serving import Client

        server = running.ServerProcess(
            "--model_name", "m", "--model_base_path", str(models / "everything"), "--lame_duck_s", "1",
            log=tmp_path / "log",
        )  # fmt: skip
        answers: list[Any] = []

        def ask(address: str) -> None:
            with Client(address) as asking:
                answers.append(asking.predict("m", slow(1.0), signature="slow"))

        threads = [threading.Thread(target=ask, args=(a,)) for a in (server.grpc, server.rest)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with grpc.insecure_channel(server.grpc) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == 2  # NOT_SERVING
        for thread in threads:
            thread.join()
        assert len(answers) == 2
        assert server.process.wait(timeout=30) == 0
        assert "stopped" in server.log.read_text()

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
                with pytest.raises(StatusError, match="cannot listen for"):
                    serve(model_name="half", model_base_path=base_path, **{flag: port})


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"port": 5, "rest_api_port": 5}, "cannot be same as --port"),
            ({"model_config_file": "/nowhere"}, "there is no such file"),
            ({"request_log_sampling_rate": 2.0}, "not within 0 and 1"),
            ({"model_config_file_poll_wait_seconds": 1.0}, "needs --model_config_file"),
        ],
    )
    def test_refused(self, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(SettingsError, match=text):
            ServerSettings(**settings)

    def test_flags_as_tensorflow_serving_takes_them(self) -> None:
        from click.testing import CliRunner

        from mlplatform.cli.serve import serve

        done = CliRunner().invoke(serve, ["--enable_batching=true", "--port=5", "--rest_api_port=5"])
        assert isinstance(done.exception, SettingsError)


def test_tls_needs_both_files(serve: Any, base_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "ssl.config"
    file.write_text('server_key: "k"')
    with pytest.raises(ConfigFileError, match="server_cert"):
        serve(model_name="half", model_base_path=base_path, ssl_config_file=str(file))
