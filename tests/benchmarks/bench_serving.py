"""The model server against the model called in process, and against LitServe on the same model.

    make bench-serving                          both models, the peer too
    make bench-serving ARGS="--seconds 5 --models mobilenet --no-peer"

Every figure is a ratio to what was measured in the same run: CPU per request of a server to the in-process
CPU per image at batch 32, latencies to the in-process latency at batch 1. Rates on shared machines mean
nothing.
"""

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mlplatform" / "bench-serving"
PEER = "litserve==0.2.19"
ITEM_PX, MOBILE_PX = 224, 96
SWAP_CLIENTS = 32

# Programs of their own: TensorFlow is imported in processes that end.

MAKE_MODELS = """
import io, sys
from pathlib import Path
import numpy as np, keras, tensorflow as tf
from PIL import Image
cache, item_px, mobile_px = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
from mlplatform.serving.tflite_export import export_tflite
from mlplatform.vision.efficientnet_lite import efficientnet_lite0
from mlplatform.vision.signatures import export_image_classifier

def jpeg(seed):
    small = (np.random.default_rng(seed).random((12, 12, 3)) * 255).astype("uint8")
    out = io.BytesIO()
    Image.fromarray(small).resize((224, 224)).save(out, "JPEG", quality=90)
    return out.getvalue()

def example(photo):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[photo]))
    features = tf.train.Features(feature={"image/encoded": feature})
    return tf.train.Example(features=features).SerializeToString()

keras.utils.set_random_seed(1)
item = cache / "item_category" / "1"
if not item.exists():
    backbone = efficientnet_lite0(item_px)
    network = keras.Sequential([keras.Input((item_px, item_px, 3)), backbone, keras.layers.Dense(24)])
    export_image_classifier(network, [f"class {n}" for n in range(24)], item_px, item,
                            samples=[example(jpeg(n)) for n in range(4)])
    export_tflite(item, "pixels")
mobile = cache / "mobilenet" / "1"
if not mobile.exists():
    network = keras.applications.MobileNetV2((mobile_px, mobile_px, 3), alpha=0.5, weights=None, classes=100)
    @tf.function(input_signature=[tf.TensorSpec([None, mobile_px, mobile_px, 3], tf.uint8, name="images")])
    def serve(images):
        return {"scores": network(tf.cast(images, tf.float32) / 127.5 - 1.0, training=False)}
    module = tf.Module()
    module.network = network
    partial = mobile.with_name("partial")
    tf.saved_model.save(module, str(partial), signatures={"serving_default": serve})
    export_tflite(partial, "serving_default")
    partial.rename(mobile)
(cache / "photo.jpg").write_bytes(jpeg(7))
"""

IN_PROCESS = """
import json, sys, time
from pathlib import Path
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
folder, signature, name, seconds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
loaded = tf.saved_model.load(str(folder))
plain = loaded.signatures[signature]
spec = plain.structured_input_signature[1][name]

def batch(rows):
    if spec.dtype == tf.string:
        return tf.constant([Path(sys.argv[5]).read_bytes()] * rows)
    return tf.cast(np.random.default_rng(1).integers(0, 255, (rows, *spec.shape[1:])), spec.dtype)

def measure(call, rows):
    for _ in range(3):
        call()
    taken, cpu, started = [], time.process_time(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    cpu = time.process_time() - cpu
    return {"cpu_ms": 1000 * cpu / len(taken) / rows, "p50_ms": 1000 * float(np.median(taken))}

found = {}
for rows in (1, 32):
    inputs = batch(rows)
    found[f"batch {rows}"] = measure(lambda: plain(**{name: inputs}), rows)
file = folder / "assets.extra" / "tflite" / f"{sys.argv[6]}.tflite"
lite = tf.lite.Interpreter(str(file), num_threads=1).get_signature_runner()
lite_spec = loaded.signatures[sys.argv[6]].structured_input_signature[1]
(lite_name, lite_spec), = lite_spec.items()
one = np.random.default_rng(1).integers(0, 255, (1, *lite_spec.shape[1:]))
one = one.astype(lite_spec.dtype.as_numpy_dtype)
found["tflite 1"] = measure(lambda: lite(**{lite_name: one}), 1)
same = loaded.signatures[sys.argv[6]]
tensor = tf.constant(one)
found["same signature 1"] = measure(lambda: same(**{lite_name: tensor}), 1)
print("FOUND " + json.dumps(found))
"""

