"""Requests that pile up share a run; limits and deadlines hold."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from tensorflow.core.protobuf import meta_graph_pb2

from mlplatform.serving.scheduling import BatchingParameters, Scheduler
from mlplatform.serving.servable import Signature, TensorSpec
from mlplatform.serving.status import Code, StatusError, invalid_argument

FLOAT = 1


class Doubling:
    """y = 2 x, at a pace that the test sets; remembers the size of each run; refuses negative numbers."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.runs: list[int] = []

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.runs.append(len(inputs["x"]))
        assert self.go.wait(10)
        if (inputs["x"] < 0).any():
            raise invalid_argument("negative")
        return {"y": inputs["x"] * 2}

    def signature(self, *, is_stateless: bool = True) -> Signature:
        spec = {"x": TensorSpec(FLOAT, (None,))}
        outputs = {"y": TensorSpec(FLOAT, (None,))}
        definition = meta_graph_pb2.SignatureDef()
        return Signature("s", definition, spec, outputs, self.run, is_stateless=is_stateless)


class Callers:
    """Threads that ask; what each was answered, or refused with."""

    def __init__(self, scheduler: Scheduler, signature: Signature) -> None:
        self.scheduler, self.signature = scheduler, signature
        self.outcomes: dict[int, Any] = {}
        self.threads: list[threading.Thread] = []

    def ask(self, name: int, values: list[float], timeout_s: float | None = None) -> None:
        def work() -> None:
            try:
                x = np.array(values, np.float32)
                self.outcomes[name] = self.scheduler.run(self.signature, {"x": x}, timeout_s)["y"].tolist()
            except StatusError as error:
                self.outcomes[name] = error

        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()

    def join(self) -> dict[int, Any]:
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()
        return self.outcomes


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def model() -> Doubling:
    return Doubling()


def callers(model: Doubling, *, is_stateless: bool = True, **parameters: Any) -> Callers:
    scheduler = Scheduler(BatchingParameters(**{"num_batch_threads": 1, **parameters}))
    return Callers(scheduler, model.signature(is_stateless=is_stateless))


def pile_up(asking: Callers, model: Doubling, values: list[list[float]]) -> None:
    """One request runs; the others queue behind it."""
    asking.ask(0, [1.0])
    until(lambda: len(model.runs) == 1)
    for name, each in enumerate(values, start=1):
        asking.ask(name, each)
        until(lambda number=name: asking.scheduler.waiting == number)


def test_what_piles_up_runs_together_and_is_told_apart(model: Doubling) -> None:
    asking = callers(model)
    pile_up(asking, model, [[1, 2], [3], [4, 5, 6]])
    model.go.set()
    assert asking.join() == {0: [2], 1: [2, 4], 2: [6], 3: [8, 10, 12]}
    assert model.runs == [1, 6]


def test_a_batch_has_a_largest_size(model: Doubling) -> None:
    asking = callers(model, max_batch_size=4)
    pile_up(asking, model, [[1.0, 1.0]] * 5)
    model.go.set()
    asking.join()
    assert model.runs == [1, 4, 4, 2]


def test_what_runs_row_by_row_never_shares(model: Doubling) -> None:
    asking = callers(model)
    asking.signature.runs_row_by_row = True
    pile_up(asking, model, [[1, 2], [3]])
    model.go.set()
    assert asking.join() == {0: [2], 1: [2, 4], 2: [6]}
    assert model.runs == [1, 2, 1]


def test_size_one_and_state_never_share(model: Doubling) -> None:
    for options in ({"max_batch_size": 1}, {"is_stateless": False}):
        model.runs.clear()
        model.go.clear()
        asking = callers(model, **options)
        pile_up(asking, model, [[1.0]] * 3)
        model.go.set()
        asking.join()
        assert model.runs == [1, 1, 1, 1]


def test_an_error_stays_with_its_request(model: Doubling) -> None:
    asking = callers(model)
    pile_up(asking, model, [[1], [-1], [3]])
    model.go.set()
    outcomes = asking.join()
    assert (outcomes[1], outcomes[3]) == ([2], [6])
    assert outcomes[2].code == Code.INVALID_ARGUMENT
    assert model.runs[:2] == [1, 3]


