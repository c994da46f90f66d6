"""See a pushed version serving: wait until a server has it, then ask it questions with known answers.

Speaks TensorFlow Serving's own API, so any server of that API can be confirmed.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import prediction_log_pb2

from mlplatform.components.serving_pusher.errors import ServerRefusesError
from mlplatform.exported_model.contents import largest_difference
from mlplatform.serving.client import Client, RequestFailedError
from mlplatform.serving.kubernetes_service import Service, ready_endpoints
from mlplatform.serving.status import Code
from mlplatform.serving.tensors import Array

# What a pod answers, or does not, that has not loaded the version yet or that has just ended.
_MAY_PASS = (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE)
_LOOK_S = 1.0  # between looks at which pods there are
_TOLERANCE = 1e-2  # another processor or batch size rounds differently; a wrong model is further off


@dataclass(frozen=True)
class ServerTls:
    """How to reach servers that speak TLS; without any of the files, gRPC goes without.

    Attributes:
        ca_file: PEM file of the authority that signed the servers' certificates; empty for the system's.
        cert_file: PEM file of the certificate to show, where servers want one.
        key_file: PEM file of its key, where `cert_file` does not hold it.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def client(self, address: str, timeout_s: float) -> Client:
        """Return a client of the server at `address`."""
        return Client(
            address,
            timeout_s=timeout_s,
            ca_file=_file(self.ca_file),
            cert_file=_file(self.cert_file),
            key_file=_file(self.key_file),
        )


def confirm_serving(
    address: str,
    model_name: str,
    version: int,
    golden: Sequence[prediction_log_pb2.PredictLog],
    *,
    timeout_s: float,
    wait_s: float | None = None,
    tls: ServerTls | None = None,
) -> int:
    """Wait until the server at `address` has the version AVAILABLE, then ask it the golden requests.

    Args:
        address: The server, as `mlplatform.serving.client.Client` takes it.
        model_name: The model's name there.
        version: The version that must answer.
        golden: Requests, each with the answer that a good version gives (where it holds none, any will do);
            each is sent to exactly this version.
        timeout_s: Seconds to wait for each answer.
        wait_s: Seconds to wait until the version is available; default: as long as for an answer.
        tls: The files for a server that speaks TLS.

    Returns:
        How many requests were answered.

    Raises:
        ServerRefusesError: The version did not become available in time, failed to load, or did not
            give an answer that was expected.
        OSError: A file of `tls` cannot be read.
    """
    with (tls or ServerTls()).client(address, timeout_s) as client:
        _wait_until_available(client, model_name, version, timeout_s if wait_s is None else wait_s)
        for number, log in enumerate(golden, start=1):
            which = f"golden request {number} of {len(golden)}"
            try:
                answer = client.predict(
                    model_name,
                    _arrays(log.request.inputs),
                    signature=log.request.model_spec.signature_name,
                    version=version,
                    outputs=list(log.request.output_filter),
                )
            except RequestFailedError as error:
                reason = f"did not answer {which}: {error.code.name}: {error.text}"
                raise ServerRefusesError(address, reason) from error
            if different := _different_outputs(_arrays(log.response.outputs), answer):
                raise ServerRefusesError(address, f"answered {which} with other {', '.join(different)}")
    return len(golden)


def confirm_service(
    service: Service,
    model_name: str,
    version: int,
    golden: Sequence[prediction_log_pb2.PredictLog],
    *,
    timeout_s: float,
    tls: ServerTls | None = None,
) -> list[str]:
    """See each pod that answers for a service of Kubernetes serve the version, as `confirm_serving` does.

    Pods come and go meanwhile: one that became ready has to confirm, too, and one that ended does not.

    Args:
        service: The service; its port speaks gRPC.
        model_name: The model's name there.
        version: The version that must answer.
        golden: Requests, each with the answer that a good version gives.
        timeout_s: Seconds that all pods together have, above 0.
        tls: The files for servers that speak TLS.

    Returns:
        The addresses of the pods.

    Raises:
        ServerRefusesError: A pod did not serve the version in time, failed to load it, or gave another
            answer; or no pod was ready in time.
        ServiceEndpointsError: Kubernetes does not list the pods.
    """
    deadline = time.monotonic() + timeout_s
    confirmed: set[str] = set()
    while True:
        endpoints = ready_endpoints(service)
        waiting = [endpoint for endpoint in endpoints if endpoint not in confirmed]
        if endpoints and not waiting:
            return endpoints
        left_s = deadline - time.monotonic()
        if not endpoints:
            if left_s <= 0:
                raise ServerRefusesError(service.address, f"had no ready pod within {timeout_s:g} s")
            time.sleep(min(_LOOK_S, left_s))
            continue
        try:
            confirm_serving(
                waiting[0], model_name, version, golden, timeout_s=timeout_s, wait_s=_LOOK_S, tls=tls
            )
        except ServerRefusesError as error:
            cause = error.__cause__
            if left_s <= 0 or not isinstance(cause, RequestFailedError) or cause.code not in _MAY_PASS:
                raise
        else:
            confirmed.add(waiting[0])


def _file(path: str) -> Path | None:
    return Path(path) if path else None


def _arrays(tensors: Mapping[str, TensorProto]) -> dict[str, Array]:
    return {name: tf.make_ndarray(tensor) for name, tensor in tensors.items()}


def _different_outputs(expected: Mapping[str, Array], found: Mapping[str, Array]) -> list[str]:
    """Names of outputs that are missing, or differ by more than rounding."""
    names = set(expected)
    different: list[str] = []
    if {"scores", "classes"} <= names & set(found):  # classes that score alike may change places
        names -= {"scores", "classes"}
        if not _are_close_answers(expected, found):
            different.append("scores")
    return different + [name for name in sorted(names) if not _is_close(expected[name], found.get(name))]


def _are_close_answers(expected: Mapping[str, Array], found: Mapping[str, Array]) -> bool:
    one, other = ({name: answer[name] for name in ("scores", "classes")} for answer in (expected, found))
    has_same_form = all(one[name].shape == other[name].shape and one[name].ndim == 2 for name in one)
    return has_same_form and largest_difference(one, other) <= _TOLERANCE


def _is_close(expected: Array, found: Array | None) -> bool:
    if found is None or expected.shape != found.shape:
        return False
    if expected.dtype.kind == "f":
        return bool(np.allclose(expected, found, rtol=_TOLERANCE, atol=_TOLERANCE))
    return bool(np.array_equal(expected, found))


def _wait_until_available(client: Client, model_name: str, version: int, timeout_s: float) -> None:
    try:
        client.wait_until_available(model_name, version, timeout_s=timeout_s)
    except RequestFailedError as error:
        if error.code == Code.ABORTED:
            raise ServerRefusesError(client.address, f"failed to load it: {error.text}") from error
        reason = f"did not have it within {timeout_s:g} s: {error.text}"
        raise ServerRefusesError(client.address, reason) from error
