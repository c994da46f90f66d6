"""What the other files leave open of the interfaces: Regress, MultiInference, dtypes and codes over REST."""

from typing import Any

import pytest
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

pytestmark = pytest.mark.e2e

ALL, HALF = "/v1/models/everything:predict", "/v1/models/half_plus_two"


def asked(request: Any, signature: str, **spec: Any) -> Any:
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    return request


def with_examples(request: Any, values: list[dict[str, float]], context: dict[str, float] | None) -> Any:
    examples = request.input.example_list if context is None else request.input.example_list_with_context
    for features in values:
        example = examples.examples.add()
        for name, value in features.items():
            example.features.feature[name].float_list.value.append(value)
    for name, value in (context or {}).items():
        examples.context.features.feature[name].float_list.value.append(value)
    return request


class TestRegress:
    def test_context_is_merged_and_the_example_wins(self, stub: Any) -> None:
        request = asked(regression_pb2.RegressionRequest(), "regress_x2_to_y3", version=123)
        with_examples(request, [{"x": 2}, {"x2": 4}], {"x": 1, "x2": 6})
        assert [r.value for r in stub.Regress(request).result.regressions] == [6, 5]

    def test_only_a_context(self, stub: Any, refused: Any) -> None:
        request = asked(regression_pb2.RegressionRequest(), "regress_x_to_y")
        code, text = refused(stub.Regress, with_examples(request, [], {"x": 1}))
        assert code == "INVALID_ARGUMENT"
        assert "Input is empty" in text

    def test_unknown_signature(self, stub: Any, refused: Any) -> None:
        request = with_examples(asked(regression_pb2.RegressionRequest(), "no"), [{"x": 2}], None)
        assert refused(stub.Regress, request)[0] == "INVALID_ARGUMENT"

    def test_unknown_model_and_version(self, stub: Any, refused: Any) -> None:
        request = with_examples(
            asked(regression_pb2.RegressionRequest(), "regress_x_to_y", version=99), [{"x": 2}], None
        )
        assert refused(stub.Regress, request) == (
            "NOT_FOUND",
            "Servable not found for request: Specific(half_plus_two, 99)",
        )


def test_a_signature_of_another_kind_is_an_invalid_argument(stub: Any, refused: Any) -> None:
    classify = asked(classification_pb2.ClassificationRequest(), "serving_default")
    regress = asked(regression_pb2.RegressionRequest(), "classify_x_to_y")
    for method, request in ((stub.Classify, classify), (stub.Regress, regress)):
        assert refused(method, with_examples(request, [{"x": 2}], None))[0] == "INVALID_ARGUMENT"


def test_multi_inference_of_a_version(stub: Any, refused: Any) -> None:
    def request(version: int) -> Any:
        request = inference_pb2.MultiInferenceRequest()
        for method in ("regress", "classify"):
            task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
            task.model_spec.name, task.model_spec.signature_name = "half_plus_two", f"{method}_x_to_y"
            task.model_spec.version.value = version
        return with_examples(request, [{"x": 2}, {"x": 4}], None)

    first, second = stub.MultiInference(request(123)).results
    assert [r.value for r in first.regression_result.regressions] == [3, 4]
    assert [c.classes[0].score for c in second.classification_result.classifications] == [3, 4]
    assert [r.model_spec.version.value for r in (first, second)] == [123, 123]
    assert refused(stub.MultiInference, request(9))[0] == "NOT_FOUND"


@pytest.mark.parametrize(("dtype", "values"), [("uint16", [0, 65535]), ("uint8", [0, 255])])
def test_unsigned_over_rest(target: Any, dtype: str, values: list[int]) -> None:
    for key, answer in (("instances", "predictions"), ("inputs", "outputs")):
        body = {"signature_name": f"same_{dtype}", key: values}
        assert target.rest(ALL, body).body == {answer: values}


@pytest.mark.parametrize("dtype", ["half", "bfloat16"])
def test_short_floats_over_rest(target: Any, dtype: str) -> None:
    answer = target.rest(ALL, {"signature_name": f"same_{dtype}", "instances": [0.5, -2.0]})
    if not target.is_ours and answer.status in (400, 501):
        pytest.skip("versions of TensorFlow Serving differ here")
    assert answer.body == {"predictions": [0.5, -2.0]}


def test_what_json_cannot_say_is_unimplemented(target: Any) -> None:
    answer = target.rest(ALL, {"signature_name": "same_complex64", "inputs": [1.0]})
    assert answer.status == 501
    assert "to type: complex64" in answer.error
    assert answer.content_type == "application/json"


@pytest.mark.parametrize("path", ["/versions/123", ""])
def test_metadata_and_status_of_a_version(target: Any, path: str) -> None:
    assert target.rest(f"{HALF}{path}/metadata").body["model_spec"]["version"] == "123"
    (state,) = target.rest(f"{HALF}{path}").body["model_version_status"]
    assert (state["version"], state["state"]) == ("123", "AVAILABLE")


def test_keras_computes_with_the_weights_it_was_saved_with(stub: Any, models: Any) -> None:
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    loaded = tf.saved_model.load(str(models / "keras" / "1"))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    sent = np.array([[1.0, -2.0, 0.5]], np.float32)
    (wanted,) = signature(**{name: tf.constant(sent)}).values()
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "keras"
    request.inputs[name].CopyFrom(tf.make_tensor_proto(sent))
    (found,) = stub.Predict(request).outputs.values()
    assert np.allclose(tf.make_ndarray(found), wanted.numpy(), atol=1e-6)
    assert np.abs(wanted.numpy()).max() > 0.1
