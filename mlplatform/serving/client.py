"""A client of any server that speaks TensorFlow Serving's API: numpy in, numpy out; no TensorFlow needed."""

import base64
import http.client
import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import grpc
import numpy as np
import numpy.typing as npt
import orjson

from mlplatform.errors import MlplatformError, UsageError
from mlplatform.serving import wire
from mlplatform.serving.status import HTTP_STATUS, Code, StatusError
from mlplatform.serving.tensors import Array, fill_content, to_array

_STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_RETRIES = 3
_FIRST_PAUSE_S = 0.1

Answer = TypeVar("Answer")


class ServerAddressError(UsageError):
    """An address is neither HOST:PORT nor a URL."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return (
            f"{self.address!r} is no server address: give HOST:PORT or unix:PATH for gRPC, "
            "http://HOST:PORT or https://HOST:PORT for REST."
        )


class RequestFailedError(MlplatformError):
    """A server did not answer a request, or refused it.

    Attributes:
        code: The canonical code: UNAVAILABLE where no server was reached.
    """

    def __init__(self, address: str, what: str, code: Code, text: str) -> None:
        super().__init__(address, what, code, text)
        self.address, self.what, self.code, self.text = address, what, code, text

    def __str__(self) -> str:
        return f"{self.what} on {self.address}: {self.code.name}: {self.text}"


class _RefusedError(Exception):
    """A server refused before it computed anything: asking again is safe."""

    def __init__(self, error: RequestFailedError) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True)
class VersionState:
    """What a server says of one version: `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`."""

    version: int
    state: str
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request is about."""

    model: str
    signature: str = ""
    version: int | None = None
    label: str = ""


class Transport(Protocol):
    """How requests travel."""

    def predict(
        self, asked: Asked, inputs: Mapping[str, Array], outputs: Sequence[str], timeout_s: float
    ) -> dict[str, Array]: ...

    def status(self, asked: Asked, timeout_s: float) -> list[VersionState]: ...

    def close(self) -> None: ...


