"""Reads the request log of a model server as Examples: what the model was asked in service."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import input_pb2, prediction_log_pb2

from mlplatform.components.data_validator.errors import ServingLogsError

IMAGE_BYTES = "image_bytes"  # the input of raw photos, in the signature of that name
DAMAGED = "damaged"
UNREAD = "unread"
_LARGEST_ROW = 1000  # values of one row that may be a feature; more is an image or an embedding


def log_files(folder: str) -> list[str]:
    """Return the finished files of a request log: every `*.tfrecord` below a folder.

    Raises:
        ServingLogsError: There are none.
    """
    if not Path(folder).is_dir():
        raise ServingLogsError(folder, "there is no such folder")
    files = sorted(str(file) for file in Path(folder).rglob("*.tfrecord"))
    if not files:
        raise ServingLogsError(folder, "it holds no finished log file (*.tfrecord)")
    return files


class ReadRequests(beam.DoFn):
    """A log file (TFRecord of PredictionLog) becomes the serialized Examples that were asked about.

    An Example that was sent is taken as it is; a raw photo becomes an Example with the photo; plain columns
    become one with a feature each. What is not a feature (pixels, embeddings) is left out, and its name goes
    to `UNREAD`. A file that is cut off, by a server that was killed, is read up to there and counted under
    `DAMAGED`.
    """

    def __init__(self, image_feature: str) -> None:
        self._image_feature = image_feature

    def process(self, file: str) -> Iterator[bytes | beam.pvalue.TaggedOutput]:
        try:
            for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
                yield from self._examples(prediction_log_pb2.PredictionLog.FromString(record))
        except (tf.errors.DataLossError, DecodeError) as error:
            logging.warning("%s is damaged: %s", file, error)
            yield beam.pvalue.TaggedOutput(DAMAGED, 1)

    def _examples(self, log: prediction_log_pb2.PredictionLog) -> Iterator[bytes | beam.pvalue.TaggedOutput]:
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            yield from self._of_tensors(dict(log.predict_log.request.inputs))
        elif kind in ("classify_log", "regress_log", "multi_inference_log"):
            yield from _of_input(getattr(log, kind).request.input)

    def _of_tensors(self, inputs: dict[str, TensorProto]) -> Iterator[bytes | beam.pvalue.TaggedOutput]:
        columns = {name: np.atleast_1d(tf.make_ndarray(tensor)) for name, tensor in inputs.items()}
        if len(columns) == 1:
            (values,) = columns.values()
            if values.dtype == object and all(_is_example(value) for value in values.flat):
                yield from values.flat
                return
        if IMAGE_BYTES in columns:
            columns[self._image_feature] = columns.pop(IMAGE_BYTES)
        for name in [name for name, v in columns.items() if len(v) and np.size(v[0]) > _LARGEST_ROW]:
            del columns[name]
            yield beam.pvalue.TaggedOutput(UNREAD, name)
        columns = {name: values for name, values in columns.items() if len(values)}
        for row in range(min((len(values) for values in columns.values()), default=0)):
            example = tf.train.Example()
            for name, values in columns.items():
                _add(example.features.feature[name], values[row : row + 1])
            yield example.SerializeToString(deterministic=True)


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
