"""A client of any server that speaks TensorFlow Serving's API: numpy in, numpy out; no TensorFlow needed."""

import base64
import json
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import grpc
import ml_dtypes
import numpy as np
import numpy.typing as npt
import orjson
import urllib3

from mlplatform.errors import MlplatformError, UsageError
from mlplatform.serving import wire
from mlplatform.serving.status import HTTP_STATUS, Code, StatusError
from mlplatform.serving.tensors import NUMPY_OF, Array, DataType, dtype_name, enum_of, fill_content, to_array

DEFAULT_SIGNATURE = "serving_default"
_STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_RETRIES = 3
_FIRST_PAUSE_S = 0.1
_MAX_CONNECTIONS = 64  # kept open by a REST client, for as many threads
_SIGNATURE_KNOWN_FOR_S = 10.0  # after that a signature is asked for again: versions change

# RESOURCE_EXHAUSTED is also said of what will never fit and by kernels that ran out of memory; with these
# texts a server (ours, gRPC's, TensorFlow Serving's batching) says that it computed nothing.
_REFUSED_TEXTS = (
    "requests are in flight already",
    "Concurrent RPC limit exceeded",
    "batch scheduling queue to which this task was submitted is full",
)

# What numpy makes of Python's numbers: nobody has chosen these dtypes.
_NUMPYS_OWN = (np.dtype(np.float64), np.dtype(np.int64))

Answer = TypeVar("Answer")


class ServerAddressError(UsageError):
    """An address is neither HOST:PORT nor a URL."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return (
            f"server {self.address!r} is not HOST:PORT (such as 127.0.0.1:8500) or unix:PATH for gRPC, "
            "http://HOST:PORT or https://HOST:PORT for REST; a push also takes the gRPC port of a service of "
            "Kubernetes, kubernetes://NAMESPACE/SERVICE:PORT."
        )


def check_address(address: str) -> None:
    """See that a server's address can be one.

    Raises:
        ServerAddressError: It is neither HOST:PORT, `unix:PATH` nor a URL.
    """
    if address.startswith(("http://", "https://")):
        _url_parts(address)
        return
    host, _, port = address.rpartition(":")
    is_port = re.fullmatch("[0-9]{1,5}", port) is not None and 0 < int(port) < 1 << 16
    if not address.startswith("unix:") and not (host and is_port):
        raise ServerAddressError(address)


def _url_parts(address: str) -> tuple[str, int | None, str]:
    """Return host, port and path of a URL."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:  # the port is not a number
        raise ServerAddressError(address) from error
    if not host:
        raise ServerAddressError(address)
    return host, port, parts.path.rstrip("/")


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


class _NotComputedError(Exception):
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
class RequestedModel:
    """What a request is about."""

    model: str
    signature: str = ""
    version: int | None = None
    label: str = ""


@dataclass(frozen=True)
class SignatureInfo:
    """What a signature takes, dtypes by input name, and the names of what it returns."""

    inputs: Mapping[str, int]
    outputs: Sequence[str]


@dataclass(frozen=True)
class TensorForm:
    """What a tensor of a signature is.

    Attributes:
        dtype: Its `DataType`.
        shape: Its sizes, -1 for one that is not fixed; None where even their number is not.
    """

    dtype: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class SignatureForm:
    """What a signature takes and returns, by the names of its tensors.

    Attributes:
        inputs: What it takes.
        outputs: What it returns.
        method: TensorFlow Serving's method that it is for, such as `tensorflow/serving/predict`.
    """

    inputs: Mapping[str, TensorForm]
    outputs: Mapping[str, TensorForm]
    method: str = ""


class Transport(Protocol):
    """How requests travel."""

    def signatures(self, asked: RequestedModel, timeout_s: float) -> dict[str, SignatureForm]: ...

    def signature(self, asked: RequestedModel, timeout_s: float) -> SignatureInfo: ...

    def predict(
        self, asked: RequestedModel, inputs: Mapping[str, Array], outputs: Sequence[str], timeout_s: float
    ) -> dict[str, Array]: ...

    def status(self, asked: RequestedModel, timeout_s: float) -> list[VersionState]: ...

    def close(self) -> None: ...