LITSERVE = """
import base64, sys
import numpy as np, litserve as ls

class Peer(ls.LitAPI):
    def setup(self, device):
        import tensorflow as tf
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.tf, self.name, self.is_text = tf, sys.argv[4], sys.argv[5] == "text"
        self.loaded = tf.saved_model.load(sys.argv[2])
        self.signature = self.loaded.signatures[sys.argv[3]]
    def decode_request(self, request):
        raw = base64.b64decode(request["b64"])
        return raw if self.is_text else np.frombuffer(raw, np.uint8).reshape(request["shape"])
    def batch(self, inputs):
        return list(inputs) if self.is_text else np.stack(inputs)
    def predict(self, batch):
        return self.signature(**{self.name: self.tf.constant(batch)})["scores"].numpy()
    def unbatch(self, output):
        return list(output)
    def encode_response(self, output):
        return {"scores": output.tolist()}

if __name__ == "__main__":
    try:
        api = Peer(max_batch_size=32, batch_timeout=0.002)
        server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    except TypeError:
        server = ls.LitServer(Peer(), accelerator="cpu", max_batch_size=32, batch_timeout=0.002)
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="error")
"""


@dataclass(frozen=True)
class Model:
    """A model of the benchmark: which signature is asked, and with what."""

    name: str
    signature: str
    input_name: str
    lite_signature: str
    is_text: bool

    @property
    def folder(self) -> Path:
        return CACHE / self.name

    def image(self) -> np.ndarray:  # type: ignore[type-arg]
        if self.is_text:
            return np.array([(CACHE / "photo.jpg").read_bytes()], object)
        shape = (1, MOBILE_PX, MOBILE_PX, 3)
        return np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)


MODELS = {
    "item_category": Model("item_category", "image_bytes", "image_bytes", "pixels", is_text=True),
    "mobilenet": Model("mobilenet", "serving_default", "images", "serving_default", is_text=False),
}


@dataclass(frozen=True)
class Load:
    """What a load found: seconds of each request, and CPU of the server."""

    seconds: Sequence[float]
    failures: int
    cpu_ms: float

    def percentile(self, percent: float) -> float:
        return 1000 * float(np.percentile(self.seconds, percent))


def cpu_seconds(pid: int) -> float:
    """CPU of a process and its children."""
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system
    return total


def load(pid: int, clients: int, seconds: float, ask_of: Callable[[], Callable[[], None]]) -> Load:
    """Ask from `clients` threads, each as fast as it is answered."""
    taken: list[float] = []
    failures = [0]
    stop = time.perf_counter() + seconds + 0.5
    measured_from = time.perf_counter() + 0.5

    def work() -> None:
        ask = ask_of()
        while time.perf_counter() < stop:
            before = time.perf_counter()
            try:
                ask()
            except Exception:  # noqa: BLE001 - counted
                failures[0] += 1
            else:
                if before >= measured_from:
                    taken.append(time.perf_counter() - before)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    cpu, count = cpu_seconds(pid), len(taken)
    for thread in threads:
        thread.join()
    cpu_ms = 1000 * (cpu_seconds(pid) - cpu) / max(1, len(taken) - count)
    return Load(taken, failures[0], cpu_ms)


def our_asker(model: Model, address: str) -> Callable[[], Callable[[], None]]:
    """Make a client per thread."""
    from mlplatform.serving import Client

    def ask_of() -> Callable[[], None]:
        client, image = Client(address), model.image()
        return lambda: (
            client.predict(
                model.name, {model.input_name: image}, signature=model.signature, outputs=["scores"]
            )
            and None
        )

    return ask_of


