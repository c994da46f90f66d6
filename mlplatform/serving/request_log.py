"""A log of sampled requests and answers: uncompressed TFRecord files of PredictionLog.

They are `<model>/<UTC time>-<host>-<pid>-<number>.tfrecord` under the folder. A file that is being written
ends in `.open`; it is finished at a sixteenth of the size limit or after ten minutes, whichever comes first.
All files together, those that other processes write or left unfinished too, stay below the size limit: the
oldest go.
"""

import itertools
import logging
import os
import queue
import random
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psutil
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import prediction_log_pb2

from mlplatform.serving.wire import PARSE_ERRORS

log = logging.getLogger(__name__)

FILES_PER_LIMIT = 16  # a file is closed at this fraction of the size limit
MAX_AGE_S = 600.0
MAX_WAITING_BYTES = 64 << 20  # of requests and answers that wait to be written
OPEN_SUFFIX = ".open"

_NUMBERS = itertools.count(1)
_MAX_WAITING = 1000  # requests
_RECORD_OVERHEAD = 16  # bytes: length and two checksums


class _Entry(NamedTuple):
    kind: str
    model: str
    request: Any
    response: Any
    asked_at: float
    size: int


@dataclass
class _OpenFile:
    path: Path
    writer: Any
    size: int = 0
    opened_at: float = field(default_factory=time.monotonic)


