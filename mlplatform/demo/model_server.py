"""The model server of a demo: `mlplatform serve` as a child, at a socket that nobody else may open.

TensorFlow stays out of the process that people's browsers talk to. The child ends with this process,
however that happens.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlplatform.demo.errors import ModelServerEndedError

START_S = 180.0
_LAST_LINES = 10
_CHILD = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: end when the parent does
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
from mlplatform.serving.process import serve_until_stopped
serve_until_stopped({
    "model_config_file": sys.argv[2], "grpc_socket_path": sys.argv[3], "port": -1, "rest_api_port": -1,
    "lame_duck_s": 0.0, "drain_s": 5.0,
})
"""


class ChildModelServer:
    """A model server that runs as a child.

    Attributes:
        address: Its address, as `Client` takes it.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
        self.address = address
        self._process, self._log = process, log

    def check(self) -> None:
        """See that it runs.

        Raises:
            ModelServerEndedError: It ended.
        """
        exit_code = self._process.poll()
        if exit_code is not None:
            raise ModelServerEndedError(exit_code, START_S, self._last_lines())

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while b"mlplatform serve: ready" not in self._log.read_bytes():
            self.check()
            if time.monotonic() > deadline:
                raise ModelServerEndedError(None, START_S, self._last_lines())
            time.sleep(0.05)

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:])


@contextmanager
def served(model: str, base_path: str, versions: Sequence[int]) -> Iterator[ChildModelServer]:
    """Run a model server for some versions of a model while the block runs.

    Args:
        model: The model's name.
        base_path: Folder or URL of its versions.
        versions: Which ones are loaded.

    Raises:
        ModelServerEndedError: It ended, or was not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="mlplatform-demo-") as scratch:  # 0700: nobody else gets in
        folder = Path(scratch)
        config, socket, log = folder / "models.config", folder / "s", folder / "server.log"
        config.write_text(_config(model, base_path, versions), "utf-8")
        words = [sys.executable, "-c", _CHILD, str(os.getpid()), str(config), str(socket)]
        with log.open("wb") as file:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        server = ChildModelServer(process, f"unix:{socket}", log)
        try:
            server._wait_until_ready()
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _config(model: str, base_path: str, versions: Sequence[int]) -> str:
    """Return a ModelServerConfig in text form; names and paths are quoted as text protos are."""
    wanted = " ".join(f"versions: {version}" for version in versions)
    quoted = "".join(f"\\{byte:03o}" for byte in base_path.encode())
    return (
        f'model_config_list {{ config {{ name: "{model}" base_path: "{quoted}" model_platform: "tensorflow" '
        f"model_version_policy {{ specific {{ {wanted} }} }} }} }}\n"
    )
