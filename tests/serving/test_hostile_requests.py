"""Requests as an attacker sends them, made from a seed: each is answered or refused; the server goes on.

`soak`: more of them, of the seed that SOAK_SEED names.
"""

import gzip
import http.client
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2

from mlplatform.serving.tensors import DataType, fill_proto
from mlplatform.serving.wire import PREDICT, STATUS

pytestmark = pytest.mark.e2e

METHODS = ["Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"]
OUTCOMES = {
    "OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "INTERNAL",
}  # fmt: skip
MALFORMED = "the message is no tensorflow.serving."
SIGNATURES = ["", "two", "texts", "scalar", "sqrt", "specials", "same_string", "same_uint8", "no such"]
GROWTH = 1 << 30  # bytes that the process may have grown at the end
SEED = 20_240


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Any]:
    from mlplatform.serving import ModelServer

    one = ModelServer(
        model_name="m", model_base_path=models / "everything", port=0, rest_api_port=0, lame_duck_s=0.0,
        max_request_bytes=16 << 20, max_request_bytes_in_flight=64 << 20, rest_api_timeout_in_ms=20_000,
    )  # fmt: skip
    with one:
        yield one


@pytest.fixture
def still_serves(server: Any, client: Callable[..., Any], caplog: Any) -> Iterator[None]:
    """After all of it the server answers, has not grown much, and logged no error of its own."""
    before = psutil.Process().memory_info().rss
    yield
    x = np.array([[1.0, 2.0]], np.float32)
    for over in ("grpc", "rest"):
        assert client(server, over=over).predict("m", {"x": x})["y"].tolist() == [[7.0, 10.0]]
    assert psutil.Process().memory_info().rss - before < GROWTH
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Change, cut, repeat or swap parts of it."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(4)
        if kind == 0 and changed:
            changed[at % len(changed)] = chance.randrange(256)
        elif kind == 1:
            del changed[at : at + chance.randint(1, 9)]
        elif kind == 2:
            changed[at:at] = chance.randbytes(chance.randint(1, 9))
        else:
            changed[at:at] = changed[at : at + 40] * chance.randint(1, 50)
    return bytes(changed)


def a_tensor(tensor: Any, chance: random.Random) -> None:
    tensor.dtype = chance.choice([*DataType, 0, 20, 21, 101])
    for _ in range(chance.choice([0, 1, 1, 2, 3, 40])):
        size = chance.choice([-1, 0, 1, 2, 7, 1000, 2_000_000, 1 << 31, (1 << 63) - 1])
        tensor.tensor_shape.dim.add().size = size
    tensor.tensor_shape.unknown_rank = chance.random() < 0.1
    field = chance.choice(["string_val", "float_val", "int_val", "tensor_content", "double_val", "bool_val"])
    if field == "tensor_content":
        tensor.tensor_content = chance.randbytes(chance.choice([0, 4, 8, 64]))
    elif field == "string_val":
        tensor.string_val.extend(
            chance.choices([b"", b"a", huge_png(), bytes(10_000)], k=chance.randint(0, 3))
        )
    else:
        getattr(tensor, field).extend(chance.choices([0, 1], k=chance.randint(0, 3)))


def huge_png() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 5_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header)) + bytes(40)


