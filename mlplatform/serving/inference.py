"""Predict, classify, regress, multi-inference, metadata and status on TensorFlow Serving's messages."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from mlplatform.serving.manager import ModelManager
from mlplatform.serving.scheduling import Scheduler
from mlplatform.serving.servable import DEFAULT_SIGNATURE, Servable, Signature, signature_not_found
from mlplatform.serving.status import Code, StatusError, TooLargeError, invalid_argument
from mlplatform.serving.tensors import Array, Filling, fill_proto, to_array

CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"
SIGNATURE_FIELD = "signature_def"
MAX_CONTEXT_BYTES = 64 << 20  # of a context, repeated in each Example


@dataclass(frozen=True)
class Inference:
    """Answers requests with what `manager` has loaded, computed by `scheduler`."""

    manager: ModelManager
    scheduler: Scheduler

    def predict(
        self, request: predict_pb2.PredictRequest, timeout_s: float | None = None
    ) -> predict_pb2.PredictResponse:
        """Answer a Predict request.

        Raises:
            StatusError: With TensorFlow Serving's code and text.
        """
        with self._servable(request) as servable:
            return predict(servable, self.scheduler, request, timeout_s)

    def classify(
        self, request: classification_pb2.ClassificationRequest, timeout_s: float | None = None
    ) -> classification_pb2.ClassificationResponse:
        """Answer a Classify request.

        Raises:
            StatusError: With TensorFlow Serving's code and text.
        """
        with self._servable(request) as servable:
            return classify(servable, self.scheduler, request, timeout_s)

    def regress(
        self, request: regression_pb2.RegressionRequest, timeout_s: float | None = None
    ) -> regression_pb2.RegressionResponse:
        """Answer a Regress request.

        Raises:
            StatusError: With TensorFlow Serving's code and text.
        """
        with self._servable(request) as servable:
            return regress(servable, self.scheduler, request, timeout_s)

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, timeout_s: float | None = None
    ) -> inference_pb2.MultiInferenceResponse:
        """Answer a MultiInference request.

        Raises:
            StatusError: With TensorFlow Serving's code and text.
        """
        if not request.tasks:
            raise invalid_argument("Inference request must have at least one task")
        with self._servable(request.tasks[0]) as servable:
            return multi_inference(servable, self.scheduler, request, timeout_s)

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Answer a GetModelMetadata request.

        Raises:
            StatusError: With TensorFlow Serving's code and text.
        """
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != SIGNATURE_FIELD:
                raise invalid_argument(f"Metadata field {name} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._servable(request) as servable:
            response.model_spec.name = servable.model
            response.model_spec.version.value = servable.version
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, definition in servable.signature_defs.items():
                signatures.signature_def[name].CopyFrom(definition)
        response.metadata[SIGNATURE_FIELD].Pack(signatures)
        return response

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Answer a GetModelStatus request.

        Raises:
            StatusError: With TensorFlow Serving's code and text.
        """
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        name, version = request.model_spec.name, _version(request.model_spec)
        if request.model_spec.version_label:
            version = self.manager.labelled(name, request.model_spec.version_label)
        response = get_model_status_pb2.GetModelStatusResponse()
        for found in self.manager.statuses(name, version):
            entry = response.model_version_status.add(version=found.version, state=int(found.state))
            entry.status.error_code = int(found.error.code) if found.error else 0
            entry.status.error_message = found.error.text if found.error else ""
        return response

    def _servable(self, request: Any) -> Any:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        spec = request.model_spec
        return self.manager.servable(spec.name, _version(spec), spec.version_label or None)


def predict(
    servable: Servable,
    scheduler: Scheduler,
    request: predict_pb2.PredictRequest,
    timeout_s: float | None = None,
) -> predict_pb2.PredictResponse:
    """Answer a Predict request with `servable`.

    Raises:
        StatusError: With TensorFlow Serving's code and text.
    """
    signature = servable.signature(request.model_spec.signature_name, signature_not_found)
    wanted = wanted_outputs(signature, request.output_filter)
    inputs = _request_inputs(signature, request)
    outputs = scheduler.run(signature, inputs, timeout_s)
    response = predict_pb2.PredictResponse()
    _fill_spec(response.model_spec, servable, signature.name)
    for alias in wanted:
        fill_proto(response.outputs[alias], outputs[alias])
    return response


def wanted_outputs(signature: Signature, output_filter: Iterable[str]) -> list[str]:
    """Return the outputs that a request asks for: all of them where it names none.

    Raises:
        StatusError: INVALID_ARGUMENT: an unknown output, or one named twice.
    """
    wanted: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{','.join(sorted(signature.outputs))}}}."
            )
        if alias in wanted:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        wanted.append(alias)
    return wanted or list(signature.outputs)


def _request_inputs(signature: Signature, request: predict_pb2.PredictRequest) -> dict[str, Array]:
    defaults: Mapping[str, Any] = getattr(signature.definition, "defaults", {})
    sent, known = set(request.inputs), set(signature.inputs)
    needed = known - set(signature.defaults)
    if len(sent) > len(known) or (len(sent) < len(needed) and not defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(known)} "
            f"len({{{_joined(sent)}}}) != len({{{_joined(known)}}}). "
            f"Sent extra: {{{_joined(sent - known)}}}. Missing but required: {{{_joined(known - sent)}}}."
        )
    if sent - known:
        raise invalid_argument(
            f"input tensor alias not found in signature: {min(sent - known)}. "
            f"Inputs expected to be in the set {{{_joined(known)}}}."
        )
    inputs, filling = {}, Filling()
    for alias in signature.inputs:
        if alias in sent:
            inputs[alias] = to_array(request.inputs[alias], alias, filling)
        elif alias in defaults:
            inputs[alias] = to_array(defaults[alias], alias)
        elif alias not in signature.defaults:
            raise invalid_argument(f"input {alias} is required and has no default value")
    inputs = with_defaults(signature, inputs)
    signature.check_inputs(inputs)
    return inputs


def with_defaults(signature: Signature, inputs: dict[str, Array]) -> dict[str, Array]:
    """Return the inputs, and what a request may leave out, for as many rows."""
    missing = [alias for alias in signature.defaults if alias not in inputs]
    if not missing:
        return inputs
    rows = next((len(array) for array in inputs.values() if array.ndim), 0)
    filled = dict(inputs)
    for alias in missing:
        filled[alias] = np.empty(rows, np.object_)
        filled[alias].fill(signature.defaults[alias])
    return {alias: filled[alias] for alias in signature.inputs}


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def classify(
    servable: Servable,
    scheduler: Scheduler,
    request: classification_pb2.ClassificationRequest,
    timeout_s: float | None = None,
) -> classification_pb2.ClassificationResponse:
    """Answer a Classify request with `servable`.

    Raises:
        StatusError: With TensorFlow Serving's code and text.
    """
    signature = servable.signature(request.model_spec.signature_name, _no_signature)
    _check_classify(signature)
    examples = serialized_examples(request.input)
    outputs = _run_on_examples(signature, scheduler, examples, timeout_s)
    response = classification_pb2.ClassificationResponse()
    _fill_spec(response.model_spec, servable, signature.name)
    _fill_classifications(response.result, outputs, len(examples))
    return response


def regress(
    servable: Servable,
    scheduler: Scheduler,
    request: regression_pb2.RegressionRequest,
    timeout_s: float | None = None,
) -> regression_pb2.RegressionResponse:
    """Answer a Regress request with `servable`.

    Raises:
        StatusError: With TensorFlow Serving's code and text.
    """
    signature = servable.signature(request.model_spec.signature_name, _no_signature)
    _check_regress(signature)
    examples = serialized_examples(request.input)
    outputs = _run_on_examples(signature, scheduler, examples, timeout_s)
    response = regression_pb2.RegressionResponse()
    _fill_spec(response.model_spec, servable, signature.name)
    _fill_regressions(response.result, outputs, len(examples))
    return response


def multi_inference(
    servable: Servable,
    scheduler: Scheduler,
    request: inference_pb2.MultiInferenceRequest,
    timeout_s: float | None = None,
) -> inference_pb2.MultiInferenceResponse:
    """Answer a MultiInference request with `servable`.

    Raises:
        StatusError: With TensorFlow Serving's code and text.
    """
    signatures = _multi_signatures(servable, request)
    examples = serialized_examples(request.input)
    response = inference_pb2.MultiInferenceResponse()
    for task, signature in zip(request.tasks, signatures, strict=True):
        outputs = _run_on_examples(signature, scheduler, examples, timeout_s)
        result = response.results.add()
        _fill_spec(result.model_spec, servable, task.model_spec.signature_name or signature.name)
        if task.method_name == CLASSIFY_METHOD:
            _fill_classifications(result.classification_result, outputs, len(examples))
        else:
            _fill_regressions(result.regression_result, outputs, len(examples))
    return response


def _multi_signatures(servable: Servable, request: inference_pb2.MultiInferenceRequest) -> list[Signature]:
    signatures: list[Signature] = []
    names: set[str] = set()
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid_argument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in names:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        names.add(name)
        signature = servable.signature(
            name, lambda n: invalid_argument(f"Requested signature not found in model graph: {n}")
        )
        if task.method_name == CLASSIFY_METHOD:
            _check_classify(signature)
        elif task.method_name == REGRESS_METHOD:
            _check_regress(signature)
        else:
            raise StatusError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        signatures.append(signature)
    tensors = {signature.definition.inputs["inputs"].name for signature in signatures}
    if len(tensors) > 1 and not _share_input(signatures):
        raise invalid_argument("Input tensor must be the same for all Signatures.")
    return signatures


def _share_input(signatures: Iterable[Signature]) -> bool:
    """Exports of TF2 give each signature its own placeholder; one dtype is as near as "the same" gets."""
    return len({signature.inputs["inputs"].dtype for signature in signatures}) == 1


def serialized_examples(message: input_pb2.Input) -> list[bytes]:
    """Return the Examples of an Input, serialized, its context merged into each (the Example wins).

    Raises:
        StatusError: INVALID_ARGUMENT: there are none. RESOURCE_EXHAUSTED: the context would be repeated to
            more than `MAX_CONTEXT_BYTES`.
    """
    kind = message.WhichOneof("kind")
    if kind == "example_list":
        examples = [example.SerializeToString() for example in message.example_list.examples]
    elif kind == "example_list_with_context":
        context = message.example_list_with_context.context
        with_context = message.example_list_with_context.examples
        if context.ByteSize() * len(with_context) > MAX_CONTEXT_BYTES:
            raise TooLargeError(
                f"the context of {context.ByteSize()} bytes would be repeated in {len(with_context)} "
                f"examples, to more than {MAX_CONTEXT_BYTES} bytes: send fewer examples at a time"
            )
        examples = []
        for example in with_context:
            merged = type(context)()
            merged.CopyFrom(context)
            for name, feature in example.features.feature.items():
                merged.features.feature[name].CopyFrom(feature)
            examples.append(merged.SerializeToString())
    else:
        examples = []
    if not examples:
        raise invalid_argument("Input is empty.")
    return examples


def _run_on_examples(
    signature: Signature, scheduler: Scheduler, examples: list[bytes], timeout_s: float | None
) -> dict[str, Array]:
    array = np.empty(len(examples), dtype=np.object_)
    array[:] = examples
    inputs = {"inputs": array}
    signature.check_inputs(inputs)
    return scheduler.run(signature, inputs, timeout_s)


def _no_signature(name: str) -> StatusError:
    return invalid_argument(f"No signature was found with the name: {name}")


def _check_classify(signature: Signature) -> None:
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No classification inputs found in SignatureDef: {signature.definition}")
    if not {"classes", "scores"} & set(signature.outputs):
        raise invalid_argument(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature.definition}"
        )


def _check_regress(signature: Signature) -> None:
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No regression inputs found in SignatureDef: {signature.definition}")
    if "outputs" not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature.definition}")


def _fill_classifications(
    result: classification_pb2.ClassificationResult, outputs: Mapping[str, Array], examples: int
) -> None:
    classes, scores = outputs.get("classes"), outputs.get("scores")
    for name, array, dtype in (("classes", classes, np.object_), ("scores", scores, np.float32)):
        if array is None:
            continue
        if array.ndim != 2:
            shape = ",".join(map(str, array.shape))
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got [{shape}]")
        if array.dtype != dtype:
            kind = "DT_STRING" if name == "classes" else "DT_FLOAT"
            raise invalid_argument(f"Expected {name} Tensor of {kind}. Got: {array.dtype}")
        if array.shape[0] != examples:
            raise invalid_argument(f"Expected {name} output batch size of {examples}. Got: {array.shape[0]}")
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid_argument(
            "Tensors class and score should match in dim_size(1). "
            f"Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    columns = next(a.shape[1] for a in (classes, scores) if a is not None)
    for row in range(examples):
        classifications = result.classifications.add()
        for column in range(columns):
            entry = classifications.classes.add()
            if classes is not None:
                entry.label = classes[row, column]
            if scores is not None:
                entry.score = float(scores[row, column])


def _fill_regressions(
    result: regression_pb2.RegressionResult, outputs: Mapping[str, Array], examples: int
) -> None:
    values = outputs["outputs"]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        shape = ",".join(map(str, values.shape))
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [{shape}]"
        )
    if values.shape[0] != examples:
        raise invalid_argument(
            f"Input batch size did not match output batch size: {examples} vs. {values.shape[0]}"
        )
    if values.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    for value in values.ravel().tolist():
        result.regressions.add(value=value)


def _fill_spec(spec: model_pb2.ModelSpec, servable: Servable, signature: str) -> None:
    spec.name = servable.model
    spec.version.value = servable.version
    spec.signature_name = signature


def _version(spec: model_pb2.ModelSpec) -> int | None:
    return spec.version.value if spec.HasField("version") else None