class Client:
    """Asks a model server. Safe to use from several threads; close it or use it as a context manager.

    Args:
        address: `HOST:PORT` or `unix:PATH` for gRPC, `http://HOST:PORT` for REST; a path after the port comes
            before that of each request.
        timeout_s: Seconds to wait for an answer, repeated attempts included; above 0.
        ca_file: PEM file of the authority that signed the server's certificate; default: the system's
            authorities. For gRPC each of the three files turns TLS on.
        cert_file: PEM file of this client's certificate, where the server wants one.
        key_file: PEM file of its key, where `cert_file` does not hold it.
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
        self._signatures: dict[RequestedModel, tuple[SignatureInfo, float]] = {}
        self._protocol: Transport
        check_address(address)
        is_rest = address.startswith(("http://", "https://"))
        self._protocol = (_Rest if is_rest else _Grpc)(address, ca_file, cert_file, key_file)

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

        A request is sent again, within its time, only where it did not reach a server or was refused before
        anything was computed: never where its answer was lost, for a signature may hold state.

        Args:
            model: The model's name.
            inputs: Arrays, or what numpy makes arrays of, by input name. Numbers in numpy's own dtypes
                (float64 and int64, which lists become) are sent in the dtypes that the signature takes, if
                they fit; other dtypes are sent as they are. Texts and bytes for string inputs.
            signature: The signature's name; empty for `serving_default`.
            version: The version, or the newest.
            label: The version's label, instead of its number.
            outputs: Which outputs to return; empty for all.
            timeout_s: Seconds for this call, repeated attempts included; above 0.

        Returns:
            Arrays by output name. Over gRPC in the model's dtypes; over REST as JSON has them (float64,
            int64 or uint64, bool, texts as bytes objects).

        Raises:
            RequestFailedError: The server refused, failed, or was not reached; INVALID_ARGUMENT also where an
                input is nothing that can be sent, or numbers do not fit the dtype that the signature takes.
        """
        asked = RequestedModel(model=model, signature=signature, version=version, label=label)

        def attempt(left_s: float) -> dict[str, Array]:
            deadline = time.monotonic() + left_s
            sent = arrays
            if any(array.dtype in _NUMPYS_OWN for array in arrays.values()):
                sent = _typed(arrays, self._signature(asked, left_s))
            return self._protocol.predict(asked, sent, outputs, max(0.001, deadline - time.monotonic()))

        try:
            arrays = {name: _array(name, value) for name, value in inputs.items()}
            return _retried(attempt, self._timeout_s if timeout_s is None else timeout_s)
        except _InputError as error:
            what, text = f"predict {model}", str(error)
            raise RequestFailedError(self.address, what, Code.INVALID_ARGUMENT, text) from error
        except RequestFailedError:
            self._signatures.pop(asked, None)  # another version may take other dtypes
            raise

    def _signature(self, asked: RequestedModel, timeout_s: float) -> SignatureInfo:
        """Return what a signature takes; nothing where the server does not say: the request then says why."""
        info, known_until = self._signatures.get(asked, (SignatureInfo({}, ()), 0.0))
        if time.monotonic() < known_until:
            return info
        try:
            info = self._protocol.signature(asked, timeout_s)
        except RequestFailedError:
            return SignatureInfo({}, ())
        self._signatures[asked] = info, time.monotonic() + _SIGNATURE_KNOWN_FOR_S
        return info

    def signatures(
        self, model: str, *, version: int | None = None, label: str = ""
    ) -> dict[str, SignatureForm]:
        """Return what a version can be asked, by the names of its signatures.

        Args:
            model: The model's name.
            version: The version, or the newest.
            label: The version's label, instead of its number.

        Raises:
            RequestFailedError: The server knows no such version, or was not reached.
        """
        asked = RequestedModel(model=model, version=version, label=label)
        return _retried(lambda left_s: self._protocol.signatures(asked, left_s), self._timeout_s)

    def status(self, model: str, version: int | None = None) -> list[VersionState]:
        """Return the states of a model's versions, newest first.

        Raises:
            RequestFailedError: The server knows no such model, or was not reached.
        """
        return self._states(RequestedModel(model=model, version=version), self._timeout_s)

    def _states(self, asked: RequestedModel, timeout_s: float) -> list[VersionState]:
        return _retried(lambda left_s: self._protocol.status(asked, left_s), timeout_s)

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
                left_s = max(0.1, deadline - time.monotonic())
                states = self._states(
                    RequestedModel(model=model, version=version), min(self._timeout_s, left_s)
                )
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


