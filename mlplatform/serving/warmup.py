"""Run a version before it serves: with its recorded requests, else with empty ones."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from mlplatform.serving.inference import classify, multi_inference, predict, regress
from mlplatform.serving.pixel_limits import PixelLimits
from mlplatform.serving.scheduling import BatchingParameters, Scheduler
from mlplatform.serving.servable import Servable, Signature, TensorSpec
from mlplatform.serving.status import Code, StatusError
from mlplatform.serving.tensors import NUMPY_OF, Array

log = logging.getLogger(__name__)

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000  # as in TensorFlow Serving
EMPTY_BATCHES = (1, 8, 32)
MAX_EMPTY_BYTES = 64 << 20


class _InputRecorder(Scheduler):
    """Runs each request alone, and keeps the inputs of one per signature."""

    def __init__(self) -> None:
        unlimited = PixelLimits(max_image_pixels=sys.maxsize, max_request_pixels=sys.maxsize)
        super().__init__(BatchingParameters(max_batch_size=1, num_batch_threads=1), unlimited)
        self.seen: dict[str, tuple[Signature, Mapping[str, Array]]] = {}

    def run(
        self, signature: Signature, inputs: Mapping[str, Array], timeout_s: float | None = None
    ) -> dict[str, Array]:
        self.seen.setdefault(signature.name, (signature, inputs))
        return super().run(signature, inputs, timeout_s)


def warm_up(servable: Servable, *, iterations: int = 1, batch_sizes: Sequence[int] = ()) -> None:
    """Run the recorded requests of a version, or zeros where it has none.

    Args:
        servable: The loaded version.
        iterations: How many times each recorded request is run.
        batch_sizes: Rows of shared runs: what was recorded is repeated to these sizes as well.

    Raises:
        StatusError: A recorded request failed; such a version must not serve.
    """
    recorder = _InputRecorder()
    if not (servable.path / WARMUP_FILE).is_file():
        for signature in servable.signatures.values():
            _run_on_zeros(signature)
        return
    for entry in recorded_requests(servable.path):
        for _ in range(iterations):
            _run_recorded(servable, recorder, entry)
    for signature, inputs in recorder.seen.values():
        _run_repeated(signature, inputs, batch_sizes)


def recorded_requests(path: Path) -> list[prediction_log_pb2.PredictionLog]:
    """Return the warm-up requests that the version in `path` carries.

    Raises:
        StatusError: They cannot be read, or are too many.
    """
    file = path / WARMUP_FILE
    if not file.is_file():
        return []
    try:
        records = list(tf.data.TFRecordDataset(str(file)).take(MAX_RECORDS + 1).as_numpy_iterator())
        logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    except Exception as error:
        raise StatusError(
            Code.DATA_LOSS, f"Failed to read a record from warmup file {file}: {error}"
        ) from error
    if len(logs) > MAX_RECORDS:
        raise StatusError(
            Code.INVALID_ARGUMENT,
            f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}",
        )
    return logs


def _run_recorded(servable: Servable, scheduler: Scheduler, entry: prediction_log_pb2.PredictionLog) -> None:
    kind = entry.WhichOneof("log_type")
    answers = {
        "predict_log": predict,
        "classify_log": classify,
        "regress_log": regress,
        "multi_inference_log": multi_inference,
    }
    if kind not in answers:
        raise StatusError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    answers[kind](servable, scheduler, getattr(entry, kind).request)


def _run_repeated(signature: Signature, inputs: Mapping[str, Array], batch_sizes: Sequence[int]) -> None:
    """Trace a signature's batch sizes with rows that it is known to take."""
    rows = {len(array) if array.ndim else 0 for array in inputs.values()}
    if not signature.is_batchable or len(rows) != 1 or 0 in rows:
        return
    for size in batch_sizes:
        places = np.arange(size) % min(rows)
        signature.run({alias: array[places] for alias, array in inputs.items()})


def _run_on_zeros(signature: Signature) -> None:
    """Trace a signature's batch sizes with zeros, where it takes numbers and keeps no state."""
    if not signature.is_stateless or not signature.is_batchable:
        return
    for rows in EMPTY_BATCHES:
        inputs = {}
        for alias, spec in signature.inputs.items():
            array = zeros(spec, rows)
            if array is None:
                return
            inputs[alias] = array
        try:
            signature.run(inputs)
        except StatusError as error:
            log.debug("signature %s does not take zeros: %s", signature.name, error)
            return


def zeros(spec: TensorSpec, rows: int) -> Array | None:
    """Return so many rows of zeros; None for texts, and where a size is not known or too large."""
    numpy_type = np.dtype(NUMPY_OF.get(spec.dtype, np.object_))
    shape = spec.shape or ()
    if numpy_type == np.object_ or any(size is None for size in shape[1:]):
        return None
    sizes = (rows, *(size or 0 for size in shape[1:])) if spec.is_batched else tuple(n or 0 for n in shape)
    if np.prod(sizes) * numpy_type.itemsize > MAX_EMPTY_BYTES:
        return None
    return np.zeros(sizes, dtype=numpy_type)
