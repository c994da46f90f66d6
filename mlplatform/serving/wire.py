"""The messages of TensorFlow Serving's gRPC API that a client needs, without TensorFlow.

`tensorflow-serving-api` imports the whole of TensorFlow. These messages carry the same names, numbers and
types, so that the bytes are the same; they live in a pool of their own and do not meet TensorFlow's.
"""

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
# What parsing raises of bytes that are not the message: protobuf 3.20 leaves some of its own errors set and
# raises SystemError then.
PARSE_ERRORS = (DecodeError, SystemError)

_Field = descriptor_pb2.FieldDescriptorProto
_STRING, _BYTES, _BOOL = _Field.TYPE_STRING, _Field.TYPE_BYTES, _Field.TYPE_BOOL
_INT32, _INT64 = _Field.TYPE_INT32, _Field.TYPE_INT64
_UINT32, _UINT64 = _Field.TYPE_UINT32, _Field.TYPE_UINT64
_FLOAT, _DOUBLE = _Field.TYPE_FLOAT, _Field.TYPE_DOUBLE

# message -> field -> (number, type, is repeated); a map is written as its entries.
_MESSAGES: dict[str, dict[str, tuple[int, int | str, bool]]] = {
    "Dim": {"size": (1, _INT64, False)},
    "TensorShape": {"dim": (2, "Dim", True), "unknown_rank": (3, _BOOL, False)},
    "Tensor": {
        "dtype": (1, _INT32, False),  # an enum, which is an int32 on the wire
        "tensor_shape": (2, "TensorShape", False),
        "tensor_content": (4, _BYTES, False),
        "float_val": (5, _FLOAT, True),
        "double_val": (6, _DOUBLE, True),
        "int_val": (7, _INT32, True),
        "string_val": (8, _BYTES, True),
        "scomplex_val": (9, _FLOAT, True),
        "int64_val": (10, _INT64, True),
        "bool_val": (11, _BOOL, True),
        "dcomplex_val": (12, _DOUBLE, True),
        "half_val": (13, _INT32, True),
        "uint32_val": (16, _UINT32, True),
        "uint64_val": (17, _UINT64, True),
    },
    "NamedTensor": {"key": (1, _STRING, False), "value": (2, "Tensor", False)},
    "Version": {"value": (1, _INT64, False)},
    "ModelSpec": {
        "name": (1, _STRING, False),
        "version": (2, "Version", False),
        "signature_name": (3, _STRING, False),
        "version_label": (4, _STRING, False),
    },
    "PredictRequest": {
        "model_spec": (1, "ModelSpec", False),
        "inputs": (2, "NamedTensor", True),
        "output_filter": (3, _STRING, True),
    },
    "PredictResponse": {"outputs": (1, "NamedTensor", True), "model_spec": (2, "ModelSpec", False)},
    "MetadataRequest": {
        "model_spec": (1, "ModelSpec", False),
        "metadata_field": (2, _STRING, True),
    },
    "MetadataResponse": {"metadata": (2, "NamedAny", True)},
    "NamedAny": {"key": (1, _STRING, False), "value": (2, "Any", False)},
    "Any": {"value": (2, _BYTES, False)},
    "SignatureDefMap": {"signature_def": (1, "NamedSignature", True)},
    "NamedSignature": {"key": (1, _STRING, False), "value": (2, "Signature", False)},
    "Signature": {
        "inputs": (1, "NamedInfo", True),
        "outputs": (2, "NamedInfo", True),
        "method_name": (3, _STRING, False),
    },
    "NamedInfo": {"key": (1, _STRING, False), "value": (2, "TensorInfo", False)},
    "TensorInfo": {"dtype": (2, _INT32, False), "tensor_shape": (3, "TensorShape", False)},
    "StatusRequest": {"model_spec": (1, "ModelSpec", False)},
    "Status": {"error_code": (1, _INT32, False), "error_message": (2, _STRING, False)},
    "VersionStatus": {
        "version": (1, _INT64, False),
        "state": (2, _INT32, False),
        "status": (3, "Status", False),
    },
    "StatusResponse": {"model_version_status": (1, "VersionStatus", True)},
}
_PACKAGE = "mlplatform.serving.wire"


@cache
def message(name: str) -> Any:
    """Return a message class by the name it has in this module."""
    return message_class(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"), _pool())


def message_class(descriptor: Any, pool: Any) -> Any:
    """Return the class of a described message, with any version of protobuf."""
    factory: Any = message_factory
    if hasattr(factory, "GetMessageClass"):
        return factory.GetMessageClass(descriptor)
    return factory.MessageFactory(pool).GetPrototype(descriptor)  # protobuf before 4.22


@cache
def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="wire.proto", package=_PACKAGE, syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for field_name, (number, kind, is_repeated) in fields.items():
            label = _Field.LABEL_REPEATED if is_repeated else _Field.LABEL_OPTIONAL
            field = described.field.add(name=field_name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = kind  # type: ignore[assignment]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool
