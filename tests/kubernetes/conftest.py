"""A real Kubernetes of one node on this machine, and an image that is built here.

The programs of Kubernetes lie below $KUBERNETES (default: ~/.cache/mlplatform/kubernetes) and are built
there the first time. Tests that need no pods start its API server alone. Where something cannot be had, tests
skip and say why.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

TOOLS = Path(__file__).parents[2] / "tools" / "kubernetes"
FOLDER = Path(os.environ.get("KUBERNETES") or Path.home() / ".cache/mlplatform/kubernetes")
BASE, IMAGE = "localhost/python:trixie", "localhost/mlplatform:test"
PACKAGES = "localhost/mlplatform:packages"  # an image that was built on BASE, on which later ones are built
ADDRESS = "10.250.0.1"  # of this machine, as pods see it
NODE_PROGRAMS = ("containerd", "ctr", "runc", "iptables", "conntrack", "gcc", "podman")
CNI_PLUGINS = Path("/usr/lib/cni")
# What the processes of all pods have in memory, without files, by control groups of version 1 and 2.
PODS_MEMORY = {
    Path("/sys/fs/cgroup/memory/kubepods/memory.stat"): "total_rss",
    Path("/sys/fs/cgroup/kubepods/memory.stat"): "anon",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)


def run(*words: object, input: str | None = None) -> str:
    """Run a program, and return what it prints on stdout."""
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        input=input,
        env={**os.environ, "CONTAINERS_CONF": str(TOOLS / "containers.conf")},
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def missing(*programs: str) -> str:
    """Return which programs are not on the PATH, for a sentence; empty for none."""
    return ", ".join(program for program in programs if shutil.which(program) is None)


class Notes:
    """How long things took and what memory they had; printed when the session ends."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, what: str, seconds: float) -> None:
        """Note how long something took, in seconds."""
        self.lines.append(f"  {what}: {seconds:.1f} s")

    def of_memory(self, megabytes: Mapping[str, int]) -> None:
        """Note the memory of processes, in units of 10^6 bytes."""
        each = ", ".join(f"{name} {size}" for name, size in megabytes.items())
        self.lines.append(f"  most memory of each: {sum(megabytes.values())} MB: {each}")


@pytest.fixture(scope="session")
def note() -> Iterator[Notes]:
    """Takes notes."""
    notes = Notes()
    yield notes
    print("\nmeasured here:", *notes.lines, sep="\n", file=sys.__stderr__)


class Cluster:
    """A running cluster, or its API server alone."""

    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *words: object, input: str | None = None) -> str:
        """Run kubectl, and return what it prints."""
        own = ["--kubeconfig", self.kubeconfig, "--cache-dir", FOLDER / "state/cache"]
        return run(FOLDER / "bin/kubectl", *own, *words, input=input)

    def get(self, *words: object) -> Any:
        """Return an object, or the items of a list."""
        found = json.loads(self.kubectl("get", *words, "-o", "json"))
        return found.get("items", found)

    def apply(self, *documents: Any, namespace: str) -> None:
        """Create or change objects."""
        self.kubectl("apply", "-n", namespace, "-f", "-", input=yaml.safe_dump_all(documents))

    def memory_mb(self) -> dict[str, int]:
        """Return the most memory that each of its own processes has had, in units of 10^6 bytes."""
        found = {}
        for file in sorted((FOLDER / "state").glob("*.pid")):
            status = Path(f"/proc/{file.read_text().strip()}/status").read_text()
            (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
            found[file.stem] = int(line.split()[1]) * 1024 // 1_000_000
        return found


def build(*programs: str) -> None:
    """Build programs of Kubernetes, or skip."""
    command = ["sh", str(TOOLS / "build.sh"), str(FOLDER), *programs]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"no Kubernetes, its programs cannot be built: {built.stderr[-500:]}")


@pytest.fixture(scope="session")
def api_server(note: Notes) -> Iterator[Cluster]:
    """The API server, for the session; skips, saying why, where it cannot be had."""
    if os.getuid() != 0:
        pytest.skip("no API server: it needs root")
    if absent := missing("etcd", "ip", "openssl"):
        pytest.skip(f"no API server: {absent} not on the PATH")
    began = time.monotonic()
    build("kube-apiserver", "kubectl")
    note("API server built (kept)", time.monotonic() - began)
    began = time.monotonic()
    try:
        found = Cluster(run("sh", TOOLS / "cluster.sh", FOLDER, "api").strip())
        note("API server started", time.monotonic() - began)
        yield found
        note.of_memory(found.memory_mb())
    finally:
        run("sh", TOOLS / "cluster.sh", FOLDER, "down")


@pytest.fixture(scope="session")
def cluster(api_server: Cluster, note: Notes) -> Iterator[Cluster]:
    """The cluster with its node; skips, saying why, where that cannot be had."""
    if absent := missing(*NODE_PROGRAMS):
        pytest.skip(f"no node: {absent} not on the PATH")
    if not (CNI_PLUGINS / "bridge").exists():
        pytest.skip(f"no node: no plugins for networks in {CNI_PLUGINS} (containernetworking-plugins)")
    began = time.monotonic()
    build()
    note("programs of the node built (kept)", time.monotonic() - began)
    began = time.monotonic()
    run("sh", TOOLS / "cluster.sh", FOLDER, "node")
    note("node ready", time.monotonic() - began)
    stopped, most = threading.Event(), [0]

    def watch() -> None:
        while not stopped.wait(1):
            most[0] = max(most[0], pods_memory_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield api_server
    finally:
        stopped.set()
        watcher.join()
        note.of_memory({"all pods": most[0]})


def pods_memory_mb() -> int:
    """Return the memory that the processes of all pods have, in units of 10^6 bytes."""
    for file, name in PODS_MEMORY.items():
        try:
            values = dict(line.split() for line in file.read_text().splitlines())
        except OSError:  # another version of control groups, or no pod yet
            continue
        return int(values[name]) // 1_000_000
    return 0


@pytest.fixture(scope="session")
def built_image(note: Notes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `mlplatform image build` says of the image of this checkout and of a team's module.

    The first one is built from nothing, later ones are updates of it; `podman rmi` has it built again.
    """
    if absent := missing("podman", "runc", "debootstrap"):
        pytest.skip(f"no image: {absent} not on the PATH")
    began = time.monotonic()
    made = subprocess.run(["sh", TOOLS / "base_image.sh", BASE], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no image: its base cannot be made: {made.stderr[-500:]}")
    note("base image (kept)", time.monotonic() - began)
    code = tmp_path_factory.mktemp("code") / "team.py"
    code.write_text("NAME = 'items'\n")
    began = time.monotonic()
    is_first = not run("podman", "images", "-q", PACKAGES)
    on = ["--base", BASE] if is_first else ["--update", PACKAGES]
    command = [sys.executable, "-m", "mlplatform.cli.main", "image", "build", code, "--tag", IMAGE]
    facts = json.loads(run(*command, *on, "--builder=podman", "--builder-option=--network=host", "--json"))
    if is_first:
        run("podman", "tag", IMAGE, PACKAGES)
    note(f"mlplatform image build {on[0]} {on[1]}", time.monotonic() - began)
    return dict(facts)


@pytest.fixture(scope="session")
def image(cluster: Cluster, built_image: dict[str, Any], note: Notes) -> str:
    """The image, given to the cluster."""
    began = time.monotonic()
    run("sh", TOOLS / "cluster.sh", FOLDER, "load", built_image["image"])
    note("image loaded (kept)", time.monotonic() - began)
    return str(built_image["image"])


@pytest.fixture(scope="session")
def s3_host(cluster: Cluster) -> str:
    """The address of this machine for S3 servers that pods are to reach."""
    return ADDRESS


@pytest.fixture
def bucket(s3: str) -> str:
    """A place of its own in a bucket; this process reaches it by the environment."""
    return f"{s3}/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def s3_environment(s3: str) -> dict[str, str]:
    """The variables that reach the bucket."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


@pytest.fixture
def namespace(cluster: Cluster, s3_environment: dict[str, str]) -> Iterator[str]:
    """A namespace with the secret `bucket`, for one test."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    literals = [f"--from-literal={key}={value}" for key, value in s3_environment.items()]
    cluster.kubectl("create", "secret", "generic", "bucket", "-n", name, *literals)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
    cluster.kubectl("delete", "pods", "--all", "-n", name, "--grace-period=1")


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
