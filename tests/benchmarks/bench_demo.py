"""An answer of the live demo against the bare REST call: the same photo, the same exported photo model.

    make bench-demo
    make bench-demo ARGS="--turns 20 --photo photo.jpg"

The model is EfficientNet-Lite0 as item_category exports it. `mlplatform serve` and `mlplatform demo` run
beside each other, and one client asks them in turns, over connections that stay open: the first with the
photo as JSON, the second as a browser's form does. The page that answers names a picture of what the model
saw, which is fetched before the next request, but not timed. Wall times are medians of all requests; CPU
times are those of all processes of a server, with the pictures, medians of the turns. Exits with 1 where the
wall time's target is missed.
"""

import argparse
import base64
import http.client
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from mlplatform.home import Home
from mlplatform.registry import ModelStore

TARGET = 1.2
MODEL, PX, BOUNDARY = "item_category", 224, "bOuNdArY"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mlplatform" / "bench-serving"
PROGRAMS = Path(__file__).parent / "serving_programs"  # TensorFlow is imported in processes that end
REQUESTS = 50  # of each server in a turn


Asker = Callable[[], Callable[[], None]]  # asks, and returns what fetches the pictures of the answer


def main() -> None:
    """Run the benchmark and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument(
        "--photo", type=Path, help="another photo than the drawn ones of 224 and 1,200 pixels"
    )
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    make = [sys.executable, str(PROGRAMS / "make_models.py"), str(CACHE), str(PX), "96"]
    subprocess.run(make, check=True, capture_output=True)
    photos = [options.photo.read_bytes()] if options.photo else [drawn(PX), drawn(1200)]
    with tempfile.TemporaryDirectory(prefix="bench-demo-") as root:
        ModelStore(Home.at(root).models).push(CACHE / MODEL / "1", MODEL, why="a benchmark")
        serve = ["serve", "--port", "-1", "--rest_api_port", "0", "--root", root]
        demo = ["demo", MODEL, "--port", "0", "--root", root]
        with (
            server(serve, r"ready: .*REST ([\d.]+:\d+)") as (rest_pid, rest_address),
            server(demo, r"http://(\S+?)/") as (demo_pid, demo_address),
        ):
            missed = [
                ratio
                for photo in photos
                if (
                    ratio := compare(photo, options.turns, (rest_pid, rest_address), (demo_pid, demo_address))
                )
                > TARGET
            ]
    sys.exit(bool(missed))


def drawn(side: int) -> bytes:
    """Return a photo, JPEG, of so many pixels a side."""
    small = (np.random.default_rng(7).random((12, 12, 3)) * 255).astype("uint8")
    out = io.BytesIO()
    Image.fromarray(small).resize((side, side)).save(out, "JPEG", quality=90)
    return out.getvalue()


@contextmanager
def server(words: list[str], ready: str) -> Iterator[tuple[int, str]]:
    """Run a command of mlplatform; yield its process and the address that it prints."""
    with tempfile.NamedTemporaryFile("r") as log, open(log.name, "a") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlplatform.cli.main", *words], stdout=out, stderr=out
        )
        try:
            deadline, text = time.monotonic() + 180, ""
            while (found := re.search(ready, text)) is None:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{words}: {text[-2000:]}")
                time.sleep(0.1)
                text += log.read()
            yield process.pid, found[1]
        finally:
            process.terminate()
            process.wait()


def compare(photo: bytes, turns: int, rest: tuple[int, str], demo: tuple[int, str]) -> float:
    """Ask both in turns about a photo; print what was found and return how many times the wall time."""
    askers = {"REST": asker_of_rest(rest[1], photo), "demo": asker_of_demo(demo[1], photo)}
    pids = {"REST": rest[0], "demo": demo[0]}
    for ask in askers.values():
        for _ in range(5):
            ask()()
    wall: dict[str, list[float]] = {name: [] for name in askers}
    cpu: dict[str, list[float]] = {name: [] for name in askers}
    for _ in range(turns):
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        for _ in range(REQUESTS):
            for name, ask in askers.items():
                started = time.perf_counter()
                fetch_more = ask()
                wall[name].append(time.perf_counter() - started)
                fetch_more()
        for name, pid in pids.items():
            cpu[name].append((cpu_seconds(pid) - before[name]) / REQUESTS)
    found = {}
    for what, times in (("wall", wall), ("CPU", cpu)):
        median = {name: 1000 * float(np.median(some)) for name, some in times.items()}
        found[what] = median["demo"] / median["REST"]
        target = f" (target {TARGET})" if what == "wall" else ""
        print(
            f"photo of {len(photo):,} bytes, {what}: REST {median['REST']:.2f} ms, "
            f"demo {median['demo']:.2f} ms: {found[what]:.2f}{target}",
            flush=True,
        )
    return found["wall"]


def cpu_seconds(pid: int) -> float:
    """CPU of a process and its children."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def asker_of_rest(address: str, photo: bytes) -> Asker:
    """Make what asks the model server."""
    document = {
        "signature_name": "image_bytes",
        "instances": [{"b64": base64.b64encode(photo).decode()}],
    }
    body, headers = json.dumps(document).encode(), {"Content-Type": "application/json"}
    return _asker(address, f"/v1/models/{MODEL}:predict", body, headers, b'"predictions"')


def asker_of_demo(address: str, photo: bytes) -> Asker:
    """Make what sends the demo's form."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    body = head.encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return _asker(address, "/ask?signature=image_bytes", body, headers, b"What the model saw:")


def _asker(address: str, path: str, body: bytes, headers: dict[str, str], wanted: bytes) -> Asker:
    connection = http.client.HTTPConnection(address, timeout=60)

    def sent(*request: object) -> bytes:
        connection.request(*request)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(content[:2000])
        return content

    def ask() -> Callable[[], None]:
        content = sent("POST", path, body, headers)
        if wanted not in content:
            raise RuntimeError(content[:2000])

        def fetch() -> None:
            for picture in re.findall(rb'<img src="(/seen[^"]+)"', content):
                sent("GET", picture.decode())

        return fetch

    return ask


if __name__ == "__main__":
    main()
