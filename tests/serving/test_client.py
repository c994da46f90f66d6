"""The client: what is sent again and what never, how values travel, and what goes wrong."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest

from mlplatform.serving import Client
from mlplatform.serving.client import RequestFailedError, ServerAddressError

pytestmark = pytest.mark.e2e

X = {"x": np.array([[1.0, 2.0]], np.float32)}


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Any]:
    from mlplatform.serving import ModelServer

    with ModelServer(
        model_name="m",
        model_base_path=models / "everything",
        port=0,
        rest_api_port=0,
        lame_duck_s=0.0,
        max_concurrent_requests=1,
        enable_model_warmup=False,
    ) as server:
        yield server


@pytest.fixture(params=["grpc", "rest"])
def asking(server: Any, request: pytest.FixtureRequest) -> Iterator[Client]:
    port = server.grpc_port if request.param == "grpc" else server.rest_port
    with Client(f"{'' if request.param == 'grpc' else 'http://'}127.0.0.1:{port}") as client:
        yield client


@pytest.fixture
def http_server() -> Iterator[Callable[..., tuple[str, list[str]]]]:
    """A server that answers with the given contents in turn; None: it reads, then drops the connection.

    So it does at another `path` than the given one, too.
    """
    started: list[ThreadingHTTPServer] = []

    def start(*answers: tuple[int, bytes] | None, path: str = "") -> tuple[str, list[str]]:
        seen: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = answers[min(len(seen), len(answers) - 1)]
                seen.append(self.command)
                if answer is None or path not in ("", self.path):
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        started.append(http)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{http.server_port}", seen

    yield start
    for http in started:
        http.shutdown()
        http.server_close()


GOOD = (200, b'{"outputs": {"y": [1.0], "z": [2.0]}}')


class TestSentAgain:
    def test_never_where_the_answer_was_lost(self, http_server: Any) -> None:
        url, seen = http_server(GOOD, None)
        with Client(url) as client:
            client.predict("m", {"x": [1.0]})
            with pytest.raises(RequestFailedError, match="UNAVAILABLE"):
                client.predict("m", {"x": [1.0]})
        assert seen == ["POST", "POST"]

    def test_never_where_only_the_name_of_its_output_is_missing(self, http_server: Any) -> None:
        url, seen = http_server((200, b'{"outputs": [1.0]}'), None)
        with Client(url) as client, pytest.raises(RequestFailedError, match="metadata of m"):
            client.predict("m", {"x": [1.0]})
        assert seen == ["POST", "GET"]

    def test_a_question_about_states_is_safe(self, http_server: Any) -> None:
        state = b'{"version": "1", "state": "AVAILABLE", "status": {"error_message": ""}}'
        url, seen = http_server(None, (200, b'{"model_version_status": [' + state + b"]}"))
        with Client(url) as client:
            assert client.status("m")[0].state == "AVAILABLE"
        assert seen == ["GET", "GET"]

    @pytest.mark.parametrize(
        ("answer", "code", "calls"),
        [
            ((413, b"{}"), "RESOURCE_EXHAUSTED", 1),
            ((429, b'{"error": "OOM when allocating tensor"}'), "RESOURCE_EXHAUSTED", 1),
            ((429, b'{"error": "7 requests are in flight already"}'), "RESOURCE_EXHAUSTED", 4),
            ((503, b'{"error": "not now"}'), "UNAVAILABLE", 1),
            ((200, b"<html>"), "UNKNOWN", 1),
        ],
    )
    def test_over_rest(self, http_server: Any, answer: Any, code: str, calls: int) -> None:
        url, seen = http_server(answer)
        with Client(url) as client, pytest.raises(RequestFailedError, match=code):
            client.predict("m", {"x": [1.0]})
        assert len(seen) == calls

    @pytest.mark.parametrize(
        ("text", "calls"),
        [("OOM when allocating tensor", 1), ("Received message larger than max", 1),
         ("Concurrent RPC limit exceeded!", 4)],
    )  # fmt: skip
    def test_over_grpc(self, text: str, calls: int) -> None:
        seen: list[bytes] = []

        def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
            seen.append(request)
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

        server = grpc.server(futures.ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(refuse)
        service = "tensorflow.serving.PredictionService"
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"Predict": handler})])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with Client(f"127.0.0.1:{port}") as client, pytest.raises(RequestFailedError, match=text):
                client.predict("m", X)
        finally:
            server.stop(None)
        assert len(seen) == calls

    def test_where_our_server_is_busy(self, server: Any, asking: Client, hold: Any) -> None:
        held = hold()

        def ask_held() -> None:
            with Client(asking.address, timeout_s=60) as other:
                other.predict("m", held.inputs, signature="hold")

        holding = threading.Thread(target=ask_held)
        holding.start()
        held.until_it_computes()
        started = time.monotonic()
        with pytest.raises(RequestFailedError, match="RESOURCE_EXHAUSTED"):
            asking.predict("m", X)
        assert time.monotonic() - started > 0.35  # three pauses
        held.let_go()
        holding.join()

    @pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1"])
    def test_all_attempts_share_one_deadline(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mlplatform.serving.client._FIRST_PAUSE_S", 10.0)
        started = time.monotonic()
        with Client(address) as client, pytest.raises(RequestFailedError):
            client.predict("m", X, timeout_s=0.1)
        assert time.monotonic() - started < 5.0  # not even one pause


class TestValues:
    def test_bytes_keep_their_zeros(self, asking: Client) -> None:
        sent = [b"ab\x00", b"\xff\x00", "é", b""]
        for text in (sent, np.array(sent, object)):
            found = asking.predict("m", {"text": text}, signature="texts")["text_bytes"]
            assert found.tolist() == [b"ab\x00", b"\xff\x00", "é".encode(), b""]

    def test_large_whole_numbers(self, asking: Client) -> None:
        sent = np.array([1, 2**64 - 1], np.uint64)
        assert asking.predict("m", {"x": sent}, signature="same_uint64")["y"].tolist() == sent.tolist()

    def test_nan_and_infinity(self, asking: Client) -> None:
        sent = np.array([np.nan, np.inf, -np.inf, 0.5])
        found = asking.predict("m", {"x": sent}, signature="same_double")["y"]
        assert np.array_equal(found, sent, equal_nan=True)

    @pytest.mark.parametrize(("name", "dtype"), [("half", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
    def test_short_floats(self, asking: Client, name: str, dtype: Any) -> None:
        found = asking.predict("m", {"x": np.array([0.5, -2], dtype)}, signature=f"same_{name}")["y"]
        assert found.astype(np.float64).tolist() == [0.5, -2.0]

    @pytest.mark.parametrize(
        "value",
        [
            np.array(["2020-01-01"], "datetime64[D]"),
            [[1.0], [1.0, 2.0]],
            ["\ud800"],
            [None],
        ],
    )
    def test_what_is_no_tensor(self, asking: Client, value: Any) -> None:
        with pytest.raises(RequestFailedError, match="INVALID_ARGUMENT: input text"):
            asking.predict("m", {"text": value}, signature="texts")

    def test_complex_numbers_do_not_travel_as_json(self, server: Any) -> None:
        sent = {"x": np.array([1j], np.complex64)}
        with Client(f"127.0.0.1:{server.grpc_port}") as client:
            assert client.predict("m", sent, signature="same_complex64")["y"] == [1j]
        with (
            Client(f"http://127.0.0.1:{server.rest_port}") as client,
            pytest.raises(RequestFailedError, match="they travel over gRPC"),
        ):
            client.predict("m", sent, signature="same_complex64")

    def test_outputs(self, asking: Client) -> None:
        two = {"a": np.array([3.0], np.float32), "b": np.array([1.0], np.float32)}
        assert list(asking.predict("m", two, signature="two", outputs=["zeros"])) == ["zeros"]
        assert list(asking.predict("m", X, outputs=["y"])) == ["y"]
        text = "output tensor alias not found in signature: no Outputs expected to be in the set {y}."
        with pytest.raises(RequestFailedError, match="INVALID_ARGUMENT") as caught:
            asking.predict("m", X, outputs=["no"])
        assert caught.value.text == text


@pytest.mark.parametrize("prefix", ["/models/eu", "/models/eu/", "/"])
def test_the_path_of_an_address_comes_before_that_of_a_request(http_server: Any, prefix: str) -> None:
    path = prefix.rstrip("/") + "/v1/models/m:predict"
    url, seen = http_server((200, b'{"outputs": {"y": [1.0]}}'), path=path)
    with Client(url + prefix) as client:
        client.predict("m", {"x": [1.0]})
    assert seen == ["POST"]


@pytest.mark.parametrize(
    "address", ["host", "http://", "http://host:port", "ftp://host", "8500", ":8500", "host:²"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ServerAddressError, match="HOST:PORT"):
        Client(address)
