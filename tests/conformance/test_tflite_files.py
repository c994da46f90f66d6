"""`model.tflite` files: other numbers of rows than theirs, and SignatureDefs in their metadata."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from flatbuffers import flexbuffers
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils
from tensorflow_serving.apis import get_model_metadata_pb2

pytestmark = pytest.mark.e2e

CLASSIFY = "tensorflow/serving/classify"


class HalfPlusTwo(tf.Module):
    """Flattens as exporters do: a file that keeps the size of its batch mixes rows when it is resized."""

    @tf.function(input_signature=[tf.TensorSpec([1, 1], tf.float32, name="tflite_input")])
    def half(self, tflite_input: tf.Tensor) -> tf.Tensor:
        return tf.identity(0.5 * tflite_input + 2.0, name="y")

    @tf.function(input_signature=[tf.TensorSpec([1, 2, 1], tf.float32, name="pairs")])
    def sums(self, pairs: tf.Tensor) -> tf.Tensor:
        return tf.reshape(pairs, [1, -1]) @ tf.constant([[1.0], [10.0]])

    @tf.function(
        input_signature=[
            tf.TensorSpec([2, 1], tf.float32, name="a"),
            tf.TensorSpec([3], tf.float32, name="b"),
        ]
    )
    def two(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.concat([tf.reshape(a, [-1]), b], 0)


def converted(function: Any, module: Any) -> bytes:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    content: bytes = converter.convert()
    return content


def tensor_names(content: bytes) -> tuple[list[str], list[str]]:
    interpreter = tf.lite.Interpreter(model_content=content)
    return tuple(
        [d["name"] for d in details]
        for details in (  # type: ignore[return-value]
            interpreter.get_input_details(),
            interpreter.get_output_details(),
        )
    )


def signature_def(inputs: Mapping[str, str], outputs: Mapping[str, str], method: str) -> Any:
    definition = meta_graph_pb2.SignatureDef(method_name=method)
    for infos, names in ((definition.inputs, inputs), (definition.outputs, outputs)):
        for alias, name in names.items():
            infos[alias].name = name
    return definition


def with_metadata(content: bytes, data: bytes) -> bytes:
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = "signature_defs_metadata", len(model.buffers)
    buffer.data = list(data)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def with_signature_defs(content: bytes, definitions: Mapping[str, Any]) -> bytes:
    serialized = {name: definition.SerializeToString() for name, definition in definitions.items()}
    builder = flexbuffers.Builder()
    with builder.Map():
        for name, value in serialized.items():
            builder.Key(name)
            builder.Blob(value)
    return with_metadata(content, bytes(builder.Finish()))


@pytest.fixture(scope="module")
def server(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root, module = tmp_path_factory.mktemp("lite"), HalfPlusTwo()
    plain = converted(module.half, module)
    ((x,), (y,)) = tensor_names(plain)
    good = signature_def({"x": x}, {"y": y}, CLASSIFY)
    wrong = signature_def({"x": "nowhere:0"}, {"y": y}, CLASSIFY)
    contents = {
        "plain": plain,
        "sums": converted(module.sums, module),
        "two": converted(module.two, module),
        "described": with_signature_defs(plain, {"own_name": good}),
        "both": with_signature_defs(plain, {"serving_default": good, "wrong": wrong}),
    }
    entries = []
    for name, content in contents.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.tflite").write_bytes(content)
        entries.append(f'config {{ name: "{name}" base_path: "{root / name}" model_platform: "tensorflow" }}')
    (root / "models.config").write_text(f"model_config_list {{ {' '.join(entries)} }}")
    return serve(f"--model_config_file={root / 'models.config'}", "--prefer_tflite_model=true")


def only(answer: dict[str, Any]) -> Any:
    (values,) = answer.values()
    return values


@pytest.mark.parametrize("shape", [(1, 1), (1,), (), (3, 1), (3,)])
def test_rows_that_the_file_has_not(server: Any, shape: tuple[int, ...]) -> None:
    x = np.arange(2.0, 2.0 + np.prod(shape, dtype=int), dtype=np.float32)
    answer = only(server.predict("plain", {"tflite_input": x.reshape(shape)}))
    assert answer.ravel().tolist() == (0.5 * x + 2.0).tolist()


def test_each_row_is_computed_by_itself(server: Any) -> None:
    pairs = np.arange(6, dtype=np.float32).reshape(3, 2, 1)
    found = only(server.predict("sums", {"pairs": pairs}))
    assert found.tolist() == [[10.0], [32.0], [54.0]]
    answer = server.rest("/v1/models/sums:predict", {"instances": pairs.tolist()})
    assert answer.body == {"predictions": [[10.0], [32.0], [54.0]]}


def test_tensors_of_unequal_rows_as_the_file_has_them(server: Any) -> None:
    a, b = np.array([[1.0], [2.0]], np.float32), np.array([3.0, 4.0, 5.0], np.float32)
    assert only(server.predict("two", {"a": a, "b": b})).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("model", "inputs", "text"),
    [
        ("plain", {"tflite_input": (1, 2)}, "has shape [1,2], expected [1,1]"),
        ("plain", {"tflite_input": (2, 2, 1)}, "has shape [2,2,1], expected [1,1]"),
        ("plain", {"tflite_input": (0, 1)}, "has shape [0,1], expected [1,1]"),
        ("sums", {"pairs": (1, 2, 2)}, "has shape [1,2,2], expected [1,2,1]"),
        ("two", {"a": (2, 1), "b": (4,)}, "inputs need rows of one number"),
        ("plain", {"tflite_input": (5000, 1)}, "at most 4096"),
    ],
)
def test_what_rows_do_not_explain_is_refused(
    server: Any, model: str, inputs: dict[str, tuple[int, ...]], text: str
) -> None:
    if not server.is_ours:
        pytest.skip("the limits and texts are our own")
    with pytest.raises(grpc.RpcError) as caught:
        server.predict(model, {name: np.zeros(shape, np.float32) for name, shape in inputs.items()})
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert text in caught.value.details()


@pytest.mark.parametrize(
    ("model", "signature"), [("described", ""), ("described", "own_name"), ("both", "serving_default")]
)
def test_signature_defs_in_the_metadata(server: Any, model: str, signature: str) -> None:
    assert only(server.predict(model, {"x": np.array([2.0], np.float32)}, signature)).tolist() == [[3.0]]
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = model
    found = get_model_metadata_pb2.SignatureDefMap()
    server.stub.GetModelMetadata(request, timeout=30).metadata["signature_def"].Unpack(found)
    definition = found.signature_def[signature or "serving_default"]
    assert (set(definition.inputs), set(definition.outputs), definition.method_name) == (
        {"x"},
        {"y"},
        CLASSIFY,
    )
    assert [dim.size for dim in definition.inputs["x"].tensor_shape.dim] == [1, 1]


def test_a_signature_def_of_other_tensors(server: Any) -> None:
    if not server.is_ours:
        pytest.skip("TensorFlow Serving does not load such a file")
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("both", {"x": np.array([2.0], np.float32)}, "wrong")
    assert caught.value.code().name == "FAILED_PRECONDITION"
    assert "its SignatureDef names 'nowhere:0' as x, the file has" in caught.value.details()


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Whatever byte of the metadata is wrong: a model, or a clear error."""
    from mlplatform.serving.saved_model import load
    from mlplatform.serving.status import StatusError

    module = HalfPlusTwo()
    plain = converted(module.half, module)
    (tmp_path / "model.tflite").write_bytes(with_metadata(plain, b"\xff\x00\x01"))
    with pytest.raises(StatusError) as caught:
        load(tmp_path, "m", 1)
    assert f"the SignatureDefs in the metadata of {tmp_path / 'model.tflite'} cannot be read" in str(
        caught.value
    )
    definition = signature_def({"x": "tflite_input:0"}, {"y": "y:0"}, CLASSIFY).SerializeToString()
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.Key("serving_default")
        builder.Blob(definition)
    data = bytearray(builder.Finish())
    rng, texts = np.random.default_rng(7), []
    for _, place in itertools.product(range(2), range(len(data))):
        broken = bytearray(data)
        broken[place] = int(rng.integers(0, 256))
        (tmp_path / "model.tflite").write_bytes(with_metadata(plain, bytes(broken)))
        try:
            loaded = load(tmp_path, "m", 1)
        except StatusError as error:
            texts.append(str(error))
        else:
            assert loaded.signatures or loaded.faults
    assert texts
    assert all("model.tflite" in text for text in texts)
