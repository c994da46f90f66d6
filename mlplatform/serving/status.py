"""Outcomes of a request in the canonical codes that gRPC, REST and the model status share."""

from enum import IntEnum
from urllib.parse import quote

from mlplatform.errors import MlplatformError

MAX_ERROR_TEXT = 1024  # characters of an error
MAX_ERROR_BYTES = 4096  # of it percent-encoded: more would not pass as gRPC metadata


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


class TooLargeError(StatusError):
    """A request that will never fit: RESOURCE_EXHAUSTED, and over REST 413 instead of 429 ("ask again")."""

    def __init__(self, text: str) -> None:
        super().__init__(Code.RESOURCE_EXHAUSTED, text)
        self.args = (text,)  # what makes an equal one


def limited(text: str) -> str:
    """Cut an error's text, which may repeat what a caller sent, to what passes as gRPC metadata.

    There, what is not ASCII takes several bytes.
    """
    is_cut = len(text) > MAX_ERROR_TEXT
    kept = text[:MAX_ERROR_TEXT].encode("utf-8", "replace").decode()
    while len(quote(kept)) > MAX_ERROR_BYTES:
        kept, is_cut = kept[: len(kept) * 3 // 4], True
    suffix = "...TRUNCATED"
    return kept[: MAX_ERROR_TEXT - len(suffix)] + suffix if is_cut else kept


def invalid_argument(text: str) -> StatusError:
    """Return the error of a request that is wrong in itself."""
    return StatusError(Code.INVALID_ARGUMENT, text)


def from_tensorflow(error: Exception) -> StatusError:
    """Return the status of an error that running or loading a model raised."""
    if isinstance(error, UnicodeDecodeError):  # TensorFlow's text quotes bytes, and could not be decoded
        return StatusError(Code.INVALID_ARGUMENT, error.object.decode("utf-8", "backslashreplace"))
    code = getattr(error, "error_code", None)  # tf.errors.OpError
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    if isinstance(code, int) and code in Code._value2member_map_:
        return StatusError(Code(code), text)
    if isinstance(error, (ValueError, TypeError)):
        return StatusError(Code.INVALID_ARGUMENT, text)
    return StatusError(Code.INTERNAL, text)
