"""JSON values into arrays, as TensorFlow Serving's REST API reads them.

Numbers take a fast way through numpy. Only a value that numpy does not take as it is meant is walked in
Python, which finds the element that is wrong and says so in TensorFlow Serving's words.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from mlplatform.serving.servable import TensorSpec
from mlplatform.serving.status import Code, StatusError, invalid_argument
from mlplatform.serving.tensors import MAX_RANK, NUMPY_OF, Array, DataType, dtype_name

_MAX_VALUE_TEXT = 500  # characters of a value in an error
_MAX_REREAD = 1 << 20  # bytes of a body that is read again, slowly, only to say better what is wrong
_ONLY_LENIENT = (b"NaN", b"Infinity", b"\\ud", b"\\uD")  # what the quick parser does not take
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_FLOATS: dict[int, tuple[int, float]] = {
    DataType.FLOAT: (24, float(np.finfo(np.float32).max)),
    DataType.DOUBLE: (53, float(np.finfo(np.float64).max)),
    DataType.HALF: (24, float(np.finfo(np.float32).max)),
    DataType.BFLOAT16: (24, float(np.finfo(np.float32).max)),
}  # digits of the mantissa, largest value
_INT32 = (-(1 << 31), (1 << 31) - 1)
_INTEGERS: dict[int, tuple[int, int]] = {
    DataType.INT32: _INT32,
    DataType.INT16: _INT32,
    DataType.INT8: _INT32,
    DataType.UINT8: _INT32,
    DataType.UINT16: _INT32,
    DataType.INT64: (-(1 << 63), (1 << 63) - 1),
    DataType.UINT32: (0, (1 << 32) - 1),
    DataType.UINT64: (0, (1 << 64) - 1),
}


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a request's body, NaN and Infinity included.

    Raises:
        StatusError: INVALID_ARGUMENT: no JSON, or no object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty at offset: 0")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if len(body) > _MAX_REREAD and not any(token in body for token in _ONLY_LENIENT):
            raise invalid_argument(f"JSON Parse error: Invalid value. at offset: {error.pos}") from error
        document = _parse_leniently(body)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {value_text(document)} Is not object")
    return document


def _parse_leniently(body: bytes) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        reason = "The document is empty" if not body.strip() else "Invalid value"
        raise invalid_argument(f"JSON Parse error: {reason}. at offset: {error.pos}") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: {type(error).__name__}: {error} at offset: 0") from error


def value_text(value: Any) -> str:
    """Return a JSON value as text for an error, cut where it is long."""
    if isinstance(value, str):  # written in one piece
        value = value[: _MAX_VALUE_TEXT + 1]
    text = ""
    for piece in _ENCODER.iterencode(value):
        text += piece
        if len(text) > _MAX_VALUE_TEXT:
            return text[:_MAX_VALUE_TEXT] + "..."
    return text


def is_base64(value: Any) -> bool:
    """It is `{"b64": "..."}`: bytes."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: Any) -> bytes:
    """Return the bytes of `{"b64": "..."}`.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if not is_base64(value):
        raise invalid_argument(f"JSON Value: {value_text(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    text = "".join(text.split()).rstrip("=")  # line breaks and missing padding are allowed
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise invalid_argument("Unable to base64 decode") from error


def to_array(value: Any, spec: TensorSpec, *, may_hold_bools: bool) -> Array:
    """Return a JSON value (a scalar, or lists of one shape) as an array of the spec's dtype.

    Args:
        value: The value.
        spec: What the signature says of the tensor.
        may_hold_bools: The body holds `true` or `false`, which numpy would take for numbers.

    Raises:
        StatusError: INVALID_ARGUMENT: what is wrong with which element.
    """
    if spec.dtype in _INTEGERS or spec.dtype in _FLOATS:
        array = None if may_hold_bools else _numbers(value, spec.dtype)
        if array is not None:
            return array
    return _walked(value, spec.dtype)


def batch_to_array(values: Sequence[Any], spec: TensorSpec, *, may_hold_bools: bool) -> Array:
    """Return row values, one per instance, as one array with a first dimension of instances.

    Raises:
        StatusError: INVALID_ARGUMENT: naming the instance; the caller adds where it stood.
    """
    if (spec.dtype in _INTEGERS or spec.dtype in _FLOATS) and not may_hold_bools:
        array = _numbers(list(values), spec.dtype)
        if array is not None:
            return array
    rows: list[Array] = []
    for place, value in enumerate(values):
        try:
            row = _walked(value, spec.dtype)
            if rows and row.size != rows[0].size:
                raise invalid_argument(f"Expecting tensor size: {rows[0].size} but got: {row.size}")
            if rows and row.shape != rows[0].shape:
                raise invalid_argument(f"Expecting shape {_shape(rows[0])} but got: {_shape(row)}")
        except StatusError as error:
            raise InstanceError(place, error) from error
        rows.append(row)
    stacked = np.empty((len(rows), *rows[0].shape), dtype=rows[0].dtype)
    for place, row in enumerate(rows):
        stacked[place] = row if row.shape else row[()]
    return stacked


class InstanceError(StatusError):
    """One instance of several is wrong."""

    def __init__(self, place: int, cause: StatusError) -> None:
        super().__init__(cause.code, cause.text)
        self.args = (place, cause)
        self.place = place


def _shape(array: Array) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


def _numbers(value: Any, dtype: int) -> Array | None:
    """Return numbers the fast way, or None where anything about them needs a closer look."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        return None
    if array.dtype.kind not in "iuf" or array.ndim >= MAX_RANK:
        return None
    if dtype in _INTEGERS:
        low, high = _INTEGERS[dtype]
        if array.size == 0 and array.dtype.kind == "f":
            return array.astype(NUMPY_OF[dtype])
        if array.dtype.kind == "f" or int(array.min()) < low or int(array.max()) > high:
            return None
        return array.astype(NUMPY_OF[dtype])
    digits, _ = _FLOATS[dtype]
    if array.size:
        if array.dtype.kind in "iu":
            if max(abs(int(array.min())), abs(int(array.max()))) >= 1 << digits:
                return None
        else:
            biggest = np.abs(array).max()
            if not np.isfinite(biggest) or biggest >= 1 << digits:  # whole numbers may have been among them
                return None
    return array.astype(NUMPY_OF[dtype])


