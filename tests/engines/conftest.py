"""Real engines: a Flink cluster of one job manager and three task managers, Prism, several processes.

The cluster is the one that listens on localhost:8099, else one is set up below $FLINK and started.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlplatform.beam import engines

REPOSITORY = Path(__file__).parents[2]
TASK_MANAGERS = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engines)


@dataclass(frozen=True)
class Flink:
    """A running cluster.

    Attributes:
        folder: Where it lies; None for one that was there before.
    """

    folder: Path | None

    def get(self, path: str) -> Any:
        """Ask the cluster's REST interface."""
        with urllib.request.urlopen(f"http://localhost:8081{path}", timeout=30) as answer:
            return json.load(answer)

    def jobs(self, state: str) -> list[str]:
        """Return the jobs in a state."""
        return [job["id"] for job in self.get("/jobs")["jobs"] if job["status"] == state]


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(2)
        return tried.connect_ex(("localhost", port)) == 0


@pytest.fixture(scope="session")
def flink() -> Iterator[Flink]:
    """The cluster; skips, saying why, where it cannot be had."""
    if is_open(8099) and is_open(8081):
        yield Flink(None)
        return
    missing = [program for program in ("java", "mvn", "unzip", "curl") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no Flink cluster: {', '.join(missing)} not on the PATH")
    folder = Path(os.environ.get("FLINK") or Path.home() / ".cache/mlplatform/flink")
    tools = REPOSITORY / "tools/flink"
    made = subprocess.run(
        ["sh", str(tools / "setup.sh"), str(folder), sys.executable], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no Flink cluster, its packages cannot be had: {made.stderr[-500:]}")
    cluster = ["bash", str(tools / "cluster.sh"), str(folder)]
    started = subprocess.run([*cluster, "start", str(TASK_MANAGERS)], capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    yield Flink(folder)
    subprocess.run([*cluster, "stop"], check=True)


@pytest.fixture(scope="session")
def worker_command(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `mlplatform-beam-worker` is, of this Python and these sources."""
    command = tmp_path_factory.mktemp("worker") / "worker"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlplatform.beam.worker "$@"\n')
    command.chmod(0o755)
    return str(command)


@pytest.fixture(scope="session", params=["direct", "prism", "flink"])
def engine(request: pytest.FixtureRequest) -> list[str]:
    """Beam's arguments of each engine."""
    if request.param == "direct":
        return list(engines.direct(workers=2))
    if request.param == "prism":
        program = shutil.which("prism")
        if program is None:
            pytest.skip(
                "no prism on the PATH (go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.74.0)"
            )
        return list(engines.prism(location=program))
    request.getfixturevalue("flink")
    command = request.getfixturevalue("worker_command")
    return list(engines.flink(parallelism=2, worker_command=command))