class Client:
    """Asks a model server. Safe to use from several threads; close it or use it as a context manager.

    Args:
        address: `HOST:PORT` or `unix:PATH` for gRPC, `http://HOST:PORT` for REST.
        timeout_s: Seconds to wait for an answer, above 0.
        ca_file: PEM file of the authority that signed the server's certificate; turns TLS on for gRPC.
        cert_file: PEM file of this client's certificate, where the server wants one.
        key_file: PEM file of its key.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 30.0,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._protocol: Transport
        if address.startswith(("http://", "https://")):
            self._protocol = _Rest(address, ca_file, cert_file, key_file)
        elif address.startswith("unix:") or address.rpartition(":")[2].isdigit():
            self._protocol = _Grpc(address, ca_file, cert_file, key_file)
        else:
            raise ServerAddressError(address)

    def predict(
        self,
        model: str,
        inputs: Mapping[str, npt.ArrayLike],
        *,
        signature: str = "",
        version: int | None = None,
        label: str = "",
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> dict[str, Array]:
        """Call a signature.

        A request is sent again only where it did not reach a server or was refused before anything was
        computed.

        Args:
            model: The model's name.
            inputs: Arrays, or what numpy makes arrays of, by input name, in the dtypes that the signature
                takes (over REST the server converts numbers); texts and bytes for string inputs.
            signature: The signature's name; empty for `serving_default`.
            version: The version, or the newest.
            label: The version's label, instead of its number.
            outputs: Which outputs to return; empty for all.
            timeout_s: Seconds for this call.

        Returns:
            Arrays by output name. Over gRPC in the model's dtypes; over REST as JSON has them (float64,
            int64, bool, texts as bytes objects).

        Raises:
            RequestFailedError: The server refused, failed, or was not reached.
        """
        asked = Asked(model=model, signature=signature, version=version, label=label)
        arrays = {name: _array(value) for name, value in inputs.items()}
        timeout_s = timeout_s or self._timeout_s
        return _retried(lambda: self._protocol.predict(asked, arrays, outputs, timeout_s))

    def status(self, model: str, version: int | None = None) -> list[VersionState]:
        """Return the states of a model's versions, newest first.

        Raises:
            RequestFailedError: The server knows no such model, or was not reached.
        """
        asked = Asked(model=model, version=version)
        return _retried(lambda: self._protocol.status(asked, self._timeout_s))

    def wait_until_available(
        self, model: str, version: int | None = None, *, timeout_s: float = 60.0
    ) -> VersionState:
        """Wait until a version (or any) of a model is available.

        Raises:
            RequestFailedError: DEADLINE_EXCEEDED, or the version failed to load.
        """
        deadline = time.monotonic() + timeout_s
        seen = "not asked yet"
        while True:
            try:
                states = self.status(model, version)
            except RequestFailedError as error:
                seen = str(error)
            else:
                for state in states:
                    if state.state == "AVAILABLE":
                        return state
                    if state.error and version is not None:
                        raise RequestFailedError(self.address, f"loading {model}", Code.ABORTED, state.error)
                seen = f"versions {states}"
            if time.monotonic() > deadline:
                raise RequestFailedError(self.address, f"waiting for {model}", Code.DEADLINE_EXCEEDED, seen)
            time.sleep(0.1)

    def close(self) -> None:
        """Close the connections."""
        self._protocol.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _array(value: npt.ArrayLike) -> Array:
    array = np.asarray(value)
    if array.dtype.kind in "SU":
        array = array.astype(np.object_)
    return array


def _retried(call: Callable[[], Answer]) -> Answer:
    pause_s = _FIRST_PAUSE_S
    for _ in range(_RETRIES):
        try:
            return call()
        except _RefusedError:
            time.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s *= 2
    try:
        return call()
    except _RefusedError as refused:
        raise refused.error from refused.__cause__


class _Grpc:
    def __init__(
        self, address: str, ca_file: Path | None, cert_file: Path | None, key_file: Path | None
    ) -> None:
        self._address = address
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if ca_file is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(
                ca_file.read_bytes(),
                key_file.read_bytes() if key_file else None,
                cert_file.read_bytes() if cert_file else None,
            )
            self._channel = grpc.secure_channel(address, credentials, options=options)
        self._predict = self._call(wire.PREDICT, "PredictResponse")
        self._status = self._call(wire.STATUS, "StatusResponse")

    def _call(self, method: str, response: str) -> Any:
        return self._channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=wire.message(response).FromString,
        )

    def predict(
        self, asked: Asked, inputs: Mapping[str, Array], outputs: Sequence[str], timeout_s: float
    ) -> dict[str, Array]:
        request = wire.message("PredictRequest")(output_filter=outputs)
        self._fill_spec(request.model_spec, asked)
        for name, array in inputs.items():
            fill_content(request.inputs.add(key=name).value, array)
        response = self._ask(self._predict, request, f"predict {asked.model}", timeout_s)
        return {entry.key: to_array(entry.value, entry.key) for entry in response.outputs}

    def status(self, asked: Asked, timeout_s: float) -> list[VersionState]:
        request = wire.message("StatusRequest")()
        self._fill_spec(request.model_spec, asked)
        response = self._ask(self._status, request, f"status of {asked.model}", timeout_s)
        return [
            VersionState(s.version, _STATES.get(s.state, str(s.state)), s.status.error_message)
            for s in response.model_version_status
        ]

    def close(self) -> None:
        self._channel.close()

    def _fill_spec(self, spec: Any, asked: Asked) -> None:
        spec.name, spec.signature_name, spec.version_label = asked.model, asked.signature, asked.label
        if asked.version is not None:
            spec.version.value = asked.version

    def _ask(self, call: Any, request: Any, what: str, timeout_s: float) -> Any:
        try:
            return call(request, timeout=timeout_s)
        except grpc.RpcError as error:
            code = Code(error.code().value[0])
            text = error.details() or ""
            failed = RequestFailedError(self._address, what, code, text)
            was_not_sent = code == Code.UNAVAILABLE and "failed to connect" in text.lower()
            if was_not_sent or code == Code.RESOURCE_EXHAUSTED:
                raise _RefusedError(failed) from error
            raise failed from error


class _Rest:
    def __init__(
        self, address: str, ca_file: Path | None, cert_file: Path | None, key_file: Path | None
    ) -> None:
        parts = urlsplit(address)
        if not parts.hostname:
            raise ServerAddressError(address)
        self._address = address
        self._host, self._port = parts.hostname, parts.port
        self._context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
            if cert_file:
                self._context.load_cert_chain(cert_file, key_file)
        self._kept = threading.local()

    def predict(
        self, asked: Asked, inputs: Mapping[str, Array], outputs: Sequence[str], timeout_s: float
    ) -> dict[str, Array]:
        document = {"inputs": {name: _to_json(array) for name, array in inputs.items()}}
        if asked.signature:
            document["signature_name"] = asked.signature  # type: ignore[assignment]
        body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        answer = self._ask("POST", f"{_path(asked)}:predict", body, f"predict {asked.model}", timeout_s)
        found = answer["outputs"]
        if not isinstance(found, dict) or set(found) == {"b64"}:
            found = {self._only_output(asked, timeout_s): found}
        arrays = {name: _from_json(value) for name, value in found.items()}
        return {name: arrays[name] for name in outputs} if outputs else arrays

    def status(self, asked: Asked, timeout_s: float) -> list[VersionState]:
        answer = self._ask("GET", _path(asked), None, f"status of {asked.model}", timeout_s)
        return [
            VersionState(int(s["version"]), s["state"], s["status"]["error_message"])
            for s in answer["model_version_status"]
        ]

    def close(self) -> None:
        connection = getattr(self._kept, "connection", None)
        if connection is not None:
            connection.close()

    def _only_output(self, asked: Asked, timeout_s: float) -> str:
        """Return the name of a signature's one output, which a REST answer leaves out."""
        known: dict[Asked, str] = self._kept.__dict__.setdefault("outputs", {})
        if asked not in known:
            path = f"{_path(asked)}/metadata"
            answer = self._ask("GET", path, None, f"metadata of {asked.model}", timeout_s)
            signatures = answer["metadata"]["signature_def"]["signature_def"]
            known[asked] = next(iter(signatures[asked.signature or "serving_default"]["outputs"]))
        return known[asked]

    def _ask(self, method: str, path: str, body: bytes | None, what: str, timeout_s: float) -> Any:
        try:
            status, content = self._send(method, path, body, timeout_s)
        except TimeoutError as error:
            text = f"no answer within {timeout_s:g} s"
            raise RequestFailedError(self._address, what, Code.DEADLINE_EXCEEDED, text) from error
        except ConnectionRefusedError as error:
            failed = RequestFailedError(self._address, what, Code.UNAVAILABLE, str(error))
            raise _RefusedError(failed) from error
        except (OSError, http.client.HTTPException) as error:
            text = str(error) or type(error).__name__
            raise RequestFailedError(self._address, what, Code.UNAVAILABLE, text) from error
        if status == 200:
            return json.loads(content)
        failed = RequestFailedError(self._address, what, _code(status), _error_text(content))
        if status == 429:
            raise _RefusedError(failed)
        raise failed

    def _send(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        kept: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        is_kept = kept is not None and kept.sock is not None
        connection = kept if kept is not None and is_kept else self._connect(timeout_s)
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            connection.close()
            if not is_kept:
                raise
            # The server had closed the connection that was kept open; it has not read this request.
            return self._send(method, path, body, timeout_s)
        except BaseException:
            connection.close()
            raise

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._context is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout_s, context=self._context
            )
        self._kept.connection = connection
        return connection


def _path(asked: Asked) -> str:
    path = f"/v1/models/{quote(asked.model, safe='')}"
    if asked.version is not None:
        return f"{path}/versions/{asked.version}"
    return f"{path}/labels/{quote(asked.label, safe='')}" if asked.label else path


def _to_json(array: Array) -> Any:
    if array.dtype == np.object_:
        flat = np.empty(array.size, dtype=np.object_)
        flat[:] = [_text_to_json(value) for value in array.ravel().tolist()]
        return flat.reshape(array.shape).tolist() if array.ndim else flat[0]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise StatusError(Code.INVALID_ARGUMENT, "NaN and Infinity travel over gRPC; send them there")
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _text_to_json(value: str | bytes) -> Any:
    return value if isinstance(value, str) else {"b64": base64.b64encode(value).decode("ascii")}


def _from_json(value: Any) -> Array:
    array = np.array(_decoded(value))
    if array.dtype.kind in "SU":
        array = np.array(_decoded(value), dtype=np.object_)
    return array


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(element) for element in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else value


def _code(http_status: int) -> Code:
    return next((code for code, status in HTTP_STATUS.items() if status == http_status), Code.INTERNAL)


def _error_text(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode("utf-8", "replace")
