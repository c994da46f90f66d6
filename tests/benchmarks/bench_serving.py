"""The model server against the model called in process, and against LitServe on the same model.

    make bench-serving                          both models, the peer too
    make bench-serving ARGS="--seconds 5 --models mobilenet --no-peer"

Every figure is a ratio to what was measured in the same run: CPU per request of a server to the in-process
CPU per image at batch 32, latencies to the in-process latency at batch 1, the worst request while versions
swap to the median of the same load before. Rates on shared machines mean nothing. Every answer is compared
with the in-process one; a failed or wrong answer ends the run with exit code 1.
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
from typing import Any

import numpy as np
import psutil

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mlplatform" / "bench-serving"
PEER = "litserve==0.2.19"
ITEM_PX, MOBILE_PX = 224, 96
SWAP_CLIENTS, TURNS = 32, 5
TOLERANCE = 1e-3  # of a score: batches of other sizes and TensorFlow Lite add up in another order

BATCHING = "--enable_batching=true"

PROGRAMS = Path(__file__).parent / "serving_programs"  # TensorFlow is imported in processes that end


@dataclass(frozen=True)
class Model:
    """A model of the benchmark: which signature is asked, and with what."""

    name: str
    signature: str
    input_name: str
    lite_signature: str
    lite_input_name: str
    is_text: bool

    @property
    def folder(self) -> Path:
        return CACHE / self.name

    @property
    def int8_folder(self) -> Path:
        """The same SavedModel beside a TensorFlow Lite form in int8."""
        return CACHE / f"{self.name}-int8"

    def image(self) -> np.ndarray:  # type: ignore[type-arg]
        if self.is_text:
            return np.array([(CACHE / "photo.jpg").read_bytes()], object)
        return self.lite_image()

    def lite_image(self) -> np.ndarray:  # type: ignore[type-arg]
        px, dtype = (ITEM_PX, np.float32) if self.is_text else (MOBILE_PX, np.uint8)
        return np.random.default_rng(1).integers(0, 255, (1, px, px, 3)).astype(dtype)


MODELS = {
    "item_category": Model("item_category", "image_bytes", "image_bytes", "pixels", "images", is_text=True),
    "mobilenet": Model("mobilenet", "serving_default", "images", "serving_default", "images", is_text=False),
}


@dataclass(frozen=True)
class Load:
    """What a load found: seconds of each request, failed and wrong answers, and CPU of the server."""

    seconds: Sequence[float]
    failures: int
    cpu_ms: float

    def percentile(self, percent: float) -> float:
        return 1000 * float(np.percentile(self.seconds, percent))


LOADS: list[Load] = []  # of the whole run


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
    found = Load(taken, failures[0], cpu_ms)
    LOADS.append(found)
    return found


class WrongAnswerError(Exception):
    """A server did not answer what the model says in process."""


def check(found: object, wanted: Sequence[float]) -> None:
    """Compare scores."""
    if not np.allclose(np.ravel(np.asarray(found, np.float64)), wanted, atol=TOLERANCE):
        raise WrongAnswerError(found)


def our_asker(
    model: Model, address: str, wanted: Sequence[float], *, is_lite: bool = False
) -> Callable[[], Callable[[], None]]:
    """Make a client per thread."""
    from mlplatform.serving import Client

    name, signature = (
        (model.lite_input_name, model.lite_signature) if is_lite else (model.input_name, model.signature)
    )

    def ask_of() -> Callable[[], None]:
        client, image = Client(address), model.lite_image() if is_lite else model.image()

        def ask() -> None:
            answer = client.predict(model.name, {name: image}, signature=signature, outputs=["scores"])
            check(answer["scores"], wanted)

        return ask

    return ask_of


@contextmanager
def our_server(model: Model, base: Path, *flags: str) -> Iterator[tuple[int, str, str]]:
    """Run `mlplatform serve`; yields its process id and its two addresses."""
    log = CACHE / "server.log"
    command = [sys.executable, "-m", "mlplatform.cli.main", "serve", "--port", "0", "--rest_api_port", "0"]
    command += ["--model_name", model.name, "--model_base_path", str(base), *flags]
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
    port, log, program = 18765, CACHE / "peer.log", PROGRAMS / "litserve_peer.py"
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


def peer_asker(model: Model, url: str, wanted: Sequence[float]) -> Callable[[], Callable[[], None]]:
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
            check(json.loads(content)["scores"], wanted)

        return ask

    return ask_of


def swaps(model: Model, seconds: float, count: int, wanted: Sequence[float]) -> None:
    """Swap versions under load from 32 clients; count failures, find the worst request."""
    base = CACHE / "swapped" / model.name
    shutil.rmtree(base, ignore_errors=True)
    shutil.copytree(model.folder / "1", base / "1")
    flags = (BATCHING, "--file_system_poll_wait_seconds", "0.1")
    with our_server(model, base, *flags) as (pid, grpc_address, _):
        from mlplatform.serving import Client

        asker = our_asker(model, grpc_address, wanted)
        calm = load(pid, SWAP_CLIENTS, seconds, asker)
        memory = psutil.Process(pid).memory_info().rss
        done = threading.Event()
        busy: list[Load] = []

        def keep_asking() -> None:
            while not done.is_set():
                busy.append(load(pid, SWAP_CLIENTS, 5.0, asker))

        thread = threading.Thread(target=keep_asking)
        thread.start()
        with Client(grpc_address) as client:
            for version in range(2, count + 2):
                shutil.copytree(base / "1", base / ".partial")
                (base / ".partial").rename(base / str(version))
                client.wait_until_available(model.name, version, timeout_s=120)
        done.set()
        thread.join()
        grown = psutil.Process(pid).memory_info().rss / memory
    shutil.rmtree(base)
    failures = sum(one.failures for one in busy)
    answered = sum(len(one.seconds) for one in busy)
    worst, p50 = 1000 * max(max(one.seconds) for one in busy), calm.percentile(50)
    say(
        f"{count} swaps under load of {SWAP_CLIENTS} clients: {failures} failed of {answered}; "
        f"worst request {worst:.0f} ms = {worst / p50:.1f} x the p50 of this load before ({p50:.1f} ms), "
        f"target 10; memory {grown:.2f} x that before"
    )


def tflite(model: Model, seconds: float, limits: dict[str, Any]) -> None:
    """Ask one signature, one request at a time, of servers that compute it with either engine."""
    lite = ("--prefer_tflite_model=true",)
    served = {
        "SavedModel": (model.folder, ()),
        "float": (model.folder, lite),
        "int8": (model.int8_folder, lite),
    }
    cpu_ms = {}
    for form, (folder, flags) in served.items():
        with our_server(model, folder, BATCHING, *flags) as (pid, grpc_address, _):
            asker = our_asker(model, grpc_address, limits[f"{form} scores"], is_lite=True)
            cpu_ms[form] = load(pid, 1, seconds, asker).cpu_ms
    alone = {form: limits[form]["cpu_ms"] for form in served}
    for where, cpu in (("through the server", cpu_ms), ("called as the server calls it, alone", alone)):
        found = "; ".join(
            f"TFLite {form} {cpu[form]:.2f} ms, {cpu['SavedModel'] / cpu[form]:.1f} x less"
            for form in ("float", "int8")
        )
        say(
            f"single request, {model.lite_signature}, {where}: SavedModel {cpu['SavedModel']:.2f} ms CPU; "
            f"{found}; target 4"
        )
    say(f"as TensorFlow users call this signature, alone: {limits['plain call']['cpu_ms']:.2f} ms CPU")


@contextmanager
def floor_process(model: Model, inputs: Path) -> Iterator[Callable[[float], float]]:
    """Yield what measures the in-process CPU at batch 32, in ms per row, for so many seconds."""
    program = [
        sys.executable,
        str(PROGRAMS / "floor.py"),
        str(model.folder / "1"),
        model.signature,
        str(inputs),
    ]
    process = subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    writing, reading = process.stdin, process.stdout

    def answer(word: str) -> str:
        for line in reading:
            if line.startswith(word):
                return line.removeprefix(word)
        raise RuntimeError(f"{program} ended")

    def measure(seconds: float) -> float:
        writing.write(f"{seconds}\n")
        writing.flush()
        return float(answer("FLOOR"))

    try:
        answer("READY")
        yield measure
    finally:
        process.kill()
        process.wait()


def in_turns(model: Model, seconds: float, inputs: Path, wanted: Sequence[float]) -> None:
    """Measure server and floor in turns; print how many times the floor the server takes."""
    settings = {"default flags": (), BATCHING: (BATCHING,)}
    for name, flags in settings.items():
        with (
            our_server(model, model.folder, *flags) as (pid, grpc_address, _),
            floor_process(model, inputs) as floor_ms,
        ):
            asker = our_asker(model, grpc_address, wanted)
            load(pid, SWAP_CLIENTS, 1.0, asker)  # connections, threads, first runs
            ratios, servers = [], []
            for _ in range(TURNS):
                before = floor_ms(seconds / TURNS)
                served = load(pid, SWAP_CLIENTS, seconds / TURNS, asker).cpu_ms
                after = floor_ms(seconds / TURNS)
                servers.append(served)
                ratios.append(2 * served / (before + after))
        say(
            f"gRPC, {SWAP_CLIENTS} clients, {name}, in turns with the in-process call at batch 32: "
            f"{np.median(ratios):.2f} x its CPU ({min(ratios):.2f} to {max(ratios):.2f} in {TURNS} turns; "
            f"server {np.median(servers):.2f} ms); target 1.5"
        )


def bench(model: Model, seconds: float, *, peer: bool, swap_count: int) -> None:
    """Measure one model; print its report line by line."""
    say(f"== {model.name}, signature {model.signature}")
    inputs = CACHE / "inputs.npz"
    image = np.frombuffer(model.image()[0], np.uint8) if model.is_text else model.image()
    np.savez(inputs, plain=image, lite=model.lite_image())
    folders = [str(model.folder / "1"), str(model.int8_folder / "1")]
    arguments = [*folders, model.signature, model.lite_signature, str(seconds), str(inputs)]
    limits = json.loads(_program("in_process.py", *arguments).partition("FOUND ")[2])
    floor, single, wanted = limits["batch 32"]["cpu_ms"], limits["batch 1"], limits["scores"]
    say(
        f"in process: batch 1 {single['cpu_ms']:.2f} ms CPU, p50 {single['p50_ms']:.2f} ms; "
        f"batch 32 {floor:.2f} ms CPU per image"
    )
    tflite(model, seconds, limits)
    say(f"{'':<12}{'clients':>8}{'rate/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'x floor':>9}")
    cpu_at_32 = {}
    with our_server(model, model.folder, BATCHING) as (pid, grpc_address, rest_address):
        for name, address in (("gRPC", grpc_address), ("REST", rest_address)):
            for clients in (1, 8, 32):
                found = load(pid, clients, seconds, our_asker(model, address, wanted))
                cpu_at_32[name] = found.cpu_ms
                say(_row(name, clients, found, seconds, floor))
                if clients == 1:
                    ratio = found.percentile(99) / single["p50_ms"]
                    say(f"{'':<12}p99 at 1 client = {ratio:.1f} x in-process p50; target 5")
    in_turns(model, seconds, inputs, wanted)
    target = "target 1.5" if model.is_text else "pixels as lists of numbers, no target"
    say(f"REST / gRPC CPU at 32 clients: {cpu_at_32['REST'] / cpu_at_32['gRPC']:.2f}; {target}")
    python = peer_python() if peer else None
    if python is not None:
        with peer_server(model, python) as (pid, url):
            for clients in (1, 8, 32):
                found = load(pid, clients, seconds, peer_asker(model, url, wanted))
                say(_row("LitServe", clients, found, seconds, floor))
    if swap_count:
        swaps(model, seconds, swap_count, wanted)


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


def _program(name: str, *arguments: str) -> str:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / name), *arguments],
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
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
    _program("make_models.py", str(CACHE), str(ITEM_PX), str(MOBILE_PX))
    for name in options.models:
        bench(MODELS[name], options.seconds, peer=not options.no_peer, swap_count=options.swaps)
    if failed := sum(one.failures for one in LOADS):
        sys.exit(f"{failed} requests failed or were answered wrongly")


if __name__ == "__main__":
    main()