def _walked(value: Any, dtype: int) -> Array:
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        if not inner:
            break
        inner = inner[0]
    if len(shape) >= MAX_RANK:  # a batch adds a dimension
        raise invalid_argument(f"Encountered lists in {len(shape)} levels, expected less than {MAX_RANK}")
    leaves: list[Any] = []
    _walk(value, 0, shape, dtype, leaves)
    array: Array = np.empty(len(leaves), dtype=NUMPY_OF[dtype])
    if dtype in _INTEGERS and np.dtype(NUMPY_OF[dtype]).itemsize < 4:
        array[:] = np.array(leaves, dtype=np.int32).astype(NUMPY_OF[dtype])
    else:
        array[:] = leaves
    return array.reshape(shape)


def _walk(value: Any, level: int, shape: Sequence[int], dtype: int, leaves: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {value_text(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        leaves.append(_leaf(value, dtype))
        return
    if level >= len(shape):
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for element in value:
        _walk(element, level + 1, shape, dtype, leaves)


def _leaf(value: Any, dtype: int) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if dtype == DataType.STRING:
        if isinstance(value, dict):
            return decode_base64(value)
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
    elif dtype == DataType.BOOL:
        if isinstance(value, bool):
            return value
    elif dtype in _INTEGERS:
        low, high = _INTEGERS[dtype]
        if is_number and isinstance(value, int) and low <= value <= high:
            return value
    elif dtype in _FLOATS:
        if is_number:
            return _float(value, dtype)
    else:
        raise StatusError(
            Code.UNIMPLEMENTED,
            f"Conversion of JSON Value: {value_text(value)} to type: {dtype_name(dtype)}",
        )
    raise invalid_argument(
        f"JSON Value: {value_text(value)} Type: {type_name(value)} "
        f"is not of expected type: {dtype_name(dtype)}"
    )


def _float(value: float, dtype: int) -> float:
    digits, largest = _FLOATS[dtype]
    is_exact = abs(value) < 1 << digits if isinstance(value, int) else abs(value) <= largest
    if is_exact or (isinstance(value, float) and not math.isfinite(value)):
        return float(value)
    name = "double" if dtype == DataType.DOUBLE else "float"
    raise invalid_argument(
        f"Cannot convert JSON value: {value_text(value)} to {name} without loss of precision."
    )


def type_name(value: Any) -> str:
    """Return the JSON type of a value, as errors name it."""
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    names: Mapping[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")
