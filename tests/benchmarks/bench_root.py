"""A root on an S3 server against a local folder: the same pipeline on the same machine, whole processes.

    python tests/benchmarks/bench_root.py
    python tests/benchmarks/bench_root.py --repetitions 3

Each repetition runs item_category on the clothing photos twice with a fresh root of each kind: from photos to
a pushed model, and once more with nothing changed. Which kind goes first alternates. The S3 server (moto, a
process of its own on loopback) shares the processors: what the server itself needs is part of S3's figures.
Exits with 1 where a target is missed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from bench_local import REPOSITORY, measure, top_1_of, verdict

TARGET = 1.3  # wall time with a root at the URL, as a multiple of a local root's
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data/clothing")
    parser.add_argument("--repetitions", type=int, default=1)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        raise SystemExit(f"there is no data at {arguments.data}; give --data")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdin
    assert server.stdout
    port = int(server.stdout.readline())
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    import fsspec

    fsspec.filesystem("s3").makedirs("bucket", exist_ok=True)
    walls: dict[str, dict[str, list[float]]] = {"first": {}, "unchanged": {}}
    try:
        for number in range(arguments.repetitions):
            kinds = ("local", "s3") if number % 2 == 0 else ("s3", "local")
            print(f"repetition {number + 1}, {kinds[0]} first", flush=True)
            for kind in kinds:
                with tempfile.TemporaryDirectory() as work:
                    # What a root at a URL keeps on the machine that runs is in its cache folder.
                    os.environ["XDG_CACHE_HOME"] = f"{work}/cache"
                    root = f"{work}/root" if kind == "local" else f"s3://bucket/{uuid.uuid4().hex}"
                    command = [sys.executable, "-m", "mlplatform.cli.main", "run", "item_category"]
                    command += ["--data", str(arguments.data), "--root", root]
                    for scenario in walls:
                        found = measure(command, Path(work) / "log")
                        walls[scenario].setdefault(kind, []).append(found.wall_s)
                        figures = f"{found.wall_s:7.2f} s {found.cpu_s:7.2f} s cpu {found.peak_mb:6.0f} MB"
                        print(f"  {kind:<6} {scenario:<10} {figures}  top-1 {top_1_of(root):.4f}", flush=True)
    finally:
        server.stdin.close()
        server.wait()
    missed = False
    for scenario, by_kind in walls.items():
        local, remote = (statistics.median(by_kind[kind]) for kind in ("local", "s3"))
        text = f"{scenario:<10} local {local:7.2f} s  s3 {remote:7.2f} s  ratio {remote / local:.3f}"
        if scenario == "first":
            text += f"   at most {TARGET}: {verdict(remote / local, TARGET)}"
            missed = remote / local > TARGET
        print(text)
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