class _InputError(Exception):
    """A value is nothing that a server takes."""


def _array(name: str, value: npt.ArrayLike) -> Array:
    """Return a value as the tensor that is sent; texts become bytes, whole: numpy's own cut zeros off."""
    try:
        try:
            array = np.asarray(value)
        except UnicodeDecodeError:  # texts beside bytes
            array = np.asarray(value, dtype=np.object_)
        if array.dtype.kind in "SUO":
            return _texts(np.asarray(value, dtype=np.object_))
        enum_of(array)
    except (StatusError, ValueError, TypeError) as error:
        raise _InputError(f"input {name} is no array: {error}") from error
    return array


def _typed(arrays: Mapping[str, Array], signature: SignatureInfo) -> dict[str, Array]:
    return {
        name: _cast(name, array, signature.inputs[name]) if name in signature.inputs else array
        for name, array in arrays.items()
    }


def _cast(name: str, array: Array, wanted: int) -> Array:
    """Return numbers in numpy's own dtypes in the dtype that is wanted; all others as they are."""
    dtype = np.dtype(NUMPY_OF.get(wanted, np.object_))
    is_float = dtype.kind in "fc" or dtype == ml_dtypes.bfloat16
    if array.dtype not in _NUMPYS_OWN or array.dtype == dtype or not (is_float or dtype.kind in "iu"):
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    if is_float:
        misfits = np.isfinite(array) & ~np.isfinite(cast)
    else:
        misfits = ~_holds(dtype, array)
    if misfits.any():
        raise _InputError(
            f"input {name} takes {dtype_name(wanted)}, which {array[misfits].flat[0]} does not fit"
        )
    return cast


def _holds(dtype: Any, array: Array) -> Any:
    """Say which numbers are whole and within the range of an integer dtype."""
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f":  # the upper limit of 64 bits is not a float64: the next one is
        return (array == np.trunc(array)) & (array >= limits.min) & (array < float(limits.max) + 1.0)
    return (array >= limits.min) & (array <= min(limits.max, np.iinfo(array.dtype).max))


def _texts(array: Array) -> Array:
    texts = np.empty(array.size, dtype=np.object_)
    for place, value in enumerate(array.ravel().tolist()):
        if not isinstance(value, (str, bytes)):
            raise TypeError(f"{type(value).__name__} is neither text nor bytes")
        texts[place] = value.encode() if isinstance(value, str) else value
    return texts.reshape(array.shape)


def _retried(call: Callable[[float], Answer], timeout_s: float) -> Answer:
    """Call with the seconds that are left, again where nothing was computed and time is left."""
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    left_s = timeout_s
    for retries_left in reversed(range(_RETRIES + 1)):
        try:
            return call(left_s)
        except _NotComputedError as refused:
            wait_s = pause_s * random.uniform(0.5, 1.5)
            left_s = deadline - time.monotonic() - wait_s
            if not retries_left or left_s <= 0:
                raise refused.error from refused.__cause__
        time.sleep(wait_s)
        pause_s *= 2
    raise AssertionError("the last attempt returns or raises")


