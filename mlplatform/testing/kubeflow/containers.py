"""Runs the commands of containers on this machine: as processes, or as forks of one that has TFX imported."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from mlplatform.testing.kubeflow.errors import ForkServerError

Mode = Literal["subprocess", "fork", "pod"]
# What a container has of the test's environment: where Python finds code, and how object storage is reached.
_PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "TZ", "LANG")
_PASSED_ON_STARTS = ("AWS_", "GOOGLE_", "AZURE_", "COVERAGE_")


@dataclass(frozen=True)
class Container:
    """A command to run.

    Attributes:
        command: The command; `python` stands for this interpreter.
        environment: Its variables, beside those that every container has.
        folder: Its working directory.
        tmp: Its temporary folder.
        log: File for what it prints.
        disk: The folder that stands for its disk; all others are within it.
        task: The task's name.
        image: Its image.
        resources: Its resources, as the specification has them.
        platform: Its entry in the platform document.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    tmp: Path
    log: Path
    disk: Path
    task: str = ""
    image: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)
    platform: Mapping[str, Any] = field(default_factory=dict)


class Runs(Protocol):
    """Runs containers, one after another."""

    def run(self, container: Container) -> int: ...

    def close(self) -> None: ...


class Containers:
    """Runs containers, one after another.

    Args:
        mode: `subprocess`: each is a process of its own, as on a cluster. `fork`: those that are
            `python -m MODULE` are forks of a process that has imported `preload`.
        folder: For the log of that process.
        environment: Further variables of all containers.
        preload: Modules.
    """

    def __init__(
        self, mode: Mode, folder: Path, environment: Mapping[str, str], preload: Sequence[str]
    ) -> None:
        self._mode, self._log = mode, folder / "forks.log"
        self._environment, self._preload = dict(environment), list(preload)
        self._server: subprocess.Popen[str] | None = None

    def run(self, container: Container) -> int:
        """Run a container to its end, and return its exit status (negative: the signal that killed it).

        Raises:
            ForkServerError: The process to fork from ended.
        """
        environment = {**_passed_on(), **self._environment, **container.environment}
        environment |= {"HOME": str(container.folder), "TMPDIR": str(container.tmp)}
        if self._mode == "fork" and container.command[:2] == ("python", "-m"):
            return self._fork(container, environment)
        program, *words = container.command
        command = [sys.executable if program == "python" else program, *words]
        with container.log.open("wb") as log:
            return subprocess.run(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=container.folder,
                env=environment,
                check=False,
            ).returncode

    def close(self) -> None:
        """End the process that containers are forked from."""
        if self._server is not None:
            _pipe(self._server.stdin).close()
            self._server.wait()
            _pipe(self._server.stdout).close()
            self._server = None

    def _fork(self, container: Container, environment: Mapping[str, str]) -> int:
        if self._server is None:
            with self._log.open("wb") as log:
                self._server = subprocess.Popen(
                    [sys.executable, "-m", "mlplatform.testing.kubeflow.forks", *self._preload],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**_passed_on(), **self._environment},
                    text=True,
                )
        request = {
            "arguments": container.command[2:],
            "environment": dict(environment),
            "folder": str(container.folder),
            "log": str(container.log),
        }
        try:
            requests = _pipe(self._server.stdin)
            requests.write(json.dumps(request) + "\n")
            requests.flush()
            answer = _pipe(self._server.stdout).readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            status, self._server = self._server.wait(), None
            raise ForkServerError(status, self._log.read_text(errors="replace"))
        return int(answer)


def _passed_on() -> dict[str, str]:
    return {
        key: value
        for key, value in os.environ.items()
        if key in _PASSED_ON or key.startswith(_PASSED_ON_STARTS)
    }


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
