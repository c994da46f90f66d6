"""Real engines: a Flink cluster of one job manager and three task managers, Spark, Prism, several processes.

The cluster is the one that listens on localhost:8099, else one is set up below $FLINK and started; so is
Spark's job server on localhost:8098, below $SPARK.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlplatform.orchestration.engine import parse_engine

sys.path.insert(0, str(Path(__file__).parent))  # what these tests share

TOOLS = Path(__file__).parents[2] / "tools"
CLUSTER = ["bash", str(TOOLS / "flink/cluster.sh")]
SPARK = ["bash", str(TOOLS / "spark/job_server.sh")]
TASK_MANAGERS = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engines)


@pytest.fixture(scope="session", autouse=True)
def _no_words_of_pytest() -> Iterator[None]:
    """TFX's Beam executors parse this process's command line, where -v would be a flag of theirs."""
    before, sys.argv = sys.argv, sys.argv[:1]
    yield
    sys.argv = before


@dataclass(frozen=True)
class Flink:
    """A running cluster.

    Attributes:
        folder: Where it lies.
    """

    folder: Path

    def get(self, path: str) -> Any:
        """Ask the cluster's REST interface."""
        with urllib.request.urlopen(f"http://localhost:8081{path}", timeout=30) as answer:
            return json.load(answer)

    def jobs(self, state: str) -> list[str]:
        """Return the jobs in a state."""
        return [job["id"] for job in self.get("/jobs")["jobs"] if job["status"] == state]

    def busy(self) -> psutil.Process | None:
        """Return a task manager that has a Python worker, while a job has come to its records."""
        for job in self.jobs("RUNNING"):
            counts = [vertex["metrics"]["write-records"] for vertex in self.get(f"/jobs/{job}")["vertices"]]
            if any(counts):
                return next((manager for manager in task_managers() if manager.children()), None)
        return None

    def orphans(self) -> list[psutil.Process]:
        """Return the Python workers that no task manager has."""
        managers = {manager.pid for manager in task_managers()}
        return [worker for worker in workers() if not managers & {parent.pid for parent in worker.parents()}]

    def workers(self) -> list[psutil.Process]:
        """Return the Python workers of engines on this machine."""
        return workers()

    def peak_mb(self, but: set[int]) -> float:
        """Return the most resident memory, in MB, that a living Python worker has had, but for some by id."""
        peaks = [0]
        for worker in workers():
            with suppress(OSError):  # it ended
                status = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
                if worker.pid not in but:
                    peaks += [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
        return max(peaks) / 1024

    @contextmanager
    def kill_a_busy_one(self) -> Iterator[list[int]]:
        """Kill a busy task manager within the block, once; another takes its place, as on a real cluster."""
        killed: list[int] = []
        is_over = threading.Event()

        def kill() -> None:
            while not killed and not is_over.wait(0.1):
                with suppress(OSError, psutil.NoSuchProcess):
                    if (manager := self.busy()) is not None:
                        manager.kill()
                        killed.append(manager.pid)
            if killed:
                subprocess.run([*CLUSTER, str(self.folder), "add"], check=True, capture_output=True)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield killed
        finally:
            is_over.set()
            killer.join()


def task_managers() -> list[psutil.Process]:
    return [
        process for process in psutil.process_iter(["cmdline"]) if "TaskManagerRunner" in words_of(process)
    ]


def workers() -> list[psutil.Process]:
    names = ("mlplatform.beam.worker", "mlplatform-beam-worker")
    return [p for p in psutil.process_iter(["cmdline"]) if any(name in words_of(p) for name in names)]


def words_of(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or [])


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(2)
        return tried.connect_ex(("localhost", port)) == 0


@pytest.fixture(scope="session")
def flink() -> Iterator[Flink]:
    """The cluster; skips, saying why, where it cannot be had."""
    folder = Path(os.environ.get("FLINK") or Path.home() / ".cache/mlplatform/flink")
    if is_open(8099) and is_open(8081):
        yield Flink(folder)
        return
    missing = [program for program in ("java", "mvn", "unzip", "curl") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no Flink cluster: {', '.join(missing)} not on the PATH")
    made = subprocess.run(
        ["sh", str(TOOLS / "flink/setup.sh"), str(folder), sys.executable], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no Flink cluster, its packages cannot be had: {made.stderr[-500:]}")
    cluster = [*CLUSTER, str(folder)]
    started = subprocess.run([*cluster, "start", str(TASK_MANAGERS)], capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    yield Flink(folder)
    subprocess.run([*cluster, "stop"], check=True)


@pytest.fixture(scope="session")
def worker_command(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `mlplatform-beam-worker` is, of this Python and these sources."""
    command = tmp_path_factory.mktemp("worker") / "worker"
    # `python -m` looks into the folder that it is started in first, which is the engine's.
    words = f'cd "{TOOLS.parent}" && exec "{sys.executable}" -m mlplatform.beam.worker "$@"'
    command.write_text(f"#!/bin/sh\n{words}\n")
    command.chmod(0o755)
    return str(command)


@pytest.fixture(scope="session")
def spark() -> Iterator[str]:
    """Address of Spark's job server; skips, saying why, where it cannot be had."""
    if is_open(8098):
        yield "localhost:8098"
        return
    folder = str(Path(os.environ.get("SPARK") or Path.home() / ".cache/mlplatform/spark"))
    made = subprocess.run([*SPARK, folder, "setup"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no Spark, its packages cannot be had: {made.stderr[-500:]}")
    started = subprocess.run([*SPARK, folder, "start"], capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    yield "localhost:8098"
    subprocess.run([*SPARK, folder, "stop"], check=True)


@pytest.fixture(scope="session", params=["direct", "prism", "spark", "flink"])
def block(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The block of each engine, as a pipeline's configuration has it."""
    if request.param == "direct":
        return {"name": "direct", "workers": 2}
    if request.param == "prism":
        program = os.environ.get("PRISM") or shutil.which("prism")
        if program is None:
            pytest.skip(
                "no prism on the PATH (go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.74.0)"
            )
        return {"name": "prism", "location": program}
    command = request.getfixturevalue("worker_command")
    if request.param == "spark":
        return {
            "name": "spark",
            "job_endpoint": request.getfixturevalue("spark"),
            "worker_command": command,
        }
    request.getfixturevalue("flink")
    return {"name": "flink", "parallelism": 2, "worker_command": command}


@pytest.fixture(scope="session")
def on_flink(flink: Flink, worker_command: str) -> dict[str, Any]:
    """The block of Flink alone."""
    return {"name": "flink", "parallelism": 2, "worker_command": worker_command}


@pytest.fixture(scope="session")
def engine(block: dict[str, Any]) -> list[str]:
    """Beam's arguments of each engine."""
    found = parse_engine(block)
    assert found is not None
    return [*found.arguments]
