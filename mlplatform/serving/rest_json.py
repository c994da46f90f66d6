"""Requests and answers of the REST API: row and column predict, classify, regress, status, metadata."""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import google.protobuf
import numpy as np
import orjson
from google.protobuf import json_format
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, input_pb2, regression_pb2

from mlplatform.serving.inference import SIGNATURE_FIELD, with_defaults
from mlplatform.serving.json_values import (
    InstanceError,
    batch_to_array,
    decode_base64,
    is_base64,
    to_array,
    type_name,
    value_text,
)
from mlplatform.serving.servable import Signature
from mlplatform.serving.status import Code, StatusError, invalid_argument, limited
from mlplatform.serving.tensors import Array, DataType, dtype_name, enum_of

_TOKENS = {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}

_DEFAULTS_OPTION = (
    "including_default_value_fields"
    if int(google.protobuf.__version__.split(".")[0]) < 5
    else "always_print_fields_with_no_presence"
)
_PRINT: dict[str, Any] = {"preserving_proto_field_name": True, _DEFAULTS_OPTION: True}


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the signature that a request names, or an empty text.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {value_text(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return _checked_name(name)


def _checked_name(name: str) -> str:
    """Return a name that a message can hold: JSON can write half of a pair of surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise invalid_argument(f"{value_text(name)} is no text: {error.reason}") from error
    return name


def predict_inputs(
    document: Mapping[str, Any], signature: Signature, *, may_hold_bools: bool
) -> tuple[dict[str, Array], bool]:
    """Return the inputs of a predict request, and whether it is in row format (`instances`).

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if not signature.inputs:
        raise invalid_argument(f"Failed to get input map for signature: {signature.name}")
    if "instances" in document:
        if "inputs" in document:
            raise invalid_argument(
                f"JSON Value: {value_text(document)} Not formatted correctly expecting only "
                "one of 'inputs' or 'instances' keys to exist "
            )
        return _rows(document, signature, may_hold_bools=may_hold_bools), True
    if "inputs" not in document:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    return _columns(document["inputs"], signature, may_hold_bools=may_hold_bools), False


def _rows(document: Mapping[str, Any], signature: Signature, *, may_hold_bools: bool) -> dict[str, Array]:
    instances = document["instances"]
    if not isinstance(instances, list):
        raise invalid_argument(
            f"JSON Value: {value_text(document)} Excepting 'instances' to be an list/array"
        )
    if not instances:
        raise invalid_argument(f"JSON Value: {value_text(document)} No values in 'instances' array")
    if not isinstance(instances[0], dict) and len(signature.inputs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    if _is_named(instances[0]):
        return _named_rows(instances, signature, may_hold_bools=may_hold_bools)
    for place, instance in enumerate(instances):
        if _is_named(instance):
            raise invalid_argument(f"Expecting value/list but got object at item {place} of input list")
    name, spec = next(iter(signature.inputs.items()))
    try:
        return {name: batch_to_array(instances, spec, may_hold_bools=may_hold_bools)}
    except InstanceError as error:
        raise invalid_argument(
            f"Failed to process element: {error.place} of 'instances' list. "
            f"Error: {error.code.name}: {error.text}"
        ) from error


def _named_rows(instances: Sequence[Any], signature: Signature, *, may_hold_bools: bool) -> dict[str, Array]:
    wanted = set(signature.inputs)
    for place, instance in enumerate(instances):
        if not _is_named(instance):
            raise invalid_argument(f"Expecting object but got list at item {place} of input list")
        if wanted - set(signature.defaults) <= set(instance) <= wanted:
            continue
        unknown = next((key for key in instance if key not in wanted), None)
        if unknown is not None:
            raise invalid_argument(
                f"Failed to process element: {place} key: {unknown} of 'instances' list. Error: "
                f"INVALID_ARGUMENT: JSON object: does not have named input: {unknown}"
            )
        raise invalid_argument(
            f"Failed to process element: {place} of 'instances' list. "
            f"JSON object: {value_text(instance)} keys must be equal to: {','.join(sorted(wanted))}"
        )
    inputs = {}
    for name, spec in signature.inputs.items():
        try:
            default = signature.defaults.get(name, b"").decode()
            values = [instance.get(name, default) for instance in instances]
            inputs[name] = batch_to_array(values, spec, may_hold_bools=may_hold_bools)
        except InstanceError as error:
            raise invalid_argument(
                f"Failed to process element: {error.place} key: {name} of 'instances' list. "
                f"Error: {error.code.name}: {error.text}"
            ) from error
    return inputs


def _columns(value: Any, signature: Signature, *, may_hold_bools: bool) -> dict[str, Array]:
    if not _is_named(value):
        if len(signature.inputs) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        name, spec = next(iter(signature.inputs.items()))
        return {name: to_array(value, spec, may_hold_bools=may_hold_bools)}
    inputs = {}
    for name, spec in signature.inputs.items():
        if name in value:
            inputs[name] = to_array(value[name], spec, may_hold_bools=may_hold_bools)
        elif name not in signature.defaults:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return with_defaults(signature, inputs)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def predict_answer(outputs: Mapping[str, Array], *, is_row: bool) -> bytes:
    """Return the answer to a predict request: `predictions` for rows, `outputs` for columns.

    Raises:
        StatusError: INVALID_ARGUMENT: the outputs have no rows, or do not fit JSON.
    """
    if is_row:
        return _dumps({"predictions": _row_values(outputs)})
    values = {name: _jsonable(_plain(name, outputs[name])) for name in sorted(outputs)}
    return _dumps({"outputs": values if len(values) > 1 else next(iter(values.values()))})


def _row_values(outputs: Mapping[str, Array]) -> Any:
    rows: int | None = None
    for name in sorted(outputs):
        if outputs[name].ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        found = outputs[name].shape[0]
        if rows is not None and found != rows:
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {found} expecting: {rows}"
            )
        rows = found
    values = {name: _plain(name, outputs[name]) for name in sorted(outputs)}
    if len(values) == 1:
        return _jsonable(next(iter(values.values())))
    return [{name: _jsonable(value[row]) for name, value in values.items()} for row in range(rows or 0)]


def _plain(name: str, array: Array) -> Any:
    """Return texts as nested lists, and numbers as an array of a dtype that orjson writes."""
    if array.dtype == np.object_:
        convert = _as_base64 if name.endswith("_bytes") else _as_text
        flat = np.empty(array.size, dtype=np.object_)
        flat[:] = [convert(value) for value in array.ravel().tolist()]
        return flat.reshape(array.shape).tolist() if array.ndim else flat[0]
    if array.dtype.kind == "c":
        raise invalid_argument(f"Failed to write JSON value for tensor type: {dtype_name(enum_of(array))}")
    if enum_of(array) in (DataType.HALF, DataType.BFLOAT16):
        array = array.astype(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _jsonable(value: Any) -> Any:
    """Return what orjson writes as TensorFlow Serving would: NaN and Infinity are tokens, not null."""
    if not isinstance(value, (np.ndarray, np.floating)) or value.dtype.kind != "f":
        return value
    is_finite = np.isfinite(value)
    if is_finite.all():
        return value
    tokens = iter([_TOKENS[str(number)] for number in np.asarray(value)[~is_finite].tolist()])
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.Fragment(re.sub(b"null", lambda _: next(tokens), text))


def _as_base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode("ascii")}


def _as_text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _dumps(document: Any) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def examples_input(document: Mapping[str, Any]) -> input_pb2.Input:
    """Return the Examples of a classify or regress request.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    message = input_pb2.Input()
    has_context = "context" in document
    if has_context:
        _fill_example(message.example_list_with_context.context, document["context"])
    if "examples" not in document:
        raise invalid_argument(
            f"JSON Value: {value_text(document)} When method is classify, key 'examples' "
            "is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid_argument(
            f"JSON Value: {value_text(document)} Expecting 'examples' value to be an list/array"
        )
    if not examples:
        raise invalid_argument(f"JSON Value: {value_text(document)} 'examples' value is an empty array")
    target = message.example_list_with_context if has_context else message.example_list
    for example in examples:
        _fill_example(target.examples.add(), example)
    return message


def _fill_example(example: example_pb2.Example, value: Any) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(value)}")
    for name, content in value.items():
        feature = example.features.feature[_checked_name(name)]
        for element in content if isinstance(content, list) else [content]:
            _add_to_feature(feature, name, element)


def _add_to_feature(feature: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        kind, converted = "int64_list", int(value)
    elif isinstance(value, float):
        if math.isfinite(value) and abs(value) > float(np.finfo(np.float32).max):
            raise invalid_argument(
                f"Cannot convert JSON value: {value_text(value)} to float without loss of precision."
            )
        kind, converted = "float_list", value  # type: ignore[assignment]
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise invalid_argument(f"Feature: {name} has uint64 element. Only int64 is supported.")
        kind, converted = "int64_list", value
    elif isinstance(value, str):
        kind, converted = "bytes_list", value.encode("utf-8", "surrogatepass")  # type: ignore[assignment]
    elif is_base64(value):
        kind, converted = "bytes_list", decode_base64(value)  # type: ignore[assignment]
    else:
        raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {type_name(value)}")
    held = feature.WhichOneof("kind")
    if held not in (None, kind):
        raise invalid_argument(
            f"Unexpected element type in feature: {name} expecting type: {held.removesuffix('_list')}"
        )
    getattr(feature, kind).value.append(converted)


def classify_answer(result: classification_pb2.ClassificationResult) -> bytes:
    """Return the answer to a classify request: `[label, score]` pairs of each Example."""
    results = [
        [[c.label, _jsonable(np.float32(c.score))] for c in found.classes] for found in result.classifications
    ]
    return _dumps({"results": results})


def regress_answer(result: regression_pb2.RegressionResult) -> bytes:
    """Return the answer to a regress request: one value of each Example."""
    values = np.array([found.value for found in result.regressions], np.float32)
    return _dumps({"results": _jsonable(values)})


def status_answer(response: Any) -> bytes:
    """Return a GetModelStatusResponse in JSON."""
    return json_format.MessageToJson(response, **_PRINT).encode()


def metadata_answer(response: get_model_metadata_pb2.GetModelMetadataResponse) -> bytes:
    """Return a GetModelMetadataResponse in JSON, its signatures unpacked."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[SIGNATURE_FIELD].Unpack(signatures)
    document = {
        "model_spec": json_format.MessageToDict(response.model_spec, **_PRINT),
        "metadata": {SIGNATURE_FIELD: json_format.MessageToDict(signatures, **_PRINT)},
    }
    return json.dumps(document, indent=1).encode()


def error_answer(error: StatusError) -> bytes:
    """Return an error in JSON."""
    text = limited(error.text) or Code(error.code).name
    return json.dumps({"error": text}, ensure_ascii=False).encode("utf-8", "replace")


def signature_missing(name: str) -> StatusError:
    """Return REST predict's error for a signature that is not there."""
    return invalid_argument(f'Serving signature name: "{name}" not found in signature def')
