"""Who computes when: a few runners, a bounded queue, and requests that pile up run as one batch.

There are no threads of its own and no waiting: a request that finds a free runner runs at once in its own
thread. While all are busy, requests queue; who finishes hands its runner to the first of the queue, which
takes along every other that fits the same batch. An error stays with the request that caused it.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlplatform.serving.pixel_limits import PixelLimits
from mlplatform.serving.servable import Signature
from mlplatform.serving.status import Code, StatusError
from mlplatform.serving.tensors import Array


@dataclass(frozen=True, kw_only=True)
class BatchingParameters:
    """How requests share a run.

    Attributes:
        max_batch_size: Rows of one run at most; 1 never lets requests share one.
        batch_timeout_micros: Microseconds that a run waits for more rows before it starts.
        num_batch_threads: Runs at the same time.
        max_queued: Requests that wait at most; past them RESOURCE_EXHAUSTED.
        allowed_batch_sizes: A shared run is padded to the next of these sizes; empty: any size.
    """

    max_batch_size: int = 32
    batch_timeout_micros: int = 0
    num_batch_threads: int = 2
    max_queued: int = 1000
    allowed_batch_sizes: tuple[int, ...] = ()

    @property
    def usual_sizes(self) -> tuple[int, ...]:
        """Sizes of shared runs that a version should have seen before it serves; none where none share."""
        if self.max_batch_size <= 1:
            return ()
        return self.allowed_batch_sizes or tuple(n for n in (1, 8, 32) if n <= self.max_batch_size)


@dataclass(eq=False)
class _Call:
    signature: Signature
    inputs: Mapping[str, Array]
    rows: int
    key: Any
    woken: threading.Event = field(default_factory=threading.Event)
    batch: "list[_Call] | None" = None  # set where this call was handed a runner
    outputs: dict[str, Array] = field(default_factory=dict)
    error: Exception | None = None

    def result(self) -> dict[str, Array]:
        if self.error is not None:
            raise self.error
        return self.outputs


class Scheduler:
    """Runs signatures under `parameters`. Safe to call from any thread.

    Args:
        parameters: How requests share a run.
        pixels: What a request may have a model decode.
    """

    def __init__(self, parameters: BatchingParameters, pixels: PixelLimits | None = None) -> None:
        self.parameters = parameters
        self._pixels = pixels or PixelLimits()
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)  # a call joined a batch that waits for more
        self._filling: dict[Any, list[_Call]] = {}  # those batches, by key
        self._free_runners = parameters.num_batch_threads
        self._queue: deque[_Call] = deque()

    @property
    def waiting(self) -> int:
        """Requests that wait for a free runner."""
        with self._lock:
            return len(self._queue)

    def run(
        self, signature: Signature, inputs: Mapping[str, Array], timeout_s: float | None = None
    ) -> dict[str, Array]:
        """Call `signature`, alone or in one batch with others.

        Args:
            signature: What to call.
            inputs: Checked arrays by alias.
            timeout_s: Seconds to wait for a runner; None waits for ever.

        Raises:
            StatusError: RESOURCE_EXHAUSTED where the queue is full, DEADLINE_EXCEEDED where no runner came
                free in time, INVALID_ARGUMENT for an image of too many pixels, or what the model says.
        """
        self._pixels.check(inputs)
        call = self._call(signature, inputs)
        with self._lock:
            if self._joins(call):
                pass
            elif self._free_runners:
                self._free_runners -= 1
                call.batch = [call]
            elif len(self._queue) >= self.parameters.max_queued:
                raise StatusError(
                    Code.RESOURCE_EXHAUSTED,
                    "The batch scheduling queue to which this task was submitted is full; "
                    f"currently {len(self._queue)} requests wait",
                )
            else:
                self._queue.append(call)
        if call.batch is None:
            self._wait(call, timeout_s)
        if call.batch is not None:
            self._lead(call.batch)
        return call.result()

    def _call(self, signature: Signature, inputs: Mapping[str, Array]) -> _Call:
        gains = signature.is_batchable and not signature.runs_row_by_row
        if gains and self.parameters.max_batch_size > 1:
            sizes = {array.shape[0] if array.ndim else -1 for array in inputs.values()}
            if len(sizes) == 1 and -1 not in sizes:
                key = (id(signature), *((alias, a.shape[1:], a.dtype) for alias, a in inputs.items()))
                return _Call(signature, inputs, sizes.pop(), key)
        return _Call(signature, inputs, 1, None)

    def _wait(self, call: _Call, timeout_s: float | None) -> None:
        if call.woken.wait(timeout_s):
            return
        with self._lock:
            if call in self._queue:
                self._queue.remove(call)
                raise StatusError(Code.DEADLINE_EXCEEDED, "Deadline exceeded while waiting for a free runner")
        call.woken.wait()  # it runs already

    def _joins(self, call: _Call) -> bool:
        """Put a call into a batch that waits for more, where one does. Called under the lock."""
        batch = self._filling.get(call.key)
        if batch is None or _rows(batch) + call.rows > self.parameters.max_batch_size:
            return False
        batch.append(call)
        self._arrived.notify_all()
        return True

    def _fill(self, batch: list[_Call]) -> None:
        """Wait until `batch` is full or its time is up, while others join it."""
        due = time.monotonic() + self.parameters.batch_timeout_micros / 1e6
        key = batch[0].key
        with self._lock:
            self._take_along(batch)
            if key in self._filling:
                return
            self._filling[key] = batch
            self._arrived.wait_for(
                lambda: _rows(batch) >= self.parameters.max_batch_size, timeout=due - time.monotonic()
            )
            del self._filling[key]

    def _lead(self, batch: list[_Call]) -> None:
        try:
            if self.parameters.batch_timeout_micros and batch[0].key is not None:
                self._fill(batch)
            _run(batch, self.parameters.allowed_batch_sizes)
        finally:
            self._hand_over()
            for call in batch[1:]:
                call.woken.set()

    def _hand_over(self) -> None:
        with self._lock:
            if not self._queue:
                self._free_runners += 1
                return
            first = self._queue.popleft()
            first.batch = [first]
            self._take_along(first.batch)
        first.woken.set()

    def _take_along(self, batch: list[_Call]) -> None:
        """Move what fits from the queue into `batch`. Called under the lock."""
        key, rows = batch[0].key, _rows(batch)
        if key is None:
            return
        kept: list[_Call] = []
        while self._queue:
            call = self._queue.popleft()
            if call.key == key and rows + call.rows <= self.parameters.max_batch_size:
                batch.append(call)
                rows += call.rows
            else:
                kept.append(call)
        self._queue.extend(kept)


def _rows(batch: Sequence[_Call]) -> int:
    return sum(call.rows for call in batch)


def _run(batch: Sequence[_Call], allowed_sizes: Sequence[int]) -> None:
    """Run a batch; where that fails, in halves, so that an error ends with the call that causes it."""
    signature, rows = batch[0].signature, _rows(batch)
    is_padded = bool(allowed_sizes) and batch[0].key is not None and rows > 0
    if len(batch) == 1 and not is_padded:
        _run_alone(batch[0])
        return
    try:
        is_told_apart = _run_together(batch, rows, allowed_sizes)
    except Exception as error:  # noqa: BLE001 - whose error it is shows when each half runs alone
        if len(batch) == 1:
            batch[0].error = error
        else:
            middle = len(batch) // 2
            _run(batch[:middle], allowed_sizes)
            _run(batch[middle:], allowed_sizes)
        return
    if not is_told_apart:
        signature.keeps_rows = False
        for call in batch:
            _run_alone(call)


def _run_alone(call: _Call) -> None:
    try:
        call.outputs = call.signature.run(call.inputs)
    except Exception as error:  # noqa: BLE001 - raised again in the thread of the request
        call.error = error


def _run_together(batch: Sequence[_Call], rows: int, allowed_sizes: Sequence[int]) -> bool:
    """Run the calls as one; False where the outputs have not the rows of the inputs."""
    missing = next((size - rows for size in allowed_sizes if size >= rows), 0) if rows else 0
    inputs = {}
    for alias in batch[0].inputs:
        together = np.concatenate([call.inputs[alias] for call in batch])
        if missing:
            together = np.concatenate([together, np.repeat(together[:1], missing, axis=0)])
        inputs[alias] = together
    outputs = batch[0].signature.run(inputs)
    if any(output.shape[:1] != (rows + missing,) for output in outputs.values()):
        return False
    start = 0
    for call in batch:
        stop = start + call.rows
        call.outputs = {alias: output[start:stop] for alias, output in outputs.items()}
        start = stop
    return True
