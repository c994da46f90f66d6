"""Reads the request log of a model server as Examples: what the model was asked in service."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import input_pb2, prediction_log_pb2

from mlplatform.errors import MlplatformError, UsageError

IMAGE_BYTES = "image_bytes"  # the input of raw photos, in the signature of that name
_LARGEST_ROW = 1000  # values of one row that may be a feature; more is an image or an embedding


class RequestLogError(UsageError):
    """There is no request log to read."""

    def __init__(self, folder: str, problem: str) -> None:
        super().__init__(folder, problem)
        self.folder, self.problem = folder, problem

    def __str__(self) -> str:
        return (
            f"request log {self.folder}: {self.problem}. Give the folder of one model below the model "
            "server's request_log_dir: <request_log_dir>/<model>."
        )


class DamagedLogError(MlplatformError):
    """A log file ends in the middle of a record, as that of a server that was killed."""

    def __init__(self, file: str, cause: str) -> None:
        super().__init__(file, cause)
        self.file, self.cause = file, cause

    def __str__(self) -> str:
        return f"{self.file} is damaged: {self.cause}"


@dataclass(frozen=True)
class LoggedRequest:
    """What one request asked about.

    Attributes:
        examples: Serialized Examples.
        unread: Names of inputs that are not features (pixels, embeddings) and were left out.
    """

    examples: list[bytes] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def log_files(folder: str) -> list[str]:
    """Return the finished files of a request log: every `*.tfrecord` below a folder.

    Raises:
        RequestLogError: There are none.
    """
    if not Path(folder).is_dir():
        raise RequestLogError(folder, "there is no such folder")
    files = sorted(str(file) for file in Path(folder).rglob("*.tfrecord"))
    if not files:
        raise RequestLogError(folder, "it holds no finished log file (*.tfrecord)")
    return files


def read_requests(file: str, image_feature: str) -> Iterator[LoggedRequest]:
    """Yield what the requests of a log file (TFRecord of PredictionLog) asked about.

    An Example that was sent is kept; a raw photo becomes an Example with the photo; plain columns
    become one with a feature each.

    Args:
        file: A finished log file.
        image_feature: The feature that raw photos become.

    Raises:
        DamagedLogError: The file is cut off; what is before is yielded first.
    """
    try:
        for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
            yield _asked(prediction_log_pb2.PredictionLog.FromString(record), image_feature)
    except (tf.errors.DataLossError, DecodeError) as error:
        raise DamagedLogError(file, str(error)) from error


def _asked(log: prediction_log_pb2.PredictionLog, image_feature: str) -> LoggedRequest:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        return _of_tensors(dict(log.predict_log.request.inputs), image_feature)
    if kind in ("classify_log", "regress_log", "multi_inference_log"):
        return LoggedRequest(list(_of_input(getattr(log, kind).request.input)))
    return LoggedRequest()


def _of_tensors(inputs: dict[str, TensorProto], image_feature: str) -> LoggedRequest:
    columns = {name: np.atleast_1d(tf.make_ndarray(tensor)) for name, tensor in inputs.items()}
    if len(columns) == 1:
        (values,) = columns.values()
        if values.dtype == object and all(_is_example(value) for value in values.flat):
            return LoggedRequest(list(values.flat))
    if IMAGE_BYTES in columns:
        columns[image_feature] = columns.pop(IMAGE_BYTES)
    asked = LoggedRequest(
        unread=[name for name, v in columns.items() if len(v) and np.size(v[0]) > _LARGEST_ROW]
    )
    columns = {name: values for name, values in columns.items() if len(values) and name not in asked.unread}
    for row in range(min((len(values) for values in columns.values()), default=0)):
        example = tf.train.Example()
        for name, values in columns.items():
            _add(example.features.feature[name], values[row : row + 1])
        asked.examples.append(example.SerializeToString(deterministic=True))
    return asked


def _of_input(asked: input_pb2.Input) -> Iterator[bytes]:
    with_context = asked.example_list_with_context
    for example in (*asked.example_list.examples, *with_context.examples):
        whole = tf.train.Example()
        whole.CopyFrom(with_context.context)
        whole.MergeFrom(example)
        yield whole.SerializeToString(deterministic=True)


def _is_example(value: bytes) -> bool:
    try:
        return bool(tf.train.Example.FromString(value).features.feature)
    except DecodeError:
        return False


def _add(feature: tf.train.Feature, values: npt.NDArray[Any]) -> None:
    flat = np.ravel(values)
    if flat.dtype == object:
        feature.bytes_list.value.extend(flat.tolist())
    elif np.issubdtype(flat.dtype, np.floating):
        feature.float_list.value.extend(flat.astype(float).tolist())
    elif np.issubdtype(flat.dtype, np.integer) or flat.dtype == bool:
        feature.int64_list.value.extend(flat.astype(np.int64).tolist())
