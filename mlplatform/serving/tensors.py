"""Between TensorProto and numpy, without TensorFlow's own (slower) converters.

Answers use the typed field of their dtype (`float_val`, `int_val`, ...), as TensorFlow Serving does.
"""

import math
from enum import IntEnum
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from mlplatform.serving.status import Code, StatusError, invalid_argument

Array = npt.NDArray[Any]


class DataType(IntEnum):
    """TensorFlow's numbers of the dtypes that a tensor in a message can have."""

    FLOAT = 1
    DOUBLE = 2
    INT32 = 3
    UINT8 = 4
    INT16 = 5
    INT8 = 6
    STRING = 7
    COMPLEX64 = 8
    INT64 = 9
    BOOL = 10
    BFLOAT16 = 14
    UINT16 = 17
    COMPLEX128 = 18
    HALF = 19
    UINT32 = 22
    UINT64 = 23


NUMPY_OF: dict[int, Any] = {
    DataType.FLOAT: np.float32,
    DataType.DOUBLE: np.float64,
    DataType.INT32: np.int32,
    DataType.UINT8: np.uint8,
    DataType.INT16: np.int16,
    DataType.INT8: np.int8,
    DataType.STRING: np.object_,
    DataType.COMPLEX64: np.complex64,
    DataType.INT64: np.int64,
    DataType.BOOL: np.bool_,
    DataType.BFLOAT16: ml_dtypes.bfloat16,
    DataType.UINT16: np.uint16,
    DataType.COMPLEX128: np.complex128,
    DataType.HALF: np.float16,
    DataType.UINT32: np.uint32,
    DataType.UINT64: np.uint64,
}
_ENUM_OF = {np.dtype(numpy_type): enum for enum, numpy_type in NUMPY_OF.items()}

_FIELD_OF: dict[int, str] = {
    DataType.FLOAT: "float_val",
    DataType.DOUBLE: "double_val",
    DataType.INT32: "int_val",
    DataType.UINT8: "int_val",
    DataType.INT16: "int_val",
    DataType.INT8: "int_val",
    DataType.UINT16: "int_val",
    DataType.STRING: "string_val",
    DataType.COMPLEX64: "scomplex_val",
    DataType.INT64: "int64_val",
    DataType.BOOL: "bool_val",
    DataType.BFLOAT16: "half_val",
    DataType.COMPLEX128: "dcomplex_val",
    DataType.HALF: "half_val",
    DataType.UINT32: "uint32_val",
    DataType.UINT64: "uint64_val",
}
_HALVES = (DataType.HALF, DataType.BFLOAT16)
_COMPLEX: dict[int, Any] = {DataType.COMPLEX64: np.float32, DataType.COMPLEX128: np.float64}

MAX_FILLED_BYTES = 16 << 20
MAX_RANK = 32  # numpy's before 2.0
_TEXT_BYTES = 1024  # that a repeated text counts beside its length: each becomes a row, or an image


class Filling:
    """What is filled in for the caller of one request: a few bytes can declare tensors of any size."""

    def __init__(self, limit: int = MAX_FILLED_BYTES) -> None:
        self._left = limit

    def take(self, count: int, bytes_each: int, alias: str) -> None:
        """Take the bytes of `count` elements.

        Raises:
            StatusError: INVALID_ARGUMENT: more than is filled in.
        """
        self._left -= count * bytes_each
        if self._left < 0:
            raise invalid_argument(f"tensor parsing error: {alias}")


def dtype_name(enum: int) -> str:
    """Return TensorFlow's short name of a dtype: `float`, `int32`, `string`."""
    return DataType(enum).name.lower() if enum in NUMPY_OF else f"dtype {enum}"


def enum_of(array: Array) -> int:
    """Return the DataType of an array; texts and bytes are DT_STRING.

    Raises:
        StatusError: UNIMPLEMENTED: messages have no field for its dtype.
    """
    if array.dtype.kind in "SUO":
        return int(DataType.STRING)
    if array.dtype not in _ENUM_OF:
        raise StatusError(Code.UNIMPLEMENTED, f"tensors of dtype {array.dtype} do not travel")
    return _ENUM_OF[array.dtype]