class RequestLog:
    """Writes sampled requests in a thread of its own. Safe to call from any thread.

    It never holds up an answer: where the disk is too slow, requests are left out of the log; where it is
    full, the log stops.

    Args:
        folder: Where the files go.
        sampling_rate: Fraction of requests that are written, 0 to 1.
        max_bytes: Bytes of all files together.
        never: Names of inputs, outputs and Example features that are never written.
        max_age_s: Seconds after which a file is finished, so that readers find it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sampling_rate: float,
        max_bytes: int,
        never: Collection[str] = (),
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._folder = folder
        self._sampling_rate = sampling_rate
        self._max_bytes = max_bytes
        self._max_file_bytes = max_bytes // FILES_PER_LIMIT
        self._max_age_s = max_age_s
        self._never = frozenset(never)
        self._open: dict[str, _OpenFile] = {}
        # Written since the size limit was looked at; the first record is a reason to look.
        self._unchecked_bytes = self._max_file_bytes
        self._is_broken = self._is_closing = False
        self._left_out = 0
        self._waiting: queue.Queue[_Entry | None] = queue.Queue(_MAX_WAITING)
        self._waiting_bytes = 0
        self._lock = threading.Lock()  # of the two numbers above
        self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)
        self._thread.start()

    def takes_next(self) -> bool:
        """Say whether the sample takes the next request."""
        return not self._is_broken and random.random() < self._sampling_rate

    def write(self, kind: str, model: str, request: Any, response: Any) -> None:
        """Take one request and its answer; neither may be changed afterwards.

        Args:
            kind: Field of PredictionLog: `predict_log`, `classify_log`, ...
            model: The model's name.
            request: The message that was asked.
            response: The message that was answered.
        """
        entry = _Entry(kind, model, request, response, time.time(), request.ByteSize() + response.ByteSize())
        with self._lock:
            if self._is_broken or self._is_closing:
                return
            if self._waiting.full() or self._waiting_bytes + entry.size > MAX_WAITING_BYTES:
                self._left_out += 1
                return
            self._waiting_bytes += entry.size
            self._waiting.put_nowait(entry)

    def close(self) -> None:
        """Write what waits and finish the open files."""
        with self._lock:
            self._is_closing = True
        self._waiting.put(None)  # wakes the thread
        self._thread.join()
        if self._left_out:
            log.warning("%d sampled requests are not in the request log: it was too slow", self._left_out)

    def _work(self) -> None:
        while not (self._is_closing and self._waiting.empty()):
            entry = self._next()
            try:
                if entry is not None and not self._is_broken:
                    self._append(entry.model, self._record(entry))
                self._finish_old()
            except Exception as error:  # noqa: BLE001 - a log that fails fails alone
                self._is_broken = True
                log.error("the request log stops: %s", error)
        try:
            for model in list(self._open):
                self._finish(model)
        except Exception as error:  # noqa: BLE001 - as above
            log.error("the request log's last file is not finished: %s", error)

    def _next(self) -> _Entry | None:
        """Return the next entry; None where none came for a while."""
        try:
            entry = self._waiting.get(timeout=min(5.0, self._max_age_s / 10))
        except queue.Empty:
            return None
        with self._lock:
            self._waiting_bytes -= entry.size if entry else 0
        return entry

    def _record(self, entry: _Entry) -> bytes:
        record = prediction_log_pb2.PredictionLog()
        metadata = record.log_metadata
        if "model_spec" in entry.response.DESCRIPTOR.fields_by_name:
            metadata.model_spec.CopyFrom(entry.response.model_spec)
        metadata.model_spec.name = entry.model
        metadata.sampling_config.sampling_rate = self._sampling_rate
        metadata.timestamp_secs = int(entry.asked_at)
        held = getattr(record, entry.kind)
        held.request.CopyFrom(entry.request)
        held.response.CopyFrom(entry.response)
        self._take_out(held)
        return bytes(record.SerializeToString())

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
        if tensor.dtype == types_pb2.DT_STRING:
            tensor.ClearField("tensor_content")  # the server reads no texts there, but they may be ones
        for place, value in enumerate(tensor.string_val):
            example = tf.train.Example()
            try:
                example.ParseFromString(value)
            except PARSE_ERRORS:
                continue
            found = self._never & set(example.features.feature)
            for feature in found:
                del example.features.feature[feature]
            if found:
                tensor.string_val[place] = example.SerializeToString(deterministic=True)

    def _append(self, model: str, record: bytes) -> None:
        if model not in self._open:
            self._open[model] = self._new_file(model)
        file = self._open[model]
        file.writer.write(record)
        size = len(record) + _RECORD_OVERHEAD
        file.size += size
        self._unchecked_bytes += size
        if file.size >= self._max_file_bytes:
            self._finish(model)
        if self._unchecked_bytes >= self._max_file_bytes:
            self._keep_limit()

    def _new_file(self, model: str) -> _OpenFile:
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        folder = self._folder / quote(model, safe="")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{now}-{_host()}-{os.getpid()}-{next(_NUMBERS):05}.tfrecord{OPEN_SUFFIX}"
        return _OpenFile(folder / name, tf.io.TFRecordWriter(str(folder / name)))

    def _finish_old(self) -> None:
        for model, file in list(self._open.items()):
            if time.monotonic() - file.opened_at >= self._max_age_s:
                self._finish(model)

    def _finish(self, model: str) -> None:
        file = self._open.pop(model)
        file.writer.close()
        file.path.rename(file.path.with_name(file.path.name.removesuffix(OPEN_SUFFIX)))

    def _keep_limit(self) -> None:
        """Take the oldest files away until the next part of the limit fits; of open ones only those left."""
        self._unchecked_bytes = 0
        while 2 * sum(file.size for file in self._open.values()) > self._max_bytes:  # of very many models
            self._finish(min(self._open, key=lambda model: self._open[model].opened_at))
        mine = {file.path: file.size for file in self._open.values()}
        found = [(path, _stat(path)) for path in self._folder.glob("*/*.tfrecord*")]
        sizes = {path: mine.get(path, stat.st_size) for path, stat in found if stat}
        total = sum(sizes.values())
        for path, stat in sorted((f for f in found if f[1]), key=lambda f: f[1].st_mtime_ns):
            if total <= self._max_bytes - self._max_file_bytes:
                return
            if path not in mine and (path.suffix != OPEN_SUFFIX or self._is_left(path, stat.st_mtime)):
                path.unlink(missing_ok=True)
                total -= sizes[path]

    def _is_left(self, path: Path, written_at: float) -> bool:
        """Say whether the process that wrote an open file has ended: by its number, or by the file's age."""
        if time.time() - written_at > 2 * self._max_age_s:
            return True
        host, pid = (["", "", *path.name.split("-")])[-3:-1]
        return host == _host() and pid.isdigit() and not psutil.pid_exists(int(pid))


def _host() -> str:
    return socket.gethostname().replace("-", "_").replace("/", "_")


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except FileNotFoundError:  # another process took it away, or finished it
        return None
