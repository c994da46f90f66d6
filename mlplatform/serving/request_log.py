"""A log of sampled requests and answers, which `DataValidator` reads as serving data.

Files are uncompressed TFRecords of PredictionLog, `<model>/<UTC time>-<pid>-<number>.tfrecord` under the
folder; a file that is being written ends in `.open`. When all of them
together pass the size limit, the oldest go.
"""

import logging
import os
import random
import threading
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

log = logging.getLogger(__name__)

FILES_PER_LIMIT = 16  # a file is closed at this fraction of the size limit
OPEN_SUFFIX = ".open"


class RequestLog:
    """Writes sampled requests. Safe to call from any thread; a full disk stops the log, not the answers.

    Args:
        folder: Where the files go.
        sampling_rate: Fraction of requests that are written, 0 to 1.
        max_bytes: Bytes of all files together.
        never: Names of inputs, outputs and Example features that are never written.
    """

    def __init__(
        self, folder: Path, *, sampling_rate: float, max_bytes: int, never: Collection[str] = ()
    ) -> None:
        self._folder = folder
        self._sampling_rate = sampling_rate
        self._max_bytes = max_bytes
        self._never = frozenset(never)
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Path, Any, int]] = {}
        self._number = 0
        self._is_broken = False

    def takes_next(self) -> bool:
        """Say whether the sample takes the next request."""
        return not self._is_broken and random.random() < self._sampling_rate

    def write(self, kind: str, model: str, request: Any, response: Any) -> None:
        """Write one request and its answer.

        Args:
            kind: Field of PredictionLog: `predict_log`, `classify_log`, ...
            model: The model's name.
            request: The message that was asked.
            response: The message that was answered.
        """
        entry = prediction_log_pb2.PredictionLog()
        entry.log_metadata.model_spec.name = model
        entry.log_metadata.sampling_config.sampling_rate = self._sampling_rate
        held = getattr(entry, kind)
        held.request.CopyFrom(request)
        held.response.CopyFrom(response)
        self._take_out(held)
        record = entry.SerializeToString()
        try:
            with self._lock:
                self._append(model, record)
        except (OSError, tf.errors.OpError) as error:
            self._is_broken = True
            log.error("the request log stops: %s", error)

    def close(self) -> None:
        """Finish the open files."""
        with self._lock:
            for model in list(self._open):
                self._finish(model)

    def _take_out(self, held: Any) -> None:
        if not self._never:
            return
        for tensors in (getattr(held.request, "inputs", {}), getattr(held.response, "outputs", {})):
            for name in self._never & set(tensors):
                del tensors[name]
        message = getattr(held.request, "input", None)
        if message is not None:
            kept = message.example_list_with_context
            for example in (*message.example_list.examples, *kept.examples, kept.context):
                for name in self._never & set(example.features.feature):
                    del example.features.feature[name]
        for name, tensor in getattr(held.request, "inputs", {}).items():
            self._take_out_of_examples(name, tensor)

    def _take_out_of_examples(self, name: str, tensor: Any) -> None:
        """Serialized Examples in a string input lose their features too; what is no Example stays."""
        for place, value in enumerate(tensor.string_val):
            example = tf.train.Example()
            try:
                example.ParseFromString(value)
            except DecodeError:
                continue
            found = self._never & set(example.features.feature)
            for feature in found:
                del example.features.feature[feature]
            if found:
                tensor.string_val[place] = example.SerializeToString(deterministic=True)

    def _append(self, model: str, record: bytes) -> None:
        if model not in self._open:
            self._open[model] = (*self._new_file(model), 0)
        path, writer, size = self._open[model]
        writer.write(record)
        size += len(record) + 16  # length and two checksums
        self._open[model] = (path, writer, size)
        if size >= self._max_bytes // FILES_PER_LIMIT:
            self._finish(model)
            self._drop_oldest()

    def _new_file(self, model: str) -> tuple[Path, Any]:
        self._number += 1
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        folder = self._folder / quote(model, safe="")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{now}-{os.getpid()}-{self._number:05}.tfrecord{OPEN_SUFFIX}"
        return path, tf.io.TFRecordWriter(str(path))

    def _finish(self, model: str) -> None:
        path, writer, _ = self._open.pop(model)
        writer.close()
        path.rename(path.with_name(path.name.removesuffix(OPEN_SUFFIX)))

    def _drop_oldest(self) -> None:
        files = sorted(self._folder.glob("*/*.tfrecord"), key=lambda file: file.stat().st_mtime_ns)
        total = sum(file.stat().st_size for file in files) + sum(size for *_, size in self._open.values())
        for file in files:
            if total <= self._max_bytes:
                return
            total -= file.stat().st_size
            file.unlink()