def to_array(proto: Any, alias: str, filling: Filling | None = None) -> Array:
    """Return the values of a TensorProto; shares its bytes where it can (then read-only).

    Args:
        proto: The tensor, in `tensor_content` or in typed values. Fewer typed values than elements repeat the
            last one, as TensorFlow reads them.
        alias: The input's name, for the error.
        filling: What may be filled in, shared by the inputs of one request; default: as much for this alone.

    Raises:
        StatusError: INVALID_ARGUMENT: unknown dtype or shape, or values that do not fill the shape.
    """
    filling = filling or Filling()
    enum = proto.dtype
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    is_shape = not proto.tensor_shape.unknown_rank and len(shape) <= MAX_RANK and min(shape, default=0) >= 0
    if enum not in NUMPY_OF or not is_shape:
        raise invalid_argument(f"tensor parsing error: {alias}")
    count = math.prod(shape)
    dtype = np.dtype(NUMPY_OF[enum])
    content = proto.tensor_content
    if content and enum != DataType.STRING:
        if len(content) != count * dtype.itemsize:
            raise invalid_argument(f"tensor parsing error: {alias}")
        return _reshaped(np.frombuffer(content, dtype=dtype), shape, alias)
    if count == 0:  # no values, but a model may make as many rows of it as it declares
        filling.take(math.prod(size for size in shape if size), dtype.itemsize, alias)
    values = getattr(proto, _FIELD_OF[enum])
    array = _from_values(values, enum, dtype, alias)
    if len(array) > count:
        raise invalid_argument(f"tensor parsing error: {alias}")
    if len(array) < count:
        filler = array[-1] if len(array) else (b"" if enum == DataType.STRING else dtype.type(0))
        bytes_each = _TEXT_BYTES + len(filler) if enum == DataType.STRING else dtype.itemsize
        filling.take(count - len(array), bytes_each, alias)
        filled = np.full(count, filler, dtype=dtype)
        filled[: len(array)] = array
        array = filled
    return _reshaped(array, shape, alias)


def _reshaped(array: Array, shape: tuple[int, ...], alias: str) -> Array:
    try:
        return array.reshape(shape)
    except ValueError as error:  # a size of zero beside sizes that overflow
        raise invalid_argument(f"tensor parsing error: {alias}") from error


def _from_values(values: Any, enum: int, dtype: "np.dtype[Any]", alias: str) -> Array:
    # Not np.array, which makes a list of Python's numbers first.
    if enum in _HALVES:
        return np.fromiter(values, np.uint16, len(values)).view(dtype)
    if enum in _COMPLEX:
        if len(values) % 2:
            raise invalid_argument(f"tensor parsing error: {alias}")
        return np.fromiter(values, _COMPLEX[enum], len(values)).view(dtype)
    if enum == DataType.STRING:
        array = np.empty(len(values), dtype=np.object_)
        array[:] = values
        return array
    if dtype.itemsize < 4 and dtype.kind in "iu":
        return np.fromiter(values, np.int32, len(values)).astype(dtype)
    return np.fromiter(values, dtype, len(values))


def fill_proto(proto: Any, array: Array) -> None:
    """Write an array into an empty TensorProto, in the typed field of its dtype."""
    enum = enum_of(array)
    proto.dtype = enum
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    flat = array.ravel()
    if enum == DataType.STRING:
        proto.string_val.extend(v.encode() if isinstance(v, str) else bytes(v) for v in flat.tolist())
    elif enum in _HALVES:
        proto.half_val.extend(flat.view(np.uint16).tolist())
    elif enum in _COMPLEX:
        getattr(proto, _FIELD_OF[enum]).extend(flat.view(_COMPLEX[enum]).tolist())
    else:
        getattr(proto, _FIELD_OF[enum]).extend(flat.tolist())


def fill_content(proto: Any, array: Array) -> None:
    """Write an array into an empty TensorProto as raw content: what a client sends, cheapest to read."""
    enum = enum_of(array)
    if enum == DataType.STRING:
        fill_proto(proto, array)
        return
    proto.dtype = enum
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    proto.tensor_content = array.tobytes()
