"""The client: what is sent again and what never, how values travel, and what goes wrong."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest

from mlplatform.serving import Client
from mlplatform.serving.client import RequestFailedError, ServerAddressError, TensorForm
from mlplatform.serving.tensors import DataType

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


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients pause; they are over at once, and no other time passes."""
    paused: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(paused), sleep=paused.append)
    monkeypatch.setattr("mlplatform.serving.client.time", clock)
    return paused


GOOD = (200, b'{"outputs": {"y": [1.0], "z": [2.0]}}')


class TestSentAgain:
    def test_never_where_the_answer_was_lost(self, http_server: Any) -> None:
        url, seen = http_server(GOOD, None)
        with Client(url) as client:
            client.predict("m", X)
            with pytest.raises(RequestFailedError, match="UNAVAILABLE"):
                client.predict("m", X)
        assert seen == ["POST", "POST"]

    def test_never_where_only_the_name_of_its_output_is_missing(self, http_server: Any) -> None:
        url, seen = http_server((200, b'{"outputs": [1.0]}'), None)
        with Client(url) as client, pytest.raises(RequestFailedError, match="metadata of m"):
            client.predict("m", X)
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
            client.predict("m", X)
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

    def test_where_our_server_is_busy(
        self, server: Any, asking: Client, hold: Any, pauses: list[float]
    ) -> None:
        held = hold()

        def ask_held() -> None:
            with Client(asking.address, timeout_s=60) as other:
                other.predict("m", held.inputs, signature="hold")

        holding = threading.Thread(target=ask_held)
        holding.start()
        held.until_it_computes()
        pauses.clear()
        with pytest.raises(RequestFailedError, match="RESOURCE_EXHAUSTED"):
            asking.predict("m", X)
        assert len(pauses) == 3
        held.let_go()
        holding.join()

    @pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1"])
    def test_all_attempts_share_one_deadline(self, address: str, pauses: list[float]) -> None:
        with Client(address) as client, pytest.raises(RequestFailedError):
            client.predict("m", X, timeout_s=0.3)  # three pauses take 0.35 s at least
        assert sum(pauses) < 0.3


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


FLOATS = {"float": "float32", "double": "float64", "half": "float16", "bfloat16": "bfloat16"}
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")


class TestDtypes:
    """Plain numbers travel in the dtypes that the signature takes."""

    @pytest.mark.parametrize("dtype", [*FLOATS, *WHOLE])
    @pytest.mark.parametrize("values", [[0, 1, 100], [0.0, 1.0, 100.0]])
    def test_lists_of_numbers(self, asking: Client, dtype: str, values: list[float]) -> None:
        found = asking.predict("m", {"x": values}, signature=f"same_{dtype}")["y"]
        assert found.astype(np.float64).tolist() == values
        if not asking.address.startswith("http"):
            assert found.dtype.name == FLOATS.get(dtype, dtype)

    @pytest.mark.parametrize(
        ("dtype", "value", "text"),
        [
            ("int32", [1, 1.5], "input x takes int32, which 1.5 does not fit"),
            ("int8", [128], "input x takes int8, which 128 does not fit"),
            ("uint8", [-1], "input x takes uint8, which -1 does not fit"),
            ("int64", [2.0**63], "input x takes int64, which 9.223372036854776e+18 does not fit"),
            ("uint64", [-1.0], "input x takes uint64, which -1.0 does not fit"),
            ("int32", [float("nan")], "input x takes int32, which nan does not fit"),
            ("float", [1e300], "input x takes float, which 1e+300 does not fit"),
        ],
    )
    def test_numbers_that_do_not_fit(self, asking: Client, dtype: str, value: Any, text: str) -> None:
        with pytest.raises(RequestFailedError, match="INVALID_ARGUMENT") as caught:
            asking.predict("m", {"x": value}, signature=f"same_{dtype}")
        assert caught.value.text == text

    def test_a_dtype_that_was_chosen_is_sent_as_it_is(self, server: Any) -> None:
        with Client(f"127.0.0.1:{server.grpc_port}") as client:
            with pytest.raises(RequestFailedError, match="to be float but uint8 is provided"):
                client.predict("m", {"x": np.array([1], np.uint8)}, signature="same_float")
            special = np.array([np.nan, np.inf])
            found = client.predict("m", {"x": special}, signature="same_float")["y"]
            assert np.array_equal(found, special.astype(np.float32), equal_nan=True)

    def test_the_signature_is_asked_for_once(self, http_server: Any) -> None:
        info = b'{"inputs": {"x": {"dtype": "DT_INT32"}}, "outputs": {}}'
        metadata = b'{"metadata": {"signature_def": {"signature_def": {"serving_default": ' + info + b"}}}}"
        url, seen = http_server((200, metadata), GOOD)
        with Client(url) as client:
            for _ in range(3):
                client.predict("m", {"x": [1.0]})
        assert seen == ["GET", "POST", "POST", "POST"]

    def test_it_is_asked_for_again_after_an_error(self, http_server: Any) -> None:
        info = b'{"inputs": {"x": {"dtype": "DT_INT32"}}, "outputs": {}}'
        metadata = b'{"metadata": {"signature_def": {"signature_def": {"serving_default": ' + info + b"}}}}"
        url, seen = http_server((200, metadata), (400, b'{"error": "not so"}'), (200, metadata), GOOD)
        with Client(url) as client:
            with pytest.raises(RequestFailedError, match="not so"):
                client.predict("m", {"x": [1.0]})
            client.predict("m", {"x": [1.0]})
        assert seen == ["GET", "POST", "GET", "POST"]

    @pytest.mark.parametrize("metadata", [b"{}", b'{"metadata": []}', b'{"metadata": {"signature_def": 1}}'])
    def test_a_server_that_does_not_say_is_asked_all_the_same(
        self, http_server: Any, metadata: bytes
    ) -> None:
        url, seen = http_server((200, metadata), GOOD)
        with Client(url) as client:
            assert client.predict("m", {"x": [1.0]})["y"].tolist() == [1.0]
        assert seen == ["GET", "POST"]


@pytest.mark.parametrize("prefix", ["/models/eu", "/models/eu/", "/"])
def test_the_path_of_an_address_comes_before_that_of_a_request(http_server: Any, prefix: str) -> None:
    path = prefix.rstrip("/") + "/v1/models/m:predict"
    url, seen = http_server((200, b'{"outputs": {"y": [1.0]}}'), path=path)
    with Client(url + prefix) as client:
        client.predict("m", X)
    assert seen == ["POST"]


@pytest.mark.parametrize(
    "address", ["host", "http://", "http://host:port", "ftp://host", "8500", ":8500", "host:²"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ServerAddressError, match="HOST:PORT"):
        Client(address)


def test_what_a_version_can_be_asked(asking: Client) -> None:
    found = asking.signatures("m", version=1)
    assert {"serving_default", "two", "texts", "count", "scalar"} <= set(found)
    default = found["serving_default"]
    assert default.inputs == {"x": TensorForm(DataType.FLOAT, (-1, 2))}
    assert list(default.outputs) == ["y"]
    assert default.method == "tensorflow/serving/predict"
    assert found["scalar"].inputs["x"].shape == ()
    assert found["texts"].inputs["text"] == TensorForm(DataType.STRING, (-1,))
    assert found["count"].inputs == {}
    with pytest.raises(RequestFailedError):
        asking.signatures("m", version=9)
