"""gRPC Predict."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import predict_pb2

pytestmark = pytest.mark.e2e

FIELD_OF = {
    "float": "float_val",
    "double": "double_val",
    "int32": "int_val",
    "int16": "int_val",
    "int8": "int_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "half": "half_val",
    "bfloat16": "half_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "string": "string_val",
}
NAME_IN_TF = {"float": "float32", "double": "float64", "half": "float16"}


def predict(model: str, inputs: dict[str, Any], signature: str = "", **spec: Any) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    request.output_filter.extend(spec.get("outputs", ()))
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(value if isinstance(value, TensorProto) else tensor(value))
    return request


def tensor(value: Any, dtype: Any = tf.float32) -> Any:
    return tf.make_tensor_proto(value, dtype=dtype)


class TestValues:
    @pytest.mark.parametrize("dtype", sorted(FIELD_OF))
    def test_every_dtype_comes_back_in_its_own_field(self, stub: Any, dtype: str) -> None:
        tf_type = tf.as_dtype(NAME_IN_TF.get(dtype, dtype))
        values: list[Any] = [1, 0, 1]
        if dtype == "string":
            values = [b"cat", b"", b"\x00\xff"]
        if dtype == "bool":
            values = [True, False, True]
        sent = tensor(values, tf_type)
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "everything", f"same_{dtype}"
        request.inputs["x"].CopyFrom(sent)
        found = stub.Predict(request).outputs["y"]
        assert found.dtype == tf_type.as_datatype_enum
        assert not found.tensor_content
        assert len(getattr(found, FIELD_OF[dtype])) == (6 if dtype.startswith("complex") else 3)
        assert np.array_equal(tf.make_ndarray(found), tf.make_ndarray(sent))

    def test_typed_values_and_raw_content_mean_the_same(self, stub: Any) -> None:
        raw = tensor([[1.0, 2.0], [3.0, 4.0]])
        assert raw.tensor_content
        typed = TensorProto()
        typed.CopyFrom(raw)
        typed.tensor_content = b""
        typed.float_val.extend([1, 2, 3, 4])
        answers = [stub.Predict(predict("everything", {"x": t})).outputs["y"].float_val for t in (raw, typed)]
        assert answers[0] == answers[1] == [7, 10, 15, 22]

    def test_one_value_fills_a_shape(self, stub: Any) -> None:
        proto = TensorProto(dtype=1, float_val=[1.0])
        for size in (2, 2):
            proto.tensor_shape.dim.add().size = size
        assert list(stub.Predict(predict("everything", {"x": proto})).outputs["y"].float_val) == [4, 6, 4, 6]

    def test_model_spec_is_filled_in(self, stub: Any) -> None:
        spec = stub.Predict(predict("half_plus_two", {"x": [[2.0]]})).model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == (
            "half_plus_two",
            123,
            "serving_default",
        )

    def test_leading_zeros_of_a_version_folder(self, stub: Any) -> None:
        answer = stub.Predict(predict("half_plus_two", {"x": [[2.0]]}, version=123))
        assert list(answer.outputs["y"].float_val) == [3.0]

    def test_keras(self, stub: Any) -> None:
        (name,) = _input_names(stub, "keras")  # Keras chooses it
        x = np.array([[1.0, -2.0, 0.5], [0.25, 0.0, 4.0]], np.float32)
        (output,) = stub.Predict(predict("keras", {name: x})).outputs.values()
        keras.utils.set_random_seed(1)
        layer = keras.layers.Dense(2)  # as the model was made
        assert np.allclose(tf.make_ndarray(output), layer(x), atol=1e-5)

    def test_state_is_kept_and_no_inputs_are_fine(self, stub: Any) -> None:
        first, second = (
            stub.Predict(predict("everything", {}, "count")).outputs["calls"].int64_val[0] for _ in range(2)
        )
        assert second == first + 1

    def test_scalar_input(self, stub: Any) -> None:
        answer = stub.Predict(predict("everything", {"x": 3.0}, "scalar")).outputs["y"]
        assert list(answer.float_val) == [4.0]
        assert not answer.tensor_shape.dim

    def test_two_inputs_are_not_mixed_up(self, stub: Any) -> None:
        outputs = stub.Predict(predict("everything", {"a": [5.0], "b": [2.0]}, "two")).outputs
        assert {n: list(o.float_val) for n, o in outputs.items()} == {
            "difference": [3.0],
            "a_again": [5.0],
            "zeros": [0.0],
        }

    def test_strings_and_a_table(self, stub: Any) -> None:
        request = predict("everything", {"text": tensor([b"cat", b"dog", b"cow"], tf.string)}, "texts")
        outputs = stub.Predict(request).outputs
        assert list(outputs["code"].int64_val) == [1, 2, -1]
        assert list(outputs["upper"].string_val) == [b"CAT", b"DOG", b"COW"]

    @pytest.mark.parametrize("signature", ["classify_x_to_y", "regress_x_to_y"])
    def test_predict_on_classify_and_regress_signatures(self, stub: Any, signature: str) -> None:
        example = tf.train.Example()
        example.features.feature["x"].float_list.value.append(2.0)
        sent = tensor([example.SerializeToString()], tf.string)
        answer = stub.Predict(predict("half_plus_two", {"inputs": sent}, signature))
        (output,) = answer.outputs.values()
        assert list(output.float_val) == [3.0]
        assert answer.model_spec.signature_name == signature


class TestOutputFilter:
    def test_none_gives_all(self, stub: Any) -> None:
        answer = stub.Predict(predict("everything", {"a": [1.0], "b": [2.0]}, "two"))
        assert set(answer.outputs) == {"difference", "a_again", "zeros"}

    def test_one(self, stub: Any) -> None:
        answer = stub.Predict(predict("everything", {"a": [1.0], "b": [2.0]}, "two", outputs=["zeros"]))
        assert set(answer.outputs) == {"zeros"}

    def test_unknown(self, stub: Any, refused: Any) -> None:
        request = predict("half_plus_two", {"x": [[1.0]]}, outputs=["z"])
        assert refused(stub.Predict, request) == (
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
        )

    def test_twice(self, stub: Any, refused: Any) -> None:
        request = predict("half_plus_two", {"x": [[1.0]]}, outputs=["y", "y"])
        assert refused(stub.Predict, request) == ("INVALID_ARGUMENT", "duplicate output tensor alias: y")


class TestErrors:
    def test_no_model_spec(self, stub: Any, refused: Any) -> None:
        assert refused(stub.Predict, predict_pb2.PredictRequest()) == (
            "INVALID_ARGUMENT",
            "Missing ModelSpec",
        )

    def test_empty_name(self, stub: Any, refused: Any) -> None:
        request = predict("", {"x": [[1.0]]}, signature="s")
        assert refused(stub.Predict, request) == ("INVALID_ARGUMENT", "ModelSpec has no name specified.")

    def test_unknown_model(self, stub: Any, refused: Any) -> None:
        assert refused(stub.Predict, predict("m", {"x": [[1.0]]})) == (
            "NOT_FOUND",
            "Servable not found for request: Latest(m)",
        )

    def test_unknown_version(self, stub: Any, refused: Any) -> None:
        assert refused(stub.Predict, predict("half_plus_two", {"x": [[1.0]]}, version=99)) == (
            "NOT_FOUND",
            "Servable not found for request: Specific(half_plus_two, 99)",
        )

    def test_unknown_label(self, stub: Any, refused: Any) -> None:
        assert refused(stub.Predict, predict("half_plus_two", {"x": [[1.0]]}, label="no")) == (
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: no",
        )

    def test_unknown_signature(self, stub: Any, refused: Any) -> None:
        assert refused(stub.Predict, predict("half_plus_two", {"x": [[1.0]]}, "no")) == (
            "FAILED_PRECONDITION",
            'Serving signature key "no" not found.',
        )

    def test_no_inputs(self, stub: Any, refused: Any) -> None:
        code, text = refused(stub.Predict, predict("half_plus_two", {}))
        assert code == "INVALID_ARGUMENT"
        assert text == (
            "input size does not match signature: 0!=1 len({}) != len({x}). "
            "Sent extra: {}. Missing but required: {x}."
        )

    def test_wrong_input_name(self, stub: Any, refused: Any) -> None:
        code, text = refused(stub.Predict, predict("half_plus_two", {"z": [[1.0]]}))
        assert code == "INVALID_ARGUMENT"
        assert text == ("input tensor alias not found in signature: z. Inputs expected to be in the set {x}.")

    def test_too_many_inputs(self, stub: Any, refused: Any) -> None:
        code, text = refused(stub.Predict, predict("half_plus_two", {"x": [[1.0]], "z": [[1.0]]}))
        assert code == "INVALID_ARGUMENT"
        assert "Sent extra: {z}" in text

    def test_wrong_dtype(self, stub: Any, refused: Any) -> None:
        code, text = refused(stub.Predict, predict("half_plus_two", {"x": tensor([[1]], tf.int32)}))
        assert code == "INVALID_ARGUMENT"
        assert "float" in text
        assert "int32" in text

    def test_content_that_does_not_fill_the_shape(self, stub: Any, refused: Any) -> None:
        bad = tensor([[1.0, 2.0]])
        bad.tensor_content = bad.tensor_content[:-1]
        code, text = refused(stub.Predict, predict("everything", {"x": bad}))
        assert (code, text) == ("INVALID_ARGUMENT", "tensor parsing error: x")

    def test_a_huge_declared_shape_allocates_nothing(self, stub: Any, refused: Any, target: Any) -> None:
        if not target.is_ours:
            pytest.skip("another server may try")
        bad = TensorProto(dtype=1, float_val=[1.0])
        for size in (1 << 30, 1 << 20):
            bad.tensor_shape.dim.add().size = size
        assert refused(stub.Predict, predict("everything", {"x": bad}))[0] == "INVALID_ARGUMENT"

    @pytest.mark.parametrize(
        ("sizes", "dtype"),
        [
            ([1] * 40, 1),
            ([1] * 260, 1),
            ([0, 1 << 62, 1 << 62], 1),
            ([(1 << 63) - 1, 0], 1),
            ([1 << 24], 18),  # 256 MB of complex128 out of eleven bytes
            ([-1], 1),
            ([1], 99),
            ([1], 101),
        ],
    )
    def test_odd_shapes_and_dtypes(
        self, stub: Any, refused: Any, target: Any, sizes: list[int], dtype: int
    ) -> None:
        if not target.is_ours:
            pytest.skip("another server may try, or say it otherwise")
        bad = TensorProto(dtype=dtype)
        for size in sizes:
            bad.tensor_shape.dim.add().size = size
        found = refused(stub.Predict, predict("everything", {"x": bad}))
        assert found == ("INVALID_ARGUMENT", "tensor parsing error: x")

    def test_what_a_kernel_says(self, stub: Any, refused: Any) -> None:
        code, text = refused(stub.Predict, predict("everything", {"x": [1.0, -1.0]}, "sqrt"))
        assert code == "INVALID_ARGUMENT"
        assert text.startswith("assertion failed: [negative number in the batch]")
        code, text = refused(stub.Predict, predict("everything", {"x": [[1.0, 2.0, 3.0]]}))
        assert code == "INVALID_ARGUMENT"
        assert "Matrix size-incompatible" in text


def _input_names(stub: Any, model: str) -> list[str]:
    from tensorflow_serving.apis import get_model_metadata_pb2

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = model
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(request).metadata["signature_def"].Unpack(signatures)
    return list(signatures.signature_def["serving_default"].inputs)
