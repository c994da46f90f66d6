"""Jobs behind a job server, followed from the process that submitted them.

While a job runs, its page, stage and records are shown; where this process is interrupted, the job is
cancelled; where it fails, the error is the worker's own, not the engine's stack around it.
"""

import json
import re
import signal
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from mlplatform.beam.errors import EngineJobError
from mlplatform.beam.metrics import records_in
from mlplatform.beam.runners import EngineOptions
from mlplatform.progress import Task, report_line, track

ASK_EVERY_S = 1.0
_TIMEOUT_S = 5.0
_TRACEBACK = "Traceback (most recent call last):\n"
_JAVA = re.compile(r"^(\tat |Caused by: |java\.|org\.apache\.|\s*\.\.\. \d+ more)")

_page = ""  # of the engine of this process's jobs
_is_followed = False


def follow_jobs(beam_arguments: Sequence[object]) -> None:
    """Follow the jobs that this process submits to a job server from now on.

    Args:
        beam_arguments: Beam's arguments of these jobs.
    """
    global _page, _is_followed
    options = PipelineOptions([*map(str, beam_arguments)]).view_as(EngineOptions)
    _page = (options.engine_page or "").rstrip("/")
    if _is_followed:
        return
    from apache_beam.runners.portability import portable_runner

    wait = portable_runner.PipelineResult.wait_until_finish

    def wait_and_follow(result: Any, duration: int | None = None) -> Any:
        return _followed(result, lambda: wait(result, duration))

    portable_runner.PipelineResult.wait_until_finish = wait_and_follow
    _is_followed = True


def _followed(result: Any, wait: Callable[[], Any]) -> Any:
    job = _EngineJob(result, _page)
    is_over = threading.Event()
    with track("Beam", unit="records") as task, _sigterm_as_exception():
        follower = threading.Thread(target=job.show, args=(task, is_over), daemon=True)
        follower.start()
        try:
            return wait()
        except RuntimeError as error:
            raise EngineJobError(worker_error(str(error)), job.address) from error
        except (KeyboardInterrupt, SystemExit):
            job.cancel()
            raise
        finally:
            is_over.set()
            follower.join()


@contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Let SIGTERM, with which a run ends its nodes, be seen while a job is waited for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _EngineJob:
    """A job as Beam's job server knows it and, where the engine has a page, as the engine does."""

    def __init__(self, result: Any, page: str) -> None:
        self._result, self._page = result, page
        self._number = getattr(result, "_job_id", "")
        self._name = self._number.rpartition("_")[0]  # the job server's is `<job name>_<unique>`
        self._id = ""

    @property
    def address(self) -> str:
        """The job's page; empty where none is known."""
        return f"{self._page}/#/job/{self._id}/overview" if self._id else ""

    def show(self, task: Task, is_over: threading.Event) -> None:
        """Report what the job does until it is over, and in the end what it did."""
        is_last = False
        while not is_last:
            is_last = is_over.wait(ASK_EVERY_S)
            with suppress(Exception):  # an engine that does not answer now may do so the next time
                records, note = self._of_page() if self._page else self._of_job_server()
                task.advance(max(records - task.done, 0), note)

    def cancel(self) -> None:
        """End the job. Flink lets a job go on that its job server has given up: it is asked itself."""
        with suppress(Exception):
            self._result.cancel()
        with suppress(Exception):
            if self._page and (self._id or self._find()):
                self._ask(f"/jobs/{self._id}?mode=cancel", "PATCH")

    def _of_page(self) -> tuple[int, str]:
        if not self._id:
            if not self._find():
                return 0, "waits for the engine"
            report_line(f"Beam job: {self.address}")
        vertices = self._ask(f"/jobs/{self._id}")["vertices"]
        over = sum(vertex["status"] == "FINISHED" for vertex in vertices)
        counts = [
            vertex["metrics"][name] for vertex in vertices for name in ("read-records", "write-records")
        ]
        return max(counts, default=0), f"stage {min(over + 1, len(vertices))} of {len(vertices)}"

    def _of_job_server(self) -> tuple[int, str]:
        from apache_beam.portability.api import beam_job_api_pb2

        request = beam_job_api_pb2.GetJobMetricsRequest(job_id=self._number)
        found = self._result._job_service.GetJobMetrics(request, timeout=_TIMEOUT_S).metrics
        return records_in([*found.committed, *found.attempted]), str(self._result.state).lower()

    def _find(self) -> bool:
        jobs: Iterable[dict[str, Any]] = self._ask("/jobs/overview")["jobs"]
        self._id = next((job["jid"] for job in jobs if job["name"] == self._name), "")
        return bool(self._id)

    def _ask(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"{self._page}{path}", method=method)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return json.loads(answer.read() or b"{}")


def worker_error(text: str) -> str:
    """Return the worker's own exception from the text of a failed job; else the text's last line.

    Args:
        text: Stacks of Java around a traceback of Python, which may hold further ones that caused it.
    """
    _, is_there, last = text.rpartition(_TRACEBACK)
    if not is_there:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not _JAVA.match(line)]
        return lines[-1] if lines else text.strip()
    lines = last.splitlines()
    first = next((place for place, line in enumerate(lines) if line and not line.startswith(" ")), 0)
    found = []
    for line in lines[first:]:
        if _JAVA.match(line):
            break
        found.append(line)
    return "\n".join(found).strip()