def _says_nothing_was_computed(code: Code, text: str) -> bool:
    return code == Code.RESOURCE_EXHAUSTED and any(known in text for known in _REFUSED_TEXTS)


class _Grpc:
    def __init__(
        self, address: str, ca_file: Path | None, cert_file: Path | None, key_file: Path | None
    ) -> None:
        self._address = address
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if ca_file or cert_file or key_file:
            credentials = grpc.ssl_channel_credentials(
                ca_file.read_bytes() if ca_file else None,
                # gRPC ends the process where it is given one of the two alone.
                (key_file or cert_file).read_bytes() if cert_file else None,
                cert_file.read_bytes() if cert_file else None,
            )
            self._channel = grpc.secure_channel(address, credentials, options=options)
        else:
            self._channel = grpc.insecure_channel(address, options=options)
        self._predict = self._call(wire.PREDICT, "PredictResponse")
        self._metadata = self._call(wire.METADATA, "MetadataResponse")
        self._status = self._call(wire.STATUS, "StatusResponse")

    def _call(self, method: str, response: str) -> Any:
        return self._channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=wire.message(response).FromString,
        )

    def predict(
        self, asked: RequestedModel, inputs: Mapping[str, Array], outputs: Sequence[str], timeout_s: float
    ) -> dict[str, Array]:
        request = wire.message("PredictRequest")(output_filter=outputs)
        self._fill_spec(request.model_spec, asked)
        for name, array in inputs.items():
            fill_content(request.inputs.add(key=name).value, array)
        response = self._ask(self._predict, request, f"predict {asked.model}", timeout_s)
        return {entry.key: to_array(entry.value, entry.key) for entry in response.outputs}

    def signature(self, asked: RequestedModel, timeout_s: float) -> SignatureInfo:
        found, name = self.signatures(asked, timeout_s), asked.signature or DEFAULT_SIGNATURE
        if name not in found:
            what, text = f"metadata of {asked.model}", f"there is no signature {name}"
            raise RequestFailedError(self._address, what, Code.NOT_FOUND, text)
        inputs = {alias: form.dtype for alias, form in found[name].inputs.items()}
        return SignatureInfo(inputs, list(found[name].outputs))

    def signatures(self, asked: RequestedModel, timeout_s: float) -> dict[str, SignatureForm]:
        request = wire.message("MetadataRequest")(metadata_field=["signature_def"])
        self._fill_spec(request.model_spec, asked)
        response = self._ask(self._metadata, request, f"metadata of {asked.model}", timeout_s)
        return {
            entry.key: SignatureForm(
                {info.key: _form(info.value) for info in entry.value.inputs},
                {info.key: _form(info.value) for info in entry.value.outputs},
                entry.value.method_name,
            )
            for metadata in response.metadata
            for entry in wire.message("SignatureDefMap").FromString(metadata.value.value).signature_def
        }

    def status(self, asked: RequestedModel, timeout_s: float) -> list[VersionState]:
        request = wire.message("StatusRequest")()
        self._fill_spec(request.model_spec, asked)
        response = self._ask(self._status, request, f"status of {asked.model}", timeout_s)
        return [
            VersionState(s.version, _STATES.get(s.state, str(s.state)), s.status.error_message)
            for s in response.model_version_status
        ]

    def close(self) -> None:
        self._channel.close()

    def _fill_spec(self, spec: Any, asked: RequestedModel) -> None:
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
            if was_not_sent or _says_nothing_was_computed(code, text):
                raise _NotComputedError(failed) from error
            raise failed from error


