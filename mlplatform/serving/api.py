"""What both protocols call: answers, counts and logs."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tensorflow_serving.apis import predict_pb2

from mlplatform.serving.inference import Inference
from mlplatform.serving.metrics import Metrics
from mlplatform.serving.model_config import ModelConfig
from mlplatform.serving.request_log import RequestLog
from mlplatform.serving.request_size import RequestBudget
from mlplatform.serving.servable import Servable, Signature
from mlplatform.serving.status import Code, StatusError
from mlplatform.serving.tensors import Array, fill_proto

# The field of PredictionLog that a method's requests go to, and what answers them.
_METHODS: dict[str, tuple[str, Callable[..., Any]]] = {
    "Predict": ("predict_log", Inference.predict),
    "Classify": ("classify_log", Inference.classify),
    "Regress": ("regress_log", Inference.regress),
    "MultiInference": ("multi_inference_log", Inference.multi_inference),
}


@dataclass(frozen=True)
class AnsweredPredict:
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
    """Answers requests of either protocol, counts them, and logs a sample of them.

    Args:
        inference: What answers.
        metrics: Where requests are counted.
        request_log: Where a sample of them goes.
        budget: Bytes that all requests of both protocols may take at the same time.
    """

    def __init__(
        self, inference: Inference, metrics: Metrics, request_log: RequestLog | None, budget: RequestBudget
    ) -> None:
        self.inference = inference
        self.budget = budget
        self.metrics = metrics
        self._request_log = request_log

    def answer(
        self,
        method: str,
        model: str,
        entrypoint: str,
        read: Callable[[], Any],
        timeout_s: float | None = None,
    ) -> Any:
        """Answer the request that `read` returns.

        Args:
            method: `Predict`, `Classify`, `Regress` or `MultiInference`.
            model: The model that the request names.
            entrypoint: `GRPC` or `REST`.
            read: Returns the request; what is wrong with it is counted too.
            timeout_s: Seconds to wait for a free core.

        Raises:
            StatusError: With TensorFlow Serving's code and text.
        """
        kind, infer = _METHODS[method]
        with self._counted(method, model, entrypoint):
            request = read()
            response = infer(self.inference, request, timeout_s)
        if self._request_log is not None and self._request_log.takes_next():
            self._request_log.write(kind, model, request, response)
        return response

    def predict_arrays(self, model: str, answer: Callable[[], tuple[AnsweredPredict, bytes]]) -> bytes:
        """Count, and log a sample of, a predict request that `answer` answers."""
        with self._counted("Predict", model, "REST"):
            predicted, body = answer()
        if self._request_log is not None and self._request_log.takes_next():
            self._request_log.write("predict_log", model, *predicted.messages())
        return body

    def configure(self, models: Mapping[str, ModelConfig], timeout_s: float | None = None) -> None:
        """Serve these models and no others."""
        self.inference.manager.configure(models, timeout_s)

    @contextmanager
    def _counted(self, method: str, model: str, entrypoint: str) -> Iterator[None]:
        started = time.perf_counter()
        status = Code.INTERNAL
        try:
            yield
            status = Code.OK
        except StatusError as error:
            status = error.code
            raise
        finally:
            known = model if self.inference.manager.knows(model) else ""  # callers make names up
            self.metrics.record(known, method, entrypoint, status.name, time.perf_counter() - started)
