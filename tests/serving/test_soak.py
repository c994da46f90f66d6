"""Minutes of mixed load with malformed requests: the server lives, answers right, and does not grow."""

import contextlib
import json
import os
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1500)]

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
HEAD = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Abuser:
    """Everything a bad client does, each way a method."""

    def __init__(self, server: Any, seed: int) -> None:
        self.random = random.Random(seed)
        self.grpc_address = server.grpc
        self.rest = server.rest
        self.port = int(server.rest.rpartition(":")[2])
        self.channel = grpc.insecure_channel(server.grpc)
        self.raw = self.channel.unary_unary(PREDICT)  # bytes in, bytes out

    def _refused(self, data: bytes) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            self.raw(data, timeout=5)
        assert caught.value.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)

    def truncated_proto(self) -> None:
        from mlplatform.serving import wire

        request = wire.message("PredictRequest")()
        request.model_spec.name = "m"
        request.inputs.add(key="x").value.tensor_content = os.urandom(400)
        data = request.SerializeToString()
        with contextlib.suppress(grpc.RpcError):  # a cut may also leave a whole message, without inputs
            self.raw(data[: self.random.randrange(1, len(data))], timeout=5)

    def wrong_shape(self) -> None:
        from mlplatform.serving import wire
        from mlplatform.serving.tensors import fill_content

        request = wire.message("PredictRequest")()
        request.model_spec.name = "m"
        shape = [self.random.randrange(1, 6) for _ in range(3)]
        fill_content(request.inputs.add(key="x").value, np.zeros(shape, np.float32))
        self._refused(request.SerializeToString())

    def filled_out_of_nothing(self) -> None:
        """Eleven bytes that declare a quarter of a gigabyte."""
        from mlplatform.serving import wire

        request = wire.message("PredictRequest")()
        request.model_spec.name = "m"
        tensor = request.inputs.add(key="x").value
        tensor.dtype = 18  # complex128
        tensor.tensor_shape.dim.add().size = 1 << 24
        self._refused(request.SerializeToString())

    def huge_declared_size(self) -> None:
        from mlplatform.serving import wire

        request = wire.message("PredictRequest")()
        request.model_spec.name = "m"
        tensor = request.inputs.add(key="x").value
        tensor.dtype = 1
        tensor.float_val.append(1)
        for size in (1 << 40, 1 << 20):
            tensor.tensor_shape.dim.add().size = size
        self._refused(request.SerializeToString())

    def bad_json(self) -> None:
        bodies = (
            b"{",
            b"[" * 100_000,
            b'{"instances": [[1, 2], [3]]}',
            b'{"instances": "x"}',
            b"\xff\xfe",
            json.dumps({"instances": [["x" * 10_000]]}).encode(),
            b'{"instances": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
        )
        self._refused_over_rest(self.random.choice(bodies))

    def bad_encoding(self) -> None:
        self._refused_over_rest(os.urandom(200), {"Content-Encoding": "gzip"})

    def _refused_over_rest(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        request = urllib.request.Request(f"{self.rest}/v1/models/m:predict", body, headers or {})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        assert caught.value.code == 400
        caught.value.close()

    def slow_client(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(HEAD)
            for _ in range(3):
                time.sleep(0.2)
                connection.sendall(b"{")

    def huge_body_that_never_comes(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.settimeout(10)
            connection.sendall(HEAD.replace(b"1000", b"100000000000") + b"{")
            assert b" 413 " in connection.recv(1000)

    def body_past_its_time(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.settimeout(10)
            connection.sendall(HEAD + b"{")
            assert b" 504 " in connection.recv(1000)

    def dropped_connection(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(HEAD + b"{")
        with socket.create_connection(("127.0.0.1", int(self.grpc_address.rpartition(":")[2]))) as connection:
            connection.sendall(os.urandom(200))

    def abuse(self) -> None:
        ways = (
            self.truncated_proto,
            self.wrong_shape,
            self.filled_out_of_nothing,
            self.huge_declared_size,
            self.bad_json,
            self.bad_encoding,
            self.slow_client,
            self.huge_body_that_never_comes,
            self.body_past_its_time,
            self.dropped_connection,
        )
        self.random.choice(ways)()


def test_mixed_load(running: Any, models: Path, tmp_path: Path, soak_seed: int) -> None:
    from mlplatform.serving import Client

    flags = (
        *("--model_name", "m", "--model_base_path", str(models / "everything")),
        *("--enable_batching", "--rest_api_timeout_in_ms", "5000"),
    )
    server = running.ServerProcess(*flags, log=tmp_path / "server.log")
    process = psutil.Process(server.process.pid)
    stop = time.monotonic() + 60 * MINUTES
    wrong: list[str] = []
    answered = [0] * 4

    def ask(address: str, number: int) -> None:
        values = np.random.default_rng(number)
        with Client(address) as client:
            while time.monotonic() < stop:
                x = values.random((int(values.integers(1, 20)), 2), np.float32)
                try:
                    y = client.predict("m", {"x": x})["y"]
                except Exception as error:  # noqa: BLE001 - asserted at the end
                    wrong.append(f"{type(error).__name__}: {error}")
                    continue
                if not np.allclose(y, x @ np.array([[1, 2], [3, 4]], np.float32), rtol=1e-5):
                    wrong.append(f"{x} -> {y}")
                answered[number] += 1

    def abuse(seed: int) -> None:
        abuser = Abuser(server, soak_seed + seed)
        while time.monotonic() < stop:
            try:
                abuser.abuse()
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - asserted at the end
                wrong.append(f"{type(error).__name__}: {error}")

    work = [(ask, (address, n)) for n, address in enumerate((server.grpc, server.rest) * 2)]
    work += [(abuse, (n,)) for n in range(4)]  # type: ignore[list-item]
    threads = [threading.Thread(target=one, args=arguments) for one, arguments in work]
    for thread in threads:
        thread.start()
    time.sleep(60 * MINUTES / 10)
    after_a_while, answered_first = process.memory_info().rss, list(answered)
    for thread in threads:
        thread.join()
    at_the_end = process.memory_info().rss
    print(f"{answered} answers; {after_a_while >> 20} MB after a tenth, {at_the_end >> 20} MB at the end")
    assert wrong == []
    assert all(later > first > 0 for later, first in zip(answered, answered_first, strict=True))
    assert "Traceback" not in server.log.read_text("utf-8", "replace")
    assert at_the_end <= 1.1 * after_a_while
    with Client(server.grpc) as client:
        assert client.predict("m", {"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[4, 6]]
    assert server.stop() == 0
