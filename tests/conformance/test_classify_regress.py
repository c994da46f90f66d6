"""gRPC Classify, Regress and MultiInference."""

from typing import Any

import pytest
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

pytestmark = pytest.mark.e2e

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def asked(
    request: Any, signature: str, values: list[dict[str, float]], context: dict[str, float] | None = None
) -> Any:
    request.model_spec.name = "half_plus_two"
    request.model_spec.signature_name = signature
    fill(request.input, values, context)
    return request


def fill(message: Any, values: list[dict[str, float]], context: dict[str, float] | None = None) -> None:
    examples = message.example_list if context is None else message.example_list_with_context
    for features in values:
        example = examples.examples.add()
        for name, value in features.items():
            example.features.feature[name].float_list.value.append(value)
    for name, value in (context or {}).items():
        examples.context.features.feature[name].float_list.value.append(value)


class TestClassify:
    def test_several_examples(self, stub: Any) -> None:
        request = asked(classification_pb2.ClassificationRequest(), "classify_x_to_y", [{"x": 2}, {"x": 4}])
        answer = stub.Classify(request)
        assert [c.classes[0].score for c in answer.result.classifications] == [3, 4]
        assert answer.result.classifications[0].classes[0].label == ""
        assert answer.model_spec.signature_name == "classify_x_to_y"
        assert answer.model_spec.version.value == 123

    def test_context_is_merged_and_the_example_wins(self, stub: Any) -> None:
        request = asked(
            classification_pb2.ClassificationRequest(),
            "classify_x2_to_y3",
            [{"x": 2}, {"x2": 4}],
            {"x": 1, "x2": 6},
        )
        scores = [c.classes[0].score for c in stub.Classify(request).result.classifications]
        assert scores == [6, 5]

    @pytest.mark.parametrize("context", [None, {"x": 1.0}])
    def test_empty_input(self, stub: Any, refused: Any, context: Any) -> None:
        request = asked(classification_pb2.ClassificationRequest(), "classify_x_to_y", [], context)
        code, text = refused(stub.Classify, request)
        assert code == "INVALID_ARGUMENT"
        assert "Input is empty" in text

    def test_signature_of_another_kind(self, stub: Any, refused: Any) -> None:
        request = asked(classification_pb2.ClassificationRequest(), "regress_x_to_y", [{"x": 2}])
        code, text = refused(stub.Classify, request)
        assert code == "INVALID_ARGUMENT"
        assert "Expected classification signature" in text

    def test_unknown_signature(self, stub: Any, refused: Any) -> None:
        request = asked(classification_pb2.ClassificationRequest(), "no", [{"x": 2}])
        assert refused(stub.Classify, request) == (
            "INVALID_ARGUMENT",
            "No signature was found with the name: no",
        )

    def test_missing_model_spec(self, stub: Any, refused: Any) -> None:
        assert refused(stub.Classify, classification_pb2.ClassificationRequest())[0] == "INVALID_ARGUMENT"


class TestRegress:
    def test_several_examples(self, stub: Any) -> None:
        request = asked(regression_pb2.RegressionRequest(), "regress_x_to_y", [{"x": 2}, {"x": 4}])
        answer = stub.Regress(request)
        assert [r.value for r in answer.result.regressions] == [3, 4]
        assert answer.model_spec.name == "half_plus_two"

    def test_empty_input(self, stub: Any, refused: Any) -> None:
        request = asked(regression_pb2.RegressionRequest(), "regress_x_to_y", [])
        code, text = refused(stub.Regress, request)
        assert code == "INVALID_ARGUMENT"
        assert "Input is empty" in text

    def test_signature_of_another_kind(self, stub: Any, refused: Any) -> None:
        request = asked(regression_pb2.RegressionRequest(), "classify_x_to_y", [{"x": 2}])
        code, text = refused(stub.Regress, request)
        assert code == "INVALID_ARGUMENT"
        assert "No regression outputs found" in text

    def test_a_feature_that_is_missing_is_the_kernels_error(self, stub: Any, refused: Any) -> None:
        request = asked(regression_pb2.RegressionRequest(), "regress_x_to_y", [{"x2": 2}])
        code, text = refused(stub.Regress, request)
        assert code == "INVALID_ARGUMENT"
        assert "x" in text


class TestMultiInference:
    def request(self, *tasks: tuple[str, str, str]) -> Any:
        request = inference_pb2.MultiInferenceRequest()
        for model, signature, method in tasks:
            task = request.tasks.add(method_name=method)
            task.model_spec.name, task.model_spec.signature_name = model, signature
        fill(request.input, [{"x": 2}])
        return request

    def test_results_in_the_order_of_the_tasks(self, stub: Any) -> None:
        request = self.request(
            ("half_plus_two", "regress_x_to_y", REGRESS), ("half_plus_two", "classify_x_to_y", CLASSIFY)
        )
        first, second = stub.MultiInference(request).results
        assert first.regression_result.regressions[0].value == 3
        assert second.classification_result.classifications[0].classes[0].score == 3
        assert first.model_spec.signature_name == "regress_x_to_y"
        assert second.model_spec.version.value == 123

    @pytest.mark.parametrize(
        ("tasks", "code", "text"),
        [
            ([("half_plus_two", "regress_x_to_y", REGRESS)] * 2, "INVALID_ARGUMENT", "Duplicate evaluation"),
            (
                [("half_plus_two", "regress_x_to_y", REGRESS), ("everything", "two", REGRESS)],
                "INVALID_ARGUMENT",
                "must access the same model name",
            ),
            ([("half_plus_two", "no", REGRESS)], "INVALID_ARGUMENT", "Requested signature not found"),
            (
                [("half_plus_two", "serving_default", "tensorflow/serving/predict")],
                "UNIMPLEMENTED",
                "Unsupported signature method_name: tensorflow/serving/predict",
            ),
        ],
    )
    def test_refused(self, stub: Any, refused: Any, tasks: Any, code: str, text: str) -> None:
        found_code, found_text = refused(stub.MultiInference, self.request(*tasks))
        assert found_code == code
        assert text in found_text

    def test_empty_input(self, stub: Any, refused: Any) -> None:
        request = self.request(("half_plus_two", "regress_x_to_y", REGRESS))
        request.ClearField("input")
        assert "Input is empty" in refused(stub.MultiInference, request)[1]