class _Rest:
    def __init__(
        self, address: str, ca_file: Path | None, cert_file: Path | None, key_file: Path | None
    ) -> None:
        host, port, self._prefix = _url_parts(address)
        self._address = address
        if address.startswith("https://"):
            context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
            if cert_file:
                context.load_cert_chain(cert_file, key_file)
            self._pool: urllib3.HTTPConnectionPool = urllib3.HTTPSConnectionPool(
                host, port, maxsize=_MAX_CONNECTIONS, ssl_context=context
            )
        else:
            self._pool = urllib3.HTTPConnectionPool(host, port, maxsize=_MAX_CONNECTIONS)
        self._only_outputs: dict[RequestedModel, tuple[str, float]] = {}

    def predict(
        self, asked: RequestedModel, inputs: Mapping[str, Array], outputs: Sequence[str], timeout_s: float
    ) -> dict[str, Array]:
        what = f"predict {asked.model}"
        try:
            document: dict[str, Any] = {"inputs": {name: _to_json(name, a) for name, a in inputs.items()}}
        except _InputError as error:
            raise RequestFailedError(self._address, what, Code.INVALID_ARGUMENT, str(error)) from error
        if asked.signature:
            document["signature_name"] = asked.signature
        body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        deadline = time.monotonic() + timeout_s
        found = self._ask("POST", f"{_path(asked)}:predict", body, what, timeout_s, "outputs")
        if not isinstance(found, dict) or set(found) == {"b64"}:
            try:
                found = {self._only_output(asked, max(0.001, deadline - time.monotonic())): found}
            except _NotComputedError as refused:  # the request itself was computed
                raise refused.error from refused.__cause__
        for name in outputs:
            if name not in found:
                text = f"output tensor alias not found in signature: {name} "
                text += f"Outputs expected to be in the set {{{','.join(sorted(found))}}}."
                raise RequestFailedError(self._address, what, Code.INVALID_ARGUMENT, text)
        return {name: _from_json(found[name]) for name in outputs or found}

    def status(self, asked: RequestedModel, timeout_s: float) -> list[VersionState]:
        what = f"status of {asked.model}"
        states = self._ask("GET", _path(asked), None, what, timeout_s, "model_version_status")
        return [VersionState(int(s["version"]), s["state"], s["status"]["error_message"]) for s in states]

    def close(self) -> None:
        self._pool.close()

    def signature(self, asked: RequestedModel, timeout_s: float) -> SignatureInfo:
        found, name = self.signatures(asked, timeout_s), asked.signature or DEFAULT_SIGNATURE
        if name not in found:
            text = f"the answer has no signature {name}: its versions are being changed"
            raise self._failed(f"metadata of {asked.model}", Code.UNAVAILABLE, text)
        inputs = {alias: form.dtype for alias, form in found[name].inputs.items() if form.dtype}
        return SignatureInfo(inputs, list(found[name].outputs))

    def signatures(self, asked: RequestedModel, timeout_s: float) -> dict[str, SignatureForm]:
        what = f"metadata of {asked.model}"
        metadata = self._ask("GET", f"{_path(asked)}/metadata", None, what, timeout_s, "metadata")
        try:
            return {
                name: SignatureForm(
                    {alias: _form_of_json(info) for alias, info in found.get("inputs", {}).items()},
                    {alias: _form_of_json(info) for alias, info in found.get("outputs", {}).items()},
                    found.get("method_name", ""),
                )
                for name, found in metadata["signature_def"]["signature_def"].items()
            }
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            text = "the answer holds no SignatureDefs"
            raise self._failed(what, Code.UNKNOWN, text) from error

    def _only_output(self, asked: RequestedModel, timeout_s: float) -> str:
        """Return the name of a signature's one output, which a REST answer leaves out."""
        name, known_until = self._only_outputs.get(asked, ("", 0.0))
        if time.monotonic() < known_until:
            return name
        outputs = self.signature(asked, timeout_s).outputs
        if not outputs:
            text = f"signature {asked.signature or DEFAULT_SIGNATURE} has no output"
            raise self._failed(f"metadata of {asked.model}", Code.UNKNOWN, text)
        self._only_outputs[asked] = (outputs[0], time.monotonic() + _SIGNATURE_KNOWN_FOR_S)
        return outputs[0]

    def _ask(self, method: str, path: str, body: bytes | None, what: str, timeout_s: float, key: str) -> Any:
        """Return what lies under `key` of the answer."""
        try:
            response = self._pool.urlopen(
                method,
                self._prefix + path,
                body,
                {"Content-Type": "application/json"},
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(total=timeout_s),
            )
        except urllib3.exceptions.NewConnectionError as error:
            raise _NotComputedError(self._failed(what, Code.UNAVAILABLE, str(error))) from error
        except urllib3.exceptions.TimeoutError as error:
            text = f"no answer within {timeout_s:g} s"
            raise self._failed(what, Code.DEADLINE_EXCEEDED, text) from error
        except urllib3.exceptions.HTTPError as error:  # the connection broke: it may have been computed
            failed = self._failed(what, Code.UNAVAILABLE, str(error) or type(error).__name__)
            raise (_NotComputedError(failed) if method == "GET" else failed) from error
        if response.status != 200:
            code, text = _code(response.status), _error_text(response.data)
            failed = self._failed(what, code, text)
            raise _NotComputedError(failed) if _says_nothing_was_computed(code, text) else failed
        try:
            return json.loads(response.data)[key]
        except (ValueError, KeyError, TypeError) as error:
            text = f"the answer is no JSON object with {key!r}: {response.data[:200]!r}"
            raise self._failed(what, Code.UNKNOWN, text) from error

    def _failed(self, what: str, code: Code, text: str) -> RequestFailedError:
        return RequestFailedError(self._address, what, code, text)