def grpc_messages(chance: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Messages of every method: of odd tensors, damaged, of another method, of very many small parts."""
    for n in range(count):
        method = METHODS[n % len(METHODS)]
        request: Any
        if method == "Predict":
            request = predict_pb2.PredictRequest()
            for name in chance.sample(["x", "a", "b", "text", "z"], chance.randint(0, 3)):
                a_tensor(request.inputs[name], chance)
            request.output_filter.extend(chance.sample(["y", "upper", "no" * 1000], chance.randint(0, 2)))
        elif method == "MultiInference":
            request = inference_pb2.MultiInferenceRequest()
            request.tasks.add(method_name=chance.choice(["", "tensorflow/serving/classify", "x" * 5000]))
            request.tasks[0].model_spec.name = "m"
        else:
            request = classification_pb2.ClassificationRequest()
            held = request.input.example_list_with_context
            held.context.features.feature["x"].bytes_list.value.append(bytes(chance.choice([0, 1 << 20])))
            for _ in range(chance.choice([0, 1, 1000])):
                held.examples.add()
        if method != "MultiInference":
            request.model_spec.name = chance.choice(["m"] * 5 + ["", "other", "漢" * 3000])
            request.model_spec.signature_name = chance.choice(SIGNATURES)
        content = request.SerializeToString()
        kind = chance.randrange(20)
        if kind < 5:
            content = damaged(content, chance)
        elif kind == 5:
            content += chance.choice([b"\x1a\0", b"\x12\0", b"\x0a\0", b"\x82\x01\0"]) * 700_000
        elif kind < 9:
            compress = gzip.compress if kind == 6 else zlib.compress
            content = compress(content, 1)
            content = damaged(content, chance) if kind == 8 else content
        yield method, content


def rest_bodies(chance: random.Random, count: int) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Documents for `:predict` and the like: none of them can be answered."""
    valid = json.dumps({"signature_name": "texts", "instances": ["a", {"b64": "YWJj"}]}).encode()
    large = 4 << 20
    makers: list[Callable[[], bytes]] = [
        lambda: valid[: chance.randrange(len(valid))],
        lambda: b"[" * chance.choice([10, 2000, 1_000_000]),
        lambda: b'{"instances": ' + b"[" * 40 + b"1" + b"]" * 40 + b"}",
        lambda: b'{"instances": [' + b"[]," * chance.choice([3, 1_000_000]) + b"1]}",
        lambda: b'{"inputs": {"x": [[' + b"1," * chance.choice([3, 1_000_000]) + b'"a"]]}}',
        lambda: b" " * chance.randint(1, large),
        lambda: b'{"instances": [[1e999, -1e999, NaN, 1, 2]]}',
        lambda: b'{"instances": [' + b"9" * chance.choice([30, 5000, 100_000]) + b"]}",
        lambda: b'{"signature_name": "' + b"s" * chance.choice([9, 1_000_000]) + b'", "instances": [1]}',
        lambda: b'{"signature_name": "texts", "instances": [{"b64": "' + b"%" * 99 + b'"}]}',
        lambda: json.dumps({"instances": [{"b64": chance.choice([1, None, "", "a"])}]}).encode(),
        lambda: json.dumps({"inputs": chance.choice([None, True, {}, {"x": {}}, "x", []])}).encode(),
        lambda: b'{"instances": [{"x": 1}, 2, {"y": 3}]}',
        lambda: b'{"signature_name": "\\ud800", "instances": ["\\ud800"]}',
        lambda: chance.randbytes(chance.randint(0, 300)),
        lambda: b'{"examples": [{"x": [1, "a"]}], "context": 3}',
    ]
    for n in range(count):
        body, headers = makers[n % len(makers)](), {}
        kind = chance.randrange(6)
        if kind == 0:
            body, headers = gzip.compress(body, 1), {"Content-Encoding": "gzip"}
        elif kind == 1:
            body, headers = damaged(gzip.compress(body[:1000]), chance), {"Content-Encoding": "gzip"}
            body = body[:-1] if body[:2] == b"\x1f\x8b" else body
        elif kind == 2:
            headers = {"Content-Encoding": chance.choice(["br", "gzip, gzip", "zstd", "deflate", "x" * 900])}
        yield body, headers


def raw_requests(chance: random.Random, count: int) -> Iterator[bytes]:
    """Bytes on a socket that are no HTTP request, or hardly one."""
    valid = b"GET /v1/models/m HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nX: y\r\n\r\n"
    odd = [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(99) + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"GET /v1/models/m HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"GET /v1/models/m HTTP/1.1\r\nA\0b: c\r\n\r\n",
        b"GET /v1/models/m HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
        b"GET /v1/models/%ff%00/versions/" + b"9" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    for n in range(count):
        yield odd[n] if n < len(odd) else damaged(valid, chance)


def ask_all_over_grpc(server: Any, messages: Iterator[tuple[str, bytes]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    prefix, _, _ = PREDICT.rpartition("/")
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=options) as channel:
        for method, content in messages:
            call = channel.unary_unary(f"{prefix}/{method}").future(content, timeout=60)
            code, text = call.code().name, call.details() or ""
            assert code in OUTCOMES, (method, content[:200], code, text)
            assert code != "INTERNAL" or text.startswith(MALFORMED), text
            assert len(text) <= 1024
            counts[code] = counts.get(code, 0) + 1
    return counts


def ask_all_over_rest(server: Any, bodies: Iterator[tuple[bytes, dict[str, str]]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for n, (body, headers) in enumerate(bodies):
        method = ("predict", "predict", "predict", "classify", "regress")[n % 5]
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
        connection.request("POST", f"/v1/models/m:{method}", body, headers)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        assert response.status in (400, 413, 429), (response.status, answer[:300], body[:100], headers)
        assert len(json.loads(answer)["error"]) <= 1024
        counts[response.status] = counts.get(response.status, 0) + 1
    return counts


def send_all(server: Any, requests: Iterator[bytes]) -> None:
    for content in requests:
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=60) as connection:
            answer = b""
            try:
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65536):
                    answer += part
            except ConnectionError:  # it had heard enough
                pass
        assert answer[:9] in (b"", b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/9.9 "), answer[:100]
        assert b"Traceback" not in answer
        assert len(answer) < 20_000


@pytest.mark.usefixtures("still_serves")
class TestHostile:
    def test_grpc(self, server: Any) -> None:
        counts = ask_all_over_grpc(server, grpc_messages(random.Random(SEED), 120))
        assert set(counts) >= {"INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "RESOURCE_EXHAUSTED"}, counts
        assert counts.get("OK", 0) < 24, counts

    def test_rest(self, server: Any) -> None:
        counts = ask_all_over_rest(server, rest_bodies(random.Random(SEED), 100))
        assert counts[400] > 40

    def test_http(self, server: Any) -> None:
        send_all(server, raw_requests(random.Random(SEED), 120))

    @pytest.mark.soak
    @pytest.mark.timeout(3600)
    def test_for_long(self, server: Any, soak_seed: int) -> None:
        chance = random.Random(soak_seed)
        ask_all_over_grpc(server, grpc_messages(chance, 5000))
        ask_all_over_rest(server, rest_bodies(chance, 3000))
        send_all(server, raw_requests(chance, 3000))


def test_a_text_is_not_repeated_until_memory_ends(server: Any) -> None:
    """127 bytes that would be two million texts."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "texts"
    tensor = request.inputs["text"]
    fill_proto(tensor, np.array([b"x"], object))
    tensor.tensor_shape.dim[0].size = 2_000_000
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(PREDICT)(request.SerializeToString(), timeout=60)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


class TestCompressedMessages:
    """gRPC itself would inflate them whole before it looks at their size."""

    @pytest.fixture
    def channel(self, server: Any) -> Iterator[grpc.Channel]:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            yield channel

    @staticmethod
    def tensor(size: int) -> Any:
        """A request with a tensor of many numbers, a byte each in the message."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "m", "same_uint8"
        fill_proto(request.inputs["x"], np.zeros(size, np.uint8))
        return request

    @pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
    def test_answered(self, channel: grpc.Channel, compression: grpc.Compression) -> None:
        predict = channel.unary_unary(PREDICT)
        for request in (self.tensor(1), self.tensor(100_000)):
            data = request.SerializeToString()
            plain, answer = predict(data, timeout=60), predict(data, timeout=60, compression=compression)
            assert answer == plain
        health = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="no service " * 20)
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(asked, timeout=60, compression=compression)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND  # and not one that could not be read

    @pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (17 << 20, "the request is larger than 16777216 bytes"),
            (8 << 20, "bytes of memory, at most 67108864"),
        ],
    )
    def test_what_they_become_is_limited(
        self, channel: grpc.Channel, compression: grpc.Compression, size: int, text: str
    ) -> None:
        request = self.tensor(0)
        request.inputs["x"].ClearField("tensor_content")
        request.inputs["x"].int_val.extend(bytes(size))
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(PREDICT)(request.SerializeToString(), timeout=60, compression=compression)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert text in caught.value.details()

    @pytest.mark.parametrize("method", [PREDICT, STATUS])
    @pytest.mark.parametrize("cut", [gzip.compress(bytes(99), mtime=0)[:20], zlib.compress(bytes(99))[:9]])
    def test_broken_ones_are_errors(self, channel: grpc.Channel, method: str, cut: bytes) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method)(cut, timeout=60)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "the body cannot be read: " in caught.value.details()

    def test_answers_are_compressed_where_the_server_is_told(
        self, serve: Callable[..., Any], base_path: Path
    ) -> None:
        server = serve(
            model_name="half",
            model_base_path=base_path,
            grpc_channel_arguments="grpc.default_compression_algorithm=2",
        )
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "half"
        fill_proto(request.inputs["x"], np.zeros((5000, 1), np.float32))
        as_sent = [("grpc.per_message_decompression", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", as_sent) as channel:
            answer = channel.unary_unary(PREDICT)(request.SerializeToString(), timeout=60)
        response = predict_pb2.PredictResponse.FromString(gzip.decompress(answer))
        assert (len(answer) < 1000, len(response.outputs["y"].float_val)) == (True, 5000)


def test_an_image_of_gigabytes_is_refused_on_both_ways_in(server: Any, client: Callable[..., Any]) -> None:
    from mlplatform.serving.client import RequestFailedError

    for over in ("grpc", "rest"):
        with pytest.raises(RequestFailedError, match="an image of 100000 x 5000 pixels"):
            client(server, over=over).predict("m", {"text": [huge_png()]}, signature="texts")
