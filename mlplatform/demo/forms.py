"""What a version can be asked by a person: a form for each of its signatures, made from what it takes."""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlplatform.datasets.format.features import decode, encode, example_of, record_features
from mlplatform.demo.errors import FieldError
from mlplatform.demo.photos_seen import GivenPhoto, seen_pixels
from mlplatform.serving.client import SignatureForm, TensorForm
from mlplatform.serving.tensors import NUMPY_OF, Array, DataType

# Kinds of forms.
PHOTO, PIXELS, PHOTO_EXAMPLE = "photo", "pixels", "photo_example"  # of these a person gives a photo
EXAMPLE, COLUMNS, JSON = "example", "columns", "json"
OF_PHOTOS = (PHOTO, PIXELS, PHOTO_EXAMPLE)
IMAGE = "image/encoded"
FILTER = "filter"  # the input of searches that may be left empty (mlplatform.serving.search)
NUMBER, WHOLE, TEXT, YES_NO = "number", "whole", "text", "yes_no"

_EXAMPLE_NAMES = ("examples", "inputs", "input", "input_example_tensor", "input_examples", "serialized")
_EXAMPLE_METHODS = ("tensorflow/serving/classify", "tensorflow/serving/regress")
_MOST_FIELDS, _MOST_NUMBERS, _MOST_CHOICES = 200, 64, 100
_YES_NO = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}
_MOST_TEXT = 10_000  # characters of a field
_MOST_JSON = 1_000_000
# The first that a version has is shown first.
_FIRST = ("image_bytes", "search_image_bytes", "serving_default", "embed_image_bytes", "pixels")


@dataclass(frozen=True)
class Field:
    """A field of a form: a feature of an Example, or an input.

    Attributes:
        name: Its name.
        kind: `number`, `whole`, `text` or `yes_no`.
        count: How many values it takes; they are separated by commas.
        choices: The values that it may have; empty for any.
        value: What stands in it at first.
        is_needed: It may not be left empty.
    """

    name: str
    kind: str
    count: int = 1
    choices: tuple[str, ...] = ()
    value: str = ""
    is_needed: bool = False


@dataclass(frozen=True)
class Form:
    """What a signature is asked with.

    Attributes:
        signature: Its name.
        kind: Which kind of form.
        input: Name of its one input; empty where it has several.
        fields: The fields of `example` and `columns`.
        height: Height of the pixels of `pixels`.
        width: Their width.
        inputs: What it takes.
    """

    signature: str
    kind: str
    inputs: Mapping[str, TensorForm]
    input: str = ""
    fields: tuple[Field, ...] = ()
    height: int = 0
    width: int = 0

    @property
    def is_of_photos(self) -> bool:
        """A person gives a photo."""
        return self.kind in OF_PHOTOS

    @property
    def skeleton(self) -> str:
        """The JSON that it takes, with values to replace."""
        if self.kind in (EXAMPLE, PHOTO_EXAMPLE):
            features = {field.name: _parsed_or_text(field) for field in self.fields}
            return json.dumps({"examples": [features or {"feature": 0.0}]}, indent=1)
        return json.dumps({"inputs": {name: _blank(form) for name, form in self.inputs.items()}}, indent=1)


def make_forms(
    signatures: Mapping[str, SignatureForm], fields: Sequence[Field], *, has_photos: bool
) -> list[Form]:
    """Return a form for each signature, the one that says most first.

    Args:
        signatures: What the version can be asked.
        fields: What is known of the features of its records; none where nothing is.
        has_photos: The records hold photos, as `image/encoded`.
    """
    found = [_form(name, signature, fields, has_photos) for name, signature in signatures.items()]

    def order(form: Form) -> tuple[int, int, str]:
        place = _FIRST.index(form.signature) if form.signature in _FIRST else len(_FIRST)
        return (form.kind == JSON, place, form.signature)

    return sorted(found, key=order)


def _form(name: str, signature: SignatureForm, known: Sequence[Field], has_photos: bool) -> Form:
    inputs = {alias: form for alias, form in signature.inputs.items() if alias != FILTER}
    form = Form(name, JSON, signature.inputs)
    if len(inputs) == 1:
        ((alias, tensor),) = inputs.items()
        form = replace(form, input=alias)
        if tensor.dtype == DataType.STRING:
            if alias.startswith("image") or alias.endswith("_bytes"):
                return replace(form, kind=PHOTO)
            if alias in _EXAMPLE_NAMES or signature.method in _EXAMPLE_METHODS:
                if has_photos:
                    return replace(form, kind=PHOTO_EXAMPLE)
                return replace(form, kind=EXAMPLE if known else JSON, fields=tuple(known))
        shape = tensor.shape or ()
        is_number = tensor.dtype in (DataType.FLOAT, DataType.UINT8)
        if is_number and len(shape) == 4 and shape[3] == 3 and min(shape[1:]) > 0:
            return replace(form, kind=PIXELS, height=shape[1], width=shape[2])
    columns = {field.name: field for field in known}
    fields = [_column(alias, tensor, columns.get(alias)) for alias, tensor in signature.inputs.items()]
    whole = [field for field in fields if field is not None]
    if 0 < len(whole) == len(fields) <= _MOST_FIELDS:
        return replace(form, kind=COLUMNS, fields=tuple(whole))
    return form


