"""What both protocols call: answers, counts and logs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tensorflow_serving.apis import predict_pb2

from mlplatform.serving.inference import Inference
from mlplatform.serving.metrics import Metrics
from mlplatform.serving.model_config import ModelConfig
from mlplatform.serving.request_log import RequestLog
from mlplatform.serving.servable import Servable, Signature
from mlplatform.serving.status import Code, StatusError
from mlplatform.serving.tensors import Array, fill_proto

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Predicted:
    """A predict request that was answered without messages: over REST."""

    servable: Servable
    signature: Signature
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    def messages(self) -> tuple[predict_pb2.PredictRequest, predict_pb2.PredictResponse]:
        """Return request and answer as messages, for the log."""
        request, response = predict_pb2.PredictRequest(), predict_pb2.PredictResponse()
        for spec in (request.model_spec, response.model_spec):
            spec.name, spec.signature_name = self.servable.model, self.signature.name
            spec.version.value = self.servable.version
        for alias, array in self.inputs.items():
            fill_proto(request.inputs[alias], array)
        for alias, array in self.outputs.items():
            fill_proto(response.outputs[alias], array)
        return request, response


class Api:
    """Answers requests of either protocol, counts them, and logs a sample of them."""

    def __init__(self, inference: Inference, metrics: Metrics, request_log: RequestLog | None) -> None:
        self.inference = inference
        self.metrics = metrics
        self._request_log = request_log

    def predict(self, request: Any, entrypoint: str, timeout_s: float | None = None) -> Any:
        """Answer a PredictRequest."""
        return self._answer(
            "Predict", "predict_log", request, entrypoint, lambda: self.inference.predict(request, timeout_s)
        )

    def classify(self, request: Any, entrypoint: str, timeout_s: float | None = None) -> Any:
        """Answer a ClassificationRequest."""
        return self._answer(
            "Classify",
            "classify_log",
            request,
            entrypoint,
            lambda: self.inference.classify(request, timeout_s),
        )

    def regress(self, request: Any, entrypoint: str, timeout_s: float | None = None) -> Any:
        """Answer a RegressionRequest."""
        return self._answer(
            "Regress", "regress_log", request, entrypoint, lambda: self.inference.regress(request, timeout_s)
        )

    def multi_inference(self, request: Any, entrypoint: str, timeout_s: float | None = None) -> Any:
        """Answer a MultiInferenceRequest."""
        return self._answer(
            "MultiInference",
            "multi_inference_log",
            request,
            entrypoint,
            lambda: self.inference.multi_inference(request, timeout_s),
        )

    def predict_arrays(self, model: str, answer: Callable[[], tuple[Predicted, bytes]]) -> bytes:
        """Count, and log a sample of, a predict request that `answer` answers."""
        predicted, body = self._counted("Predict", model, "REST", answer)
        if self._request_log is not None and self._request_log.takes_next():
            self._request_log.write("predict_log", model, *predicted.messages())
        return body

    def configure(self, models: Mapping[str, ModelConfig], timeout_s: float | None = None) -> None:
        """Serve these models and no others."""
        self.inference.manager.configure(models, timeout_s)

    def _answer(
        self, name: str, kind: str, request: Any, entrypoint: str, answer: Callable[[], Answer]
    ) -> Answer:
        model = _model_name(request)
        response = self._counted(name, model, entrypoint, answer)
        if self._request_log is not None and self._request_log.takes_next():
            self._request_log.write(kind, model, request, response)
        return response

    def _counted(self, name: str, model: str, entrypoint: str, answer: Callable[[], Answer]) -> Answer:
        started = time.perf_counter()
        status = Code.INTERNAL
        try:
            response = answer()
            status = Code.OK
            return response
        except StatusError as error:
            status = error.code
            raise
        finally:
            known = "" if status == Code.NOT_FOUND else model  # names that callers make up are not kept
            self.metrics.record(known, name, entrypoint, status.name, time.perf_counter() - started)


def _model_name(request: Any) -> str:
    """Return the model that a request names; a MultiInferenceRequest names it in its tasks."""
    if "tasks" not in request.DESCRIPTOR.fields_by_name:
        return str(request.model_spec.name)
    return str(request.tasks[0].model_spec.name) if request.tasks else ""