def _form(info: Any) -> TensorForm:
    shape = info.tensor_shape
    return TensorForm(info.dtype, None if shape.unknown_rank else tuple(dim.size for dim in shape.dim))


def _form_of_json(info: Mapping[str, Any]) -> TensorForm:
    """Return a TensorInfo in JSON; its dtype is 0 where TensorFlow has one that this client does not know."""
    shape = info.get("tensor_shape") or {}
    sizes = tuple(int(dim.get("size", 0)) for dim in shape.get("dim", ()))
    dtype = DataType.__members__.get(info["dtype"].removeprefix("DT_"), 0)
    return TensorForm(int(dtype), None if shape.get("unknown_rank") else sizes)


def _path(asked: RequestedModel) -> str:
    path = f"/v1/models/{quote(asked.model, safe='')}"
    if asked.version is not None:
        return f"{path}/versions/{asked.version}"
    return f"{path}/labels/{quote(asked.label, safe='')}" if asked.label else path


def _to_json(name: str, array: Array) -> Any:
    if array.dtype == np.object_:
        flat = np.empty(array.size, dtype=np.object_)
        flat[:] = [_text_to_json(value) for value in array.ravel().tolist()]
        return flat.reshape(array.shape).tolist() if array.ndim else flat[0]
    if array.dtype.kind == "c":
        raise _InputError(
            f"input {name} is of complex numbers, which JSON does not have; they travel over gRPC"
        )
    if array.dtype in (np.float16, ml_dtypes.bfloat16):
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return orjson.Fragment(json.dumps(array.tolist()))  # with the tokens NaN and Infinity
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _text_to_json(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode("ascii")}


def _from_json(value: Any) -> Array:
    decoded = _decoded(value)
    array = np.array(decoded)
    if array.dtype.kind in "SU":
        return np.array(decoded, dtype=np.object_)
    if array.dtype.kind == "f" and np.any(array >= 1 << 63):
        exact = np.array(decoded, dtype=np.object_)  # numpy makes floats of small and large whole numbers
        if all(isinstance(number, int) for number in exact.ravel().tolist()):
            return exact.astype(np.uint64)
    return array


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(element) for element in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else value


def _code(http_status: int) -> Code:
    if http_status == 413:  # too large to be read
        return Code.RESOURCE_EXHAUSTED
    return next((code for code, status in HTTP_STATUS.items() if status == http_status), Code.INTERNAL)


def _error_text(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode("utf-8", "replace")