def _column(name: str, form: TensorForm, known: Field | None) -> Field | None:
    """Return the field of an input; None where its values cannot be written in one."""
    kind = _kind_of(form.dtype)
    shape = _shape(form)
    if kind is None or shape is None or math.prod(shape) > _MOST_NUMBERS:
        return None
    count = math.prod(shape)
    if known is None or (known.kind != kind and not (kind == NUMBER and known.kind == WHOLE)):
        return Field(name, kind, count, is_needed=True, value=",".join(["0"] * count) if count > 1 else "")
    return Field(name, kind, count, known.choices, known.value, is_needed=True)


def _kind_of(dtype: int) -> str | None:
    if dtype == DataType.STRING:
        return TEXT
    if dtype == DataType.BOOL:
        return YES_NO
    numpy = np.dtype(NUMPY_OF.get(dtype, np.object_))
    if numpy.kind in "iu":
        return WHOLE
    return NUMBER if dtype in (DataType.FLOAT, DataType.DOUBLE, DataType.HALF) else None


def _shape(form: TensorForm) -> tuple[int, ...] | None:
    """Return the shape of one record's values; None where it is not known. What is free is a batch of one."""
    if form.shape is None:
        return (1,)
    sizes = tuple(1 if size < 0 and place == 0 else size for place, size in enumerate(form.shape))
    return sizes if all(size > 0 for size in sizes) else None


def fields_of_records(records: Sequence[bytes], hidden: Sequence[str]) -> list[Field]:
    """Return the fields of the features that some records have, filled with what the first one holds.

    Args:
        records: Serialized tf.Examples.
        hidden: Features that no client knows: the truth.
    """
    seen: dict[str, list[list[Any]]] = {}
    for record in records:
        for name, feature in record_features(record).items():
            seen.setdefault(name, []).append(list(decode(feature)))
    first = record_features(records[0]) if records else {}
    return [
        _field_of_values(name, rows, list(decode(first.get(name, b""))))
        for name, rows in sorted(seen.items())
        if name not in hidden
    ][:_MOST_FIELDS]


def _field_of_values(name: str, rows: Sequence[Sequence[Any]], first: Sequence[Any]) -> Field:
    values = [value for row in rows for value in row]
    kind = TEXT if any(isinstance(value, bytes) for value in values) else NUMBER
    if values and all(isinstance(value, int) for value in values):
        kind = WHOLE
    count = max((len(row) for row in rows), default=1)
    different = set(values) if kind == TEXT and count == 1 else set()
    repeats = len(values) >= 2 * len(different)  # else it is a free text, a photo, or an id
    choices = sorted(map(in_words, different)) if repeats and len(different) <= _MOST_CHOICES else []
    is_long = any(isinstance(value, bytes) and len(value) > _MOST_TEXT for value in first)
    return Field(name, kind, max(count, 1), tuple(choices), "" if is_long else ",".join(map(in_words, first)))


