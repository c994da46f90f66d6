"""A real API server of Kubernetes, and a base for images that are built here.

The server's programs lie below $KUBERNETES (default: ~/.cache/mlplatform/kubernetes) and are built there the
first time; where that, or anything else, cannot be had, the tests skip and say why.
"""

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

TOOLS = Path(__file__).parents[2] / "tools" / "kubernetes"
FOLDER = Path(os.environ.get("KUBERNETES") or Path.home() / ".cache/mlplatform/kubernetes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)


def run(*words: object, input: str | None = None) -> str:
    """Run a program, and return what it prints on stdout."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, input=input
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


class Notes:
    """How long things took and what memory they had; printed when the session ends."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, what: str, seconds: float) -> None:
        """Note how long something took, in seconds."""
        self.lines.append(f"  {what}: {seconds:.1f} s")

    def of_memory(self, megabytes: dict[str, int]) -> None:
        """Note the memory of processes, in units of 10^6 bytes."""
        each = ", ".join(f"{name} {size}" for name, size in megabytes.items())
        self.lines.append(f"  memory: {sum(megabytes.values())} MB: {each}")


@pytest.fixture(scope="session")
def note() -> Iterator[Notes]:
    """Takes notes."""
    notes = Notes()
    yield notes
    print("\nmeasured here:", *notes.lines, sep="\n", file=sys.__stderr__)


class ApiServer:
    """A running API server."""

    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *words: object, input: str | None = None) -> str:
        """Run kubectl, and return what it prints."""
        own = ["--kubeconfig", self.kubeconfig, "--cache-dir", FOLDER / "state/cache"]
        return run(FOLDER / "bin/kubectl", *own, *words, input=input)

    def apply(self, *documents: Any, namespace: str) -> None:
        """Create or change objects."""
        self.kubectl("apply", "-n", namespace, "-f", "-", input=yaml.safe_dump_all(documents))

    def memory_mb(self) -> dict[str, int]:
        """Return the resident memory of each of its processes, in units of 10^6 bytes."""
        found = {}
        for file in sorted((FOLDER / "state").glob("*.pid")):
            status = Path(f"/proc/{file.read_text().strip()}/status").read_text()
            (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
            found[file.stem] = int(line.split()[1]) * 1024 // 1_000_000
        return found


@pytest.fixture(scope="session")
def api_server(note: Notes) -> Iterator[ApiServer]:
    """The API server, for the session; skips, saying why, where it cannot be had."""
    if os.getuid() != 0:
        pytest.skip("no API server: it needs root")
    if missing := [program for program in ("etcd", "ip", "openssl") if shutil.which(program) is None]:
        pytest.skip(f"no API server: {', '.join(missing)} not on the PATH")
    began = time.monotonic()
    built = subprocess.run(["sh", TOOLS / "build.sh", FOLDER], capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"no API server, its programs cannot be built: {built.stderr[-500:]}")
    note("programs built (kept)", time.monotonic() - began)
    began = time.monotonic()
    try:
        found = ApiServer(run("sh", TOOLS / "api_server.sh", FOLDER, "up").strip())
        note("API server started", time.monotonic() - began)
        yield found
        note.of_memory(found.memory_mb())
    finally:
        run("sh", TOOLS / "api_server.sh", FOLDER, "down")


@pytest.fixture
def scaling_model(tmp_path: Path) -> Callable[[float], Path]:
    """Make SavedModels that multiply by a factor, with one golden request."""
    numbers = itertools.count()

    def make(factor: float) -> Path:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

        folder = tmp_path / f"model-{next(numbers)}"
        module = tf.Module()
        module.factor = tf.Variable(factor)
        spec = tf.TensorSpec([None], tf.float32, name="x")
        module.scale = tf.function(lambda x: {"y": x * module.factor}, input_signature=[spec])
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.scale})
        log = prediction_log_pb2.PredictLog(
            request=predict_pb2.PredictRequest(inputs={"x": tf.make_tensor_proto([2.0])}),
            response=predict_pb2.PredictResponse(outputs={"y": tf.make_tensor_proto([2.0 * factor])}),
        )
        (folder / "assets.extra").mkdir()
        with tf.io.TFRecordWriter(str(folder / "assets.extra/tf_serving_warmup_requests")) as writer:
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
        return folder

    return make
