"""Outcomes of a request in the canonical codes that gRPC, REST and the model status share."""

from enum import IntEnum

from mlplatform.errors import MlplatformError


class Code(IntEnum):
    """Canonical status codes; the numbers are gRPC's and TensorFlow's."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}  # every other code is a 500, as in TensorFlow Serving


class StatusError(MlplatformError):
    """A request that cannot be answered: its code and its text go to the caller as they are."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(code, text)
        self.code, self.text = code, text

    def __str__(self) -> str:
        return self.text


def invalid_argument(text: str) -> StatusError:
    """Return the error of a request that is wrong in itself."""
    return StatusError(Code.INVALID_ARGUMENT, text)


def from_tensorflow(error: Exception) -> StatusError:
    """Return the status of an error that running or loading a model raised."""
    code = getattr(error, "error_code", None)  # tf.errors.OpError
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    if isinstance(code, int) and code in Code._value2member_map_:
        return StatusError(Code(code), text)
    if isinstance(error, (ValueError, TypeError)):
        return StatusError(Code.INVALID_ARGUMENT, text)
    return StatusError(Code.INTERNAL, text)
