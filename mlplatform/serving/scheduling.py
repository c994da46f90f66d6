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
    """Runs signatures under `parameters`. Safe to call from any thread."""

    def __init__(self, parameters: BatchingParameters) -> None:
        self.parameters = parameters
        self._lock = threading.Lock()
        self._free_runners = parameters.num_batch_threads
        self._queue: deque[_Call] = deque()

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
                free in time, or what the model says.
        """
        call = self._call(signature, inputs)
        with self._lock:
            if self._free_runners:
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
        if self.parameters.max_batch_size > 1 and signature.is_batchable:
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

    def _lead(self, batch: list[_Call]) -> None:
        try:
            if self.parameters.batch_timeout_micros and batch[0].key is not None:
                time.sleep(self.parameters.batch_timeout_micros / 1e6)
                with self._lock:
                    self._take_along(batch)
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
        key, rows = batch[0].key, sum(call.rows for call in batch)
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


def _run(batch: Sequence[_Call], allowed_sizes: Sequence[int]) -> None:
    if len(batch) == 1 and not (allowed_sizes and batch[0].key is not None):
        _run_alone(batch[0])
        return
    try:
        _run_together(batch, allowed_sizes)
    except Exception as error:  # noqa: BLE001 - whose error it is shows when each runs alone
        if len(batch) == 1:
            batch[0].error = error
        else:
            for call in batch:
                _run_alone(call)


def _run_alone(call: _Call) -> None:
    try:
        call.outputs = call.signature.run(call.inputs)
    except Exception as error:  # noqa: BLE001 - raised again in the thread of the request
        call.error = error


def _run_together(batch: Sequence[_Call], allowed_sizes: Sequence[int]) -> None:
    signature, rows = batch[0].signature, sum(call.rows for call in batch)
    missing = next((size - rows for size in allowed_sizes if size >= rows), 0)
    inputs = {}
    for alias in batch[0].inputs:
        parts = [call.inputs[alias] for call in batch]
        if missing:
            parts.append(np.repeat(parts[0][:1], missing, axis=0))
        inputs[alias] = np.concatenate(parts)
    outputs = signature.run(inputs)
    if any(output.shape[:1] != (rows + missing,) for output in outputs.values()):
        raise StatusError(
            Code.INTERNAL, f"signature {signature.name} gave another number of rows than it got"
        )
    start = 0
    for call in batch:
        stop = start + call.rows
        call.outputs = {alias: output[start:stop] for alias, output in outputs.items()}
        start = stop