def fields_of_schema(text: bytes, known: Sequence[Field], hidden: Sequence[str]) -> list[Field]:
    """Return the fields of a schema's features, filled as the fields that are known of records are.

    Args:
        text: A Schema of TensorFlow Metadata in text form; where it is none, the known fields are returned.
        known: What records show.
        hidden: Features that no client knows: the truth.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        schema = text_format.Parse(text.decode(), schema_pb2.Schema())
    except (UnicodeDecodeError, text_format.ParseError):
        return list(known)
    kinds = {schema_pb2.BYTES: TEXT, schema_pb2.INT: WHOLE, schema_pb2.FLOAT: NUMBER}
    domains = {domain.name: tuple(domain.value) for domain in schema.string_domain}
    of_records = {field.name: field for field in known}
    found = []
    for feature in schema.feature:
        if feature.name in hidden or feature.type not in kinds:
            continue
        own = tuple(feature.string_domain.value)
        choices = own or domains.get(feature.domain, ())
        field = of_records.get(feature.name, Field(feature.name, kinds[feature.type]))
        found.append(
            replace(
                field,
                kind=kinds[feature.type],
                choices=choices if len(choices) <= _MOST_CHOICES else (),
                is_needed=feature.presence.min_fraction == 1,
            )
        )
    return found[:_MOST_FIELDS] or list(known)


def filled(form: Form, record: bytes) -> Form:
    """Return a form that is filled with the values of a record."""
    features = record_features(record)
    fields = [
        replace(field, value=",".join(in_words(value) for value in decode(features.get(field.name, b""))))
        for field in form.fields
    ]
    return replace(form, fields=tuple(fields))


def without_feature(record: bytes, name: str) -> bytes:
    """Return a record without a feature, such as the truth, which no client knows."""
    features = record_features(record)
    return example_of({key: value for key, value in features.items() if key != name}) if features else record


def ask_with_photo(form: Form, photo: GivenPhoto, pixels: Array | None = None) -> dict[str, Array]:
    """Return the inputs of a form for a photo.

    Args:
        form: One of photos.
        photo: The photo.
        pixels: uint8 (height, width, 3), where they were made already.

    Raises:
        PhotoError: It cannot be decoded.
    """
    if form.kind == PIXELS:
        found = seen_pixels(photo, form.height, form.width) if pixels is None else pixels
        dtype = NUMPY_OF[form.inputs[form.input].dtype]
        return {form.input: found[None].astype(dtype)}
    sent = photo.encoded
    if form.kind == PHOTO_EXAMPLE:
        sent = example_of({IMAGE: encode([photo.encoded])})
    return _of_photo_form(form, _texts([sent]))


def ask_with_record(form: Form, record: bytes, truth: str) -> dict[str, Array]:
    """Return the inputs of a form for a record of a dataset, of which the truth is not shown.

    Raises:
        FieldError: The record lacks what the form needs.
    """
    if form.kind in (EXAMPLE, PHOTO_EXAMPLE):
        return _of_photo_form(form, _texts([without_feature(record, truth)]))
    features = record_features(record)
    return ask_with_values(
        form, {f.name: ",".join(map(in_words, decode(features.get(f.name, b"")))) for f in form.fields}
    )


def _of_photo_form(form: Form, value: Array) -> dict[str, Array]:
    blank = {FILTER: _texts([b""])} if FILTER in form.inputs else {}
    return {form.input: value, **blank}


def ask_with_values(form: Form, values: Mapping[str, str]) -> dict[str, Array]:
    """Return the inputs of a form whose fields were filled in.

    Raises:
        FieldError: A value is missing, or not what its field asks for.
    """
    if form.kind == COLUMNS:
        return {
            field.name: _tensor(form.inputs[field.name], _values(field, values.get(field.name, "")))
            for field in form.fields
        }
    features = {}
    for field in form.fields:
        text = values.get(field.name, "")
        if text.strip() or field.is_needed:
            try:
                features[field.name] = encode(_values(field, text))
            except OverflowError as error:
                raise FieldError(field.name, text, "a number that fits its 64 or 32 bits") from error
    return {form.input: _texts([example_of(features)])}


def _values(field: Field, text: str) -> list[Any]:
    """Return the values that a text stands for, in the order in which they are written."""
    if len(text) > _MOST_TEXT:
        raise FieldError(field.name, text, f"at most {_MOST_TEXT:,} characters")
    if field.kind == TEXT and field.count == 1:
        return [text.encode("utf-8", "surrogatepass")]
    parts = [part.strip() for part in text.split(",")]
    if field.kind == TEXT:
        return [part.encode("utf-8", "surrogatepass") for part in parts]
    wanted = {NUMBER: "a number", WHOLE: "a whole number", YES_NO: "yes or no"}[field.kind]
    if field.count > 1:
        wanted = f"{field.count} values, each {wanted}, with commas between"
    found = [_value(field.kind, part) for part in parts]
    if None in found or (field.count == 1 and len(found) != 1):
        raise FieldError(field.name, text, wanted)
    return found


def _value(kind: str, text: str) -> float | int | bool | None:
    if kind == YES_NO:
        return _YES_NO.get(text.lower())
    try:
        return int(text) if kind == WHOLE else float(text)
    except ValueError:
        return None


def _tensor(form: TensorForm, values: Sequence[Any]) -> Array:
    shape = _shape(form)
    if shape is None or math.prod(shape) != len(values):
        wanted = math.prod(shape) if shape else 1
        raise FieldError("the input", ",".join(map(str, values)), f"{wanted} values with commas between")
    if form.dtype == DataType.STRING:
        return _texts(values).reshape(shape)
    dtype: Any = NUMPY_OF[form.dtype]
    try:
        with np.errstate(all="ignore"):
            array = np.asarray(values).astype(dtype)
    except (OverflowError, ValueError):
        array = None
    if array is None or (np.dtype(dtype).kind in "iu" and array.tolist() != list(values)):
        raise FieldError("the input", ",".join(map(str, values)), f"numbers that fit {np.dtype(dtype).name}")
    return array.reshape(shape)


def ask_with_json(form: Form, text: str) -> dict[str, Array]:
    """Return the inputs that a JSON document names.

    It is `{"inputs": {NAME: VALUES}}`, with `{"b64": TEXT}` for bytes; of a signature of Examples also
    `{"examples": [{FEATURE: VALUES}]}`.

    Raises:
        FieldError: It is none, or names other inputs than the signature has.
    """
    if len(text) > _MOST_JSON:
        raise FieldError("the JSON", text, f"at most {_MOST_JSON:,} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FieldError("the JSON", text, f"a JSON document ({str(error)[:80]})") from error
    if not isinstance(document, dict):
        raise FieldError("the JSON", text, 'an object, such as {"inputs": {}}')
    if isinstance(document.get("examples"), list) and form.input:
        return {form.input: _texts([_example(row) for row in document["examples"]])}
    inputs = document.get("inputs", document)
    if not isinstance(inputs, dict) or set(inputs) != set(form.inputs):
        raise FieldError("the JSON", text, f'"inputs" with a value for each of {", ".join(form.inputs)}')
    return {name: _json_tensor(name, form.inputs[name], value) for name, value in inputs.items()}


def _example(row: object) -> bytes:
    if not isinstance(row, dict):
        raise FieldError("an Example", str(row), "an object of features")
    features = {}
    for name, value in row.items():
        values = [_plain(name, each) for each in (value if isinstance(value, list) else [value])]
        if len({type(each) for each in values}) > 1:
            if any(isinstance(each, bytes) for each in values):
                raise FieldError(name, str(value), "values of one type")
            values = [float(each) for each in values]
        try:
            features[str(name)] = encode(values)
        except OverflowError as error:
            raise FieldError(name, str(value), "numbers that fit 64 bits, or float32") from error
    return example_of({name.encode("utf-8", "replace").decode(): value for name, value in features.items()})


def _plain(name: str, value: object) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and set(value) == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise FieldError(name, str(value), "bytes in base64") from error
    raise FieldError(name, str(value), 'numbers, texts, or {"b64": TEXT}')


def _json_tensor(name: str, form: TensorForm, value: Any) -> Array:
    flat: list[Any] = []
    shape = _flatten(name, value, flat, 0)
    values: list[Any] = [each if isinstance(each, bool) else _plain(name, each) for each in flat]
    if form.dtype == DataType.STRING:
        if not all(isinstance(each, bytes) for each in values):
            raise FieldError(name, str(value), 'texts, or {"b64": TEXT} for bytes')
        return _texts(values).reshape(shape)
    if any(isinstance(each, bytes) for each in values) or form.dtype not in NUMPY_OF:
        raise FieldError(name, str(value), "numbers")
    try:
        with np.errstate(all="ignore"):
            return np.asarray(values).astype(NUMPY_OF[form.dtype]).reshape(shape)
    except (OverflowError, ValueError, TypeError) as error:
        raise FieldError(name, str(value), "numbers that fit the input") from error


def _flatten(name: str, value: Any, flat: list[Any], depth: int) -> tuple[int, ...]:
    if not isinstance(value, list):
        flat.append(value)
        return ()
    if depth > 16:
        raise FieldError(name, str(value), "lists at most 16 deep")
    shapes = [_flatten(name, each, flat, depth + 1) for each in value]
    if len(set(shapes)) > 1:
        raise FieldError(name, str(value), "lists of the same length at each depth")
    return (len(value), *(shapes[0] if shapes else ()))


def _texts(values: Sequence[bytes]) -> Array:
    array = np.empty(len(values), np.object_)
    array[:] = list(values)
    return array


def _blank(form: TensorForm) -> Any:
    value: Any = {"b64": ""} if form.dtype == DataType.STRING else 0
    for size in reversed(form.shape or ()):
        value = [value] * (size if 0 < size <= _MOST_NUMBERS else 1)
    return value


def _parsed_or_text(field: Field) -> Any:
    try:
        values = _values(field, field.value)
        return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
    except FieldError:
        return []


def in_words(value: object) -> str:
    """Return a value of a feature as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return f"{value:.7g}" if isinstance(value, float) else str(value)