def test_one_bad_request_does_not_make_every_other_run_alone(model: Doubling) -> None:
    asking = callers(model)
    pile_up(asking, model, [[float(n)] if n != 9 else [-1.0] for n in range(1, 33)])
    model.go.set()
    outcomes = asking.join()
    assert outcomes.pop(9).code == Code.INVALID_ARGUMENT
    assert outcomes == {0: [2.0], **{n: [2.0 * n] for n in range(1, 33) if n != 9}}
    assert len(model.runs) <= 1 + 1 + 2 * 5  # halves of 32, not 32 single runs


def test_padding_to_an_allowed_size_is_not_seen(model: Doubling) -> None:
    asking = callers(model, max_batch_size=8, allowed_batch_sizes=(4, 8))
    pile_up(asking, model, [[1, 2], [3]])
    model.go.set()
    assert asking.join() == {0: [2], 1: [2, 4], 2: [6]}
    assert model.runs == [4, 4]


def test_requests_without_rows_are_padded_with_those_of_others(model: Doubling) -> None:
    asking = callers(model, max_batch_size=8, allowed_batch_sizes=(4, 8))
    pile_up(asking, model, [[], [3]])
    asking.ask(9, [])
    model.go.set()
    assert asking.join() == {0: [2], 1: [], 2: [6], 9: []}


class Summing(Doubling):
    """One row for the whole batch, though it declares a row for each."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": super().run(inputs)["y"].sum(keepdims=True)}


def test_a_signature_that_does_not_keep_rows_is_not_tried_again() -> None:
    model = Summing()
    asking = callers(model)
    pile_up(asking, model, [[1, 2], [3, 4]])
    model.go.set()
    assert asking.join() == {0: [2], 1: [6], 2: [14]}
    assert model.runs == [1, 4, 2, 2]
    assert not asking.signature.is_batchable


def test_a_batch_that_waits_for_more_starts_when_it_is_full(model: Doubling) -> None:
    model.go.set()
    asking = callers(model, num_batch_threads=2, max_batch_size=4, batch_timeout_micros=60_000_000)
    for n in range(4):
        asking.ask(n, [float(n)])
    assert asking.join() == {n: [2.0 * n] for n in range(4)}
    assert model.runs == [4]


def test_a_batch_that_waits_for_more_starts_when_its_time_is_up(model: Doubling) -> None:
    model.go.set()
    asking = callers(model, max_batch_size=4, batch_timeout_micros=50_000)
    asking.ask(0, [1.0])
    assert asking.join() == {0: [2]}
    assert model.runs == [1]


def test_a_full_queue_refuses_at_once(model: Doubling) -> None:
    asking = callers(model, max_queued=2)
    pile_up(asking, model, [[1.0]] * 2)
    asking.ask(9, [1.0])
    until(lambda: 9 in asking.outcomes)
    assert asking.outcomes[9].code == Code.RESOURCE_EXHAUSTED
    model.go.set()
    asking.join()


def test_a_deadline_in_the_queue(model: Doubling) -> None:
    asking = callers(model)
    pile_up(asking, model, [])
    asking.ask(1, [1.0], timeout_s=0.05)
    until(lambda: 1 in asking.outcomes)
    assert asking.outcomes[1].code == Code.DEADLINE_EXCEEDED
    assert asking.scheduler.waiting == 0
    model.go.set()
    asking.join()
    asking.ask(2, [3.0])  # by the one runner, which is free again
    assert asking.join()[2] == [6]
    assert model.runs == [1, 1]


def test_different_shapes_do_not_mix(model: Doubling) -> None:
    asking = callers(model)
    asking.ask(0, [1.0])
    until(lambda: len(model.runs) == 1)
    asking.ask(1, [1.0])
    asking.ask(2, [[1.0, 2.0]])  # type: ignore[list-item]
    until(lambda: asking.scheduler.waiting == 2)
    model.go.set()
    assert asking.join() == {0: [2], 1: [2], 2: [[2, 4]]}
