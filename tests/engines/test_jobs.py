"""Jobs on Flink: their progress and page, the worker's own exception, cancelling."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest

from mlplatform import progress
from mlplatform.beam.errors import EngineJobError
from mlplatform.beam.runners import pipeline_options
from mlplatform.orchestration.engine import parse_engine

RECORDS, PAUSE_S = 400, 0.02


class Seen:
    """A sink that remembers what was reported."""

    def __init__(self) -> None:
        self.records, self.notes, self.lines = 0.0, set[str](), list[str]()

    def update(self, task: progress.Task) -> None:
        self.records = max(self.records, task.done)
        self.notes.add(task.note)

    def finish(self, task: progress.Task) -> None: ...

    def report_line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def seen() -> Iterator[Seen]:
    sink = Seen()
    before = progress.set_sink(sink)
    yield sink
    progress.set_sink(before)


@pytest.fixture
def flink_arguments(on_flink: dict[str, Any]) -> list[str]:
    return [*parse_engine(on_flink).arguments]


def test_progress_comes_from_the_engine(flink: Any, flink_arguments: list[str], seen: Seen) -> None:
    with beam.Pipeline(options=pipeline_options(flink_arguments)) as pipeline:
        _ = (
            pipeline
            | beam.Create(range(RECORDS))
            | beam.Reshuffle()
            | beam.Map(lambda _: time.sleep(PAUSE_S))
        )
    [page] = [text for text in seen.lines if text.startswith("Beam job: http://localhost:8081/#/job/")]
    assert flink.get(f"/jobs/{page.split('/')[-2]}")["state"] == "FINISHED"
    assert seen.records >= RECORDS
    assert any(note.startswith("stage 1 of ") for note in seen.notes)


def failure(arguments: list[str], function: Any) -> list[str]:
    """Return the lines of the error of a job whose worker fails."""
    with pytest.raises(EngineJobError) as raised:  # noqa: SIM117
        with beam.Pipeline(options=pipeline_options(arguments)) as pipeline:
            _ = pipeline | beam.Create([7]) | "Number" >> beam.Map(function)
    return str(raised.value).splitlines()


def test_the_workers_own_exception_is_the_first_line(flink_arguments: list[str]) -> None:
    first, page = failure(flink_arguments, lambda number: int(f"no number {number}"))
    expected = "ValueError: invalid literal for int() with base 10: 'no number 7' [while running 'Number']"
    assert first == expected
    assert page.startswith("The job's page: http://localhost:8081/#/job/")


def _of_this_module(number: int) -> int:
    return number


@pytest.mark.timeout(300)  # Flink would wait three minutes in each of its four attempts
def test_a_module_that_workers_do_not_have_is_named_without_a_long_wait(flink_arguments: list[str]) -> None:
    first, *_ = failure(flink_arguments, _of_this_module)
    assert first.startswith("ModuleNotFoundError: No module named")


_SCRIPT = """
import sys, threading
import apache_beam as beam
from mlplatform import progress
from mlplatform.beam.runners import pipeline_options

class Sink:
    def update(self, task): pass
    def finish(self, task): pass
    def report_line(self, text): print(text, flush=True)

progress.set_sink(Sink())
with beam.Pipeline(options=pipeline_options(sys.argv[1:])) as pipeline:
    pipeline | beam.Create([1]) | beam.Map(lambda _: threading.Event().wait())
"""


def test_ctrl_c_cancels_the_job(flink: Any, flink_arguments: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *flink_arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as submitting:  # fmt: skip
        assert submitting.stdout is not None
        job = submitting.stdout.readline().split("/")[-2]
        os.kill(submitting.pid, signal.SIGINT)
        submitting.wait(timeout=60)
    while (state := flink.get(f"/jobs/{job}")["state"]) == "CANCELLING":
        time.sleep(0.2)
    assert state == "CANCELED"
