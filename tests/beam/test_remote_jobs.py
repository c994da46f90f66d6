"""Jobs behind a job server, here Beam's own in Python: progress, the worker's error, cancelling."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability import local_job_service

from mlplatform import progress
from mlplatform.beam.engines import portable
from mlplatform.beam.errors import EngineJobError
from mlplatform.beam.remote_jobs import worker_error
from mlplatform.beam.runners import pipeline_options


class Seen:
    """A sink that remembers what was reported."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, task: progress.Task) -> None:
        self.notes.append(task.note)

    def finish(self, task: progress.Task) -> None: ...

    def report_line(self, text: str) -> None: ...


@pytest.fixture(scope="module")
def arguments() -> Iterator[list[str]]:
    servicer = local_job_service.LocalJobServicer()
    port = servicer.start_grpc_server(0)
    yield list(portable(job_endpoint=f"localhost:{port}", environment="loopback"))
    servicer.stop()


def _pass(number: int) -> int:
    if number == 7:
        raise ValueError("seven is not allowed")
    return number


@pytest.fixture
def seen() -> Iterator[Seen]:
    sink = Seen()
    before = progress.set_sink(sink)
    yield sink
    progress.set_sink(before)


def test_a_job_reports_its_state(arguments: list[str], seen: Seen) -> None:
    with beam.Pipeline(options=pipeline_options(arguments)) as pipeline:
        _ = pipeline | beam.Create(range(5)) | beam.Map(_pass)
    assert "done" in seen.notes  # this job server knows no numbers of records


def test_the_workers_own_exception_is_the_first_line(arguments: list[str]) -> None:
    with pytest.raises(EngineJobError) as raised:  # noqa: SIM117
        with beam.Pipeline(options=pipeline_options(arguments)) as pipeline:
            _ = pipeline | beam.Create(range(9)) | "Number" >> beam.Map(_pass)
    assert str(raised.value).splitlines()[0] == "ValueError: seven is not allowed [while running 'Number']"


_FLINK = """java.lang.RuntimeException: Error received from SDK harness: Traceback (most recent call last):
  File "common.py", line 1498, in process
ValueError: no photo

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "sdk_worker.py", line 316, in _execute
    response = task()
mlplatform.errors.PhotoError: no photo
at a second line [while running 'Read']

\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient.handle(FnApiControlClient.java:180)
Caused by: java.lang.Exception: something else"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (_FLINK, "mlplatform.errors.PhotoError: no photo\nat a second line [while running 'Read']"),
        ("Pipeline x failed in state FAILED: java.lang.OutOfMemoryError: heap\n\tat java.util.Map", None),
        ("no stack at all", "no stack at all"),
    ],
)
def test_the_workers_exception_is_found_among_those_of_java(text: str, cause: str | None) -> None:
    assert worker_error(text) == (cause or text.splitlines()[0])


_SCRIPT = """
import sys, threading
import apache_beam as beam
from mlplatform import progress
from mlplatform.beam.runners import pipeline_options

class Sink:
    def update(self, task):
        if task.note: print("running", flush=True)
    def finish(self, task): pass
    def report_line(self, text): pass

progress.set_sink(Sink())
with beam.Pipeline(options=pipeline_options(sys.argv[1:])) as pipeline:
    pipeline | beam.Create([1]) | beam.Map(lambda _: threading.Event().wait())
"""


# A process of its own: Beam's threads in it raise when the worker that was killed is gone.
_SERVER = """
import threading
from apache_beam.runners.portability import local_job_service

class Servicer(local_job_service.LocalJobServicer):
    def Cancel(self, request, context=None):
        print("cancelled", flush=True)
        return super().Cancel(request, context)

print(Servicer().start_grpc_server(0), flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_job(number: int) -> None:
    quiet: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "-c", _SERVER], **quiet) as server:
        assert server.stdout is not None
        given = portable(job_endpoint=f"localhost:{int(server.stdout.readline())}", environment="loopback")
        with subprocess.Popen([sys.executable, "-c", _SCRIPT, *given], **quiet) as submitting:
            assert submitting.stdout is not None
            assert submitting.stdout.readline() == "running\n"
            os.kill(submitting.pid, number)
            in_vain = threading.Timer(120, server.kill)
            in_vain.start()
            answer = server.stdout.readline()
            in_vain.cancel()
            submitting.kill()
        server.kill()
        assert answer + server.stdout.read() == "cancelled\n"
