"""See a pushed version serving: wait until a server has it, then ask it questions with known answers.

Speaks TensorFlow Serving's own gRPC API, so any server of that API can be confirmed.
"""

import re
import time
from collections.abc import Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from mlplatform.components.serving_pusher.errors import ServerAddressError, ServerRefusesError
from mlplatform.vision.exported import largest_difference

_State = get_model_status_pb2.ModelVersionStatus.State
_TOLERANCE = 1e-2  # another processor or batch size rounds differently; a wrong model is further off
_LONGEST_MESSAGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def confirm_serving(
    address: str,
    model_name: str,
    version: int,
    golden: Sequence[prediction_log_pb2.PredictLog],
    *,
    timeout_s: float,
) -> int:
    """Wait until the server at `address` has the version AVAILABLE, then ask it the golden requests.

    Args:
        address: HOST:PORT of the server's gRPC port.
        model_name: The model's name there.
        version: The version that must answer.
        golden: Requests, each with the answer that a good version gives (where it holds none, any will do);
            each is sent to exactly this version.
        timeout_s: Seconds to wait until the version is available, and for each answer.

    Returns:
        How many requests were answered.

    Raises:
        ServerRefusesError: The version did not become available in time, failed to load, or did not
            give an answer that was expected.
    """
    with grpc.insecure_channel(address, options=_LONGEST_MESSAGE) as channel:
        _wait_until_available(channel, address, model_name, version, timeout_s)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for number, log in enumerate(golden, start=1):
            request = predict_pb2.PredictRequest()
            request.CopyFrom(log.request)
            request.model_spec.name = model_name
            request.model_spec.version.value = version
            try:
                answer = stub.Predict(request, timeout=timeout_s)
            except grpc.RpcError as error:
                reason = f"did not answer golden request {number} of {len(golden)}: {_text(error)}"
                raise ServerRefusesError(address, reason) from error
            if different := _different_outputs(log.response, answer):
                reason = (
                    f"answered golden request {number} of {len(golden)} with other {', '.join(different)}"
                )
                raise ServerRefusesError(address, reason)
    return len(golden)


def check_address(address: str) -> None:
    """See that a server's address can be one.

    Raises:
        ServerAddressError: `address` is not HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise ServerAddressError(address)


def _different_outputs(
    expected: predict_pb2.PredictResponse, found: predict_pb2.PredictResponse
) -> list[str]:
    """Names of outputs that are missing, or differ by more than rounding."""
    names = set(expected.outputs)
    different: list[str] = []
    if {"scores", "classes"} <= names & set(found.outputs):  # classes that score alike may change places
        names -= {"scores", "classes"}
        if not _are_close_answers(expected, found):
            different.append("scores")
    return different + [
        name for name in sorted(names) if not _is_close(expected.outputs[name], found.outputs.get(name))
    ]


def _are_close_answers(expected: predict_pb2.PredictResponse, found: predict_pb2.PredictResponse) -> bool:
    one, other = (
        {name: tf.make_ndarray(answer.outputs[name]) for name in ("scores", "classes")}
        for answer in (expected, found)
    )
    has_same_form = all(one[name].shape == other[name].shape and one[name].ndim == 2 for name in one)
    return has_same_form and largest_difference(one, other) <= _TOLERANCE


def _is_close(expected: TensorProto, found: TensorProto | None) -> bool:
    if found is None:
        return False
    left, right = tf.make_ndarray(expected), tf.make_ndarray(found)
    if left.shape != right.shape:
        return False
    if left.dtype.kind == "f":
        return bool(np.allclose(left, right, rtol=_TOLERANCE, atol=_TOLERANCE))
    return bool(np.array_equal(left, right))


def _wait_until_available(
    channel: grpc.Channel, address: str, model_name: str, version: int, timeout_s: float
) -> None:
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model_name
    deadline = time.monotonic() + timeout_s
    seen = "did not answer"
    while time.monotonic() < deadline:
        try:
            status = stub.GetModelStatus(request, timeout=min(5.0, timeout_s))
        except grpc.RpcError as error:  # not up yet, or it does not know the model yet
            seen = f"said: {_text(error)}"
        else:
            states = {s.version: s for s in status.model_version_status}
            found = states.get(version)
            if found is None:
                seen = f"has versions {sorted(states) or 'none'}"
            elif found.state == _State.AVAILABLE:
                return
            elif found.state == _State.END and found.status.error_code:
                reason = f"failed to load it: {found.status.error_message}"
                raise ServerRefusesError(address, reason)
            else:
                seen = f"has it in state {_State.Name(found.state)}"
        time.sleep(0.1)
    reason = f"did not have it within {timeout_s:g} s; it {seen}"
    raise ServerRefusesError(address, reason)


def _text(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}"