@contextmanager
def our_server(model: Model, base: Path, *flags: str) -> Iterator[tuple[int, str, str]]:
    """Run `mlplatform serve`; yields its process id and its two addresses."""
    log = CACHE / "server.log"
    command = [sys.executable, "-m", "mlplatform.cli.main", "serve", "--port", "0", "--rest_api_port", "0"]
    command += ["--model_name", model.name, "--model_base_path", str(base), "--enable_batching", *flags]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        ready = _wait(log, r"ready: gRPC (\S+), REST (\S+);", process)
        yield process.pid, ready[1], f"http://{ready[2]}"
    finally:
        process.terminate()
        process.wait()


def _wait(log: Path, pattern: str, process: "subprocess.Popen[bytes]") -> "re.Match[str]":
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(pattern, log.read_text("utf-8", "replace")):
            return found
        time.sleep(0.2)
    raise RuntimeError(log.read_text("utf-8", "replace")[-2000:])


def peer_python() -> Path | None:
    """Return the interpreter of the peer's environment, made once; None where it cannot be had."""
    folder = CACHE / "peer"
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    version = subprocess.run(
        [sys.executable, "-c", "import tensorflow as tf; print(tf.__version__)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()[-1]  # fmt: skip
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        packages = [PEER, f"tensorflow=={version}"]
        uv = Path(sys.executable).with_name("uv")
        install = [str(python), "-m", "pip", "install", "-q"]
        if uv.exists():
            install = [str(uv), "pip", "install", "-q", "--python", str(python)]
        subprocess.run([*install, *packages], check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"LitServe could not be installed: {error}")
        return None
    (folder / "ready").touch()
    return python


@contextmanager
def peer_server(model: Model, python: Path) -> Iterator[tuple[int, str]]:
    """Run LitServe on the same model; yields its process id and address."""
    port, log, program = 18765, CACHE / "peer.log", CACHE / "peer.py"
    program.write_text(LITSERVE)
    arguments = [str(port), str(model.folder / "1"), model.signature, model.input_name]
    arguments.append("text" if model.is_text else "numbers")
    with log.open("w") as file:
        process = subprocess.Popen([str(python), str(program), *arguments], stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(log.read_text("utf-8", "replace")[-2000:]) from None
                time.sleep(0.5)
        yield process.pid, f"http://127.0.0.1:{port}/predict"
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        process.terminate()
        process.wait()


def peer_asker(model: Model, url: str) -> Callable[[], Callable[[], None]]:
    """Make a keep-alive connection per thread."""
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    image = model.image()[0]
    raw = image if model.is_text else image.tobytes()
    body = {"b64": base64.b64encode(raw).decode(), "shape": [MOBILE_PX, MOBILE_PX, 3]}
    data = json.dumps(body).encode()

    def ask_of() -> Callable[[], None]:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)

        def ask() -> None:
            connection.request("POST", parts.path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise RuntimeError(content)

        return ask

    return ask_of


def swaps(model: Model, seconds: float, count: int) -> None:
    """Swap versions under load from 32 clients; count failures, find the worst request."""
    base = CACHE / "swapped" / model.name
    shutil.rmtree(base, ignore_errors=True)
    shutil.copytree(model.folder / "1", base / "1")
    flags = ("--file_system_poll_wait_seconds", "0.1")
    with our_server(model, base, *flags) as (pid, grpc_address, _):
        from mlplatform.serving import Client

        calm = load(pid, SWAP_CLIENTS, seconds, our_asker(model, grpc_address))
        done = threading.Event()
        busy: list[Load] = []

        def keep_asking() -> None:
            while not done.is_set():
                busy.append(load(pid, SWAP_CLIENTS, 5.0, our_asker(model, grpc_address)))

        thread = threading.Thread(target=keep_asking)
        thread.start()
        with Client(grpc_address) as client:
            for version in range(2, count + 2):
                shutil.copytree(base / "1", base / ".partial")
                (base / ".partial").rename(base / str(version))
                client.wait_until_available(model.name, version, timeout_s=120)
        done.set()
        thread.join()
    shutil.rmtree(base)
    failures = sum(one.failures for one in busy)
    answered = sum(len(one.seconds) for one in busy)
    worst = 1000 * max(max(one.seconds) for one in busy)
    p50 = 1000 * float(np.median([s for one in busy for s in one.seconds]))
    say(
        f"{count} swaps under load of {SWAP_CLIENTS} clients: {failures} failed of {answered}, "
        f"worst request {worst:.0f} ms = {worst / p50:.1f} x p50 meanwhile ({p50:.1f} ms), "
        f"{worst / calm.percentile(50):.1f} x the calm p50 ({calm.percentile(50):.1f} ms); target 10"
    )


def bench(model: Model, seconds: float, *, peer: bool, swap_count: int) -> None:
    """Measure one model; print its report line by line."""
    say(f"== {model.name}, signature {model.signature}")
    arguments = [str(model.folder / "1"), model.signature, model.input_name, str(seconds)]
    arguments += [str(CACHE / "photo.jpg"), model.lite_signature]
    limits = json.loads(_program(IN_PROCESS, *arguments).partition("FOUND ")[2])
    floor, single = limits["batch 32"]["cpu_ms"], limits["batch 1"]
    say(
        f"in process: batch 1 {single['cpu_ms']:.2f} ms CPU, p50 {single['p50_ms']:.2f} ms; "
        f"batch 32 {floor:.2f} ms CPU per image"
    )
    lite, same = limits["tflite 1"]["cpu_ms"], limits["same signature 1"]["cpu_ms"]
    say(
        f"single request, {model.lite_signature}: SavedModel {same:.2f} ms CPU, TFLite {lite:.2f} ms: "
        f"{same / lite:.1f} x less; target 4"
    )
    say(f"{'':<12}{'clients':>8}{'rate/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'x floor':>9}")
    cpu_at_32 = {}
    with our_server(model, model.folder) as (pid, grpc_address, rest_address):
        for name, address in (("gRPC", grpc_address), ("REST", rest_address)):
            for clients in (1, 8, 32):
                found = load(pid, clients, seconds, our_asker(model, address))
                cpu_at_32[name] = found.cpu_ms
                say(_row(name, clients, found, seconds, floor))
                if clients == 1:
                    ratio = found.percentile(99) / single["p50_ms"]
                    say(f"{'':<12}p99 at 1 client = {ratio:.1f} x in-process p50; target 5")
    say(f"gRPC, 32 clients: {cpu_at_32['gRPC'] / floor:.2f} x the in-process CPU; target 1.8")
    say(f"REST / gRPC CPU at 32 clients: {cpu_at_32['REST'] / cpu_at_32['gRPC']:.2f}; target 1.5")
    python = peer_python() if peer else None
    if python is not None:
        with peer_server(model, python) as (pid, url):
            for clients in (1, 8, 32):
                found = load(pid, clients, seconds, peer_asker(model, url))
                say(_row("LitServe", clients, found, seconds, floor))
    if swap_count:
        swaps(model, seconds, swap_count)


def say(line: str) -> None:
    """Print one line of the report."""
    print(line, flush=True)


def _row(name: str, clients: int, found: Load, seconds: float, floor: float) -> str:
    failed = f"  {found.failures} FAILED" if found.failures else ""
    if not found.seconds:
        return f"{name:<12}{clients:>8}  no answer{failed}"
    return (
        f"{name:<12}{clients:>8}{len(found.seconds) / seconds:>9.0f}{found.percentile(50):>9.1f}"
        f"{found.percentile(99):>9.1f}{found.cpu_ms:>9.2f}{found.cpu_ms / floor:>9.2f}{failed}"
    )


def _program(text: str, *arguments: str) -> str:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", text, *arguments], stdout=subprocess.PIPE, env=environment, check=True
    )
    return done.stdout.decode()


def main() -> None:
    """Run the benchmark and print its report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    _program(MAKE_MODELS, str(CACHE), str(ITEM_PX), str(MOBILE_PX))
    for name in options.models:
        bench(MODELS[name], options.seconds, peer=not options.no_peer, swap_count=options.swaps)


if __name__ == "__main__":
    main()
