"""Test models, made once per version of this code and of TensorFlow, and servers as processes."""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

MODELS_PROGRAM = Path(__file__).with_name("models.py")


def model_folder() -> Path:
    """Return the folder of the test models; the first call takes some ten seconds, and others wait for it."""
    key = hashlib.sha256(MODELS_PROGRAM.read_bytes() + version("tensorflow").encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"mlplatform-test-models-{os.getuid()}-{key}"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = Path(tempfile.mkdtemp(dir=folder.parent))
            subprocess.run(
                [sys.executable, str(MODELS_PROGRAM), str(partial)],
                check=True,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdout=subprocess.DEVNULL,
            )
            partial.rename(folder)
    return folder


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for what comes to pass in a moment, or later on a busy machine."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come to pass in time"
        time.sleep(0.02)


class Held:
    """A request of the signature `hold` of the model `everything`: it computes until it is let go."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder

    @property
    def inputs(self) -> dict[str, list[str]]:
        return {"folder": [str(self._folder)]}

    def until_it_computes(self) -> None:
        until((self._folder / "running").exists)

    def let_go(self) -> None:
        (self._folder / "go").touch()


class ServerProcess:
    """`mlplatform serve` as a process; ready when its ready line is there.

    Args:
        flags: As on the command line.
        log: File of what it writes.
        processes: What starts it: the module `subprocess`, or the fixture `warm_processes`.
    """

    def __init__(self, *flags: str, log: Path, processes: Any = subprocess) -> None:
        self.log = log
        command = [
            sys.executable,
            "-m",
            "mlplatform.cli.main",
            "serve",
            "--port",
            "0",
            "--rest_api_port",
            "0",
        ]
        with log.open("w") as file:
            self.process = processes.Popen([*command, *flags], stdout=file, stderr=file)
        deadline = time.monotonic() + 120
        while True:
            text = log.read_text("utf-8", "replace")
            ready = re.search(r"ready: gRPC ([\d.]+):(\d+), REST ([\d.]+):(\d+)", text)
            if ready:
                break
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"the server did not start:\n{text}")
            time.sleep(0.1)
        self.grpc = f"{ready[1]}:{ready[2]}"
        self.rest = f"http://{ready[3]}:{ready[4]}"

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
