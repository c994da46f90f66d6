"""The dataset store against DVC and a plain copy: whole commands, on the same data, in one run.

    python tests/benchmarks/bench_datasets.py [--workloads A,B,C,large] [--repetitions 3] [--scale 1.0]

A: 100,000 photos of about 10 KB. B: 2,000,000 rows of about 300 bytes. C: B with the map entries of every
record in a random order in every version. v2 is v1 reshuffled with 1 % added, 0.5 % removed and 0.5 %
changed; v3 is v2 reshuffled. All in two splits. "with its key" commits v1 and v2 once more with a declared
key: the firewall then compares the keys of all records, too, and keeps a hash of each. large: 8,000,000 rows,
for the peak memory of both commit paths.

DVC is installed into an environment of its own below the cache folder. Figures are ratios to DVC or to `cp`
on the same machine at the same time, of the medians over the repetitions, which all begin with empty stores;
seconds alone mean nothing.
"""

import argparse
import compileall
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import mlplatform
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.diff import KINDS

HERE = Path(__file__).parent
DVC = "dvc>=3.50,<4"
SPLITS = ["--splits", "train:0.8,eval:0.2"]
WORKLOADS = {
    "A": ["--profile", "photos", "--records", "100000", *SPLITS],
    "B": ["--profile", "rows", "--records", "2000000", *SPLITS],
    "C": ["--profile", "rows", "--records", "2000000", *SPLITS, "--scramble", "v1,v2,v3"],
}
COMMIT_TARGETS = {"A": (0.3, 0.25, 0.25), "B": (0.6, 0.6, 0.6), "C": (0.8, 0.8, 0.8)}
LARGE = ["--profile", "rows", "--records", "8000000", *SPLITS, "--versions", "1"]
CHECKOUT_TARGET = 1.2
MEMORY_TARGET_MB = 1200
VERSIONS = ("v1", "v2", "v3")


@dataclass
class Run:
    """One command: its wall and processor time, the peak memory of its process tree, and what it printed."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    out: str


def run(command: list[str], cwd: Path | None = None) -> Run:
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak, is_over = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, is_over), daemon=True)
    watcher.start()
    out, complaint = process.communicate()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    is_over.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{complaint[-2000:]}")
    return Run(seconds, cpu_seconds, peak[0], out)


def _watch(pid: int, peak: list[float], is_over: threading.Event) -> None:
    while not is_over.wait(0.1):
        try:
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
            total = sum(_private_mb(process) for process in tree)
        except psutil.Error:
            continue
        peak[0] = max(peak[0], total)


def _private_mb(process: psutil.Process) -> float:
    """Proportional set size: pages that processes share are counted once."""
    try:
        return float(process.memory_full_info().pss) / 1e6
    except psutil.Error:
        return 0.0


def dvc(cache: Path) -> str:
    """Return the dvc program, installed once."""
    home = cache / "dvc-environment"
    program = home / "bin" / "dvc"
    if not (home / "ready").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "-q", DVC], check=True)
        subprocess.run(
            [str(home / "bin" / "python"), "-m", "compileall", "-q", str(home / "lib")], check=False
        )
        (home / "ready").touch()
    return str(program)


def workload(cache: Path, arguments: list[str], scale: float) -> Path:
    """Return the folder of a workload at a share of its records, made once."""
    arguments = [*arguments]
    arguments[3] = str(round(int(arguments[3]) * scale))
    folder = cache / f"workload-{hashlib.sha256(' '.join(arguments).encode()).hexdigest()[:12]}"
    if not (folder / "truth.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, str(HERE / "dataset_workload.py"), *arguments, "--out", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def check_diff(name: str, store: str, counts: dict[str, Any], truth: dict[str, Any]) -> None:
    """Check the diff of v1 and v2 key by key. Ends the program where it is wrong."""
    found = DatasetStore(store).diff("d", "v1", "v2", key=["id"])
    for kind in KINDS:
        expected = sorted(truth["id_format"] % number for number in truth["v1_to_v2"].get(kind, []))
        got = sorted(item.key[0] if item.key else "" for item in found.of_kind(kind))
        if got != expected or counts[kind] != len(expected):
            raise SystemExit(
                f"{name}: {counts[kind]} {kind}, and the truth is {len(expected)}; "
                f"keys of one alone: {sorted({*got} ^ {*expected})[:5]}"
            )


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def in_turn(commands: dict[str, Callable[[], Run]], repetition: int) -> dict[str, Run]:
    """Run each, the first one last in every second repetition: the next finds the page cache warm or full."""
    done = {}
    for name in sorted(commands, reverse=bool(repetition % 2)):
        settle()
        done[name] = commands[name]()
    return done


def settle() -> None:
    os.sync()


class Bench:
    def __init__(self, cache: Path) -> None:
        self._cache, self._rows = cache, []
        self._program = [str(Path(sys.executable).with_name("mlplatform")), "datasets"]
        self.misses = 0

    def say(
        self, name: str, what: str, value: float, unit: str, target: float | None = None, note: str = ""
    ) -> None:
        is_met = target is None or value <= target
        self.misses += not is_met
        mark = "" if target is None else f"  target {target:g}  {'met' if is_met else 'MISSED'}"
        print(f"{name:<6} {what:<42} {value:>9.3f} {unit:<6}{mark}  {note}".rstrip(), flush=True)
        self._rows.append({"workload": name, "what": what, "value": value, "unit": unit, "target": target})

    def ours(self, *arguments: str) -> Run:
        return run([*self._program, *arguments, "--json"])

    def workload(self, name: str, arguments: list[str], scale: float, repetitions: int) -> None:
        data = workload(self._cache, arguments, scale)
        truth = json.loads((data / "truth.json").read_text())
        place, dvc_program = self._cache / "bench", dvc(self._cache)
        store, sizes, peaks = str(place / "store"), [0, 0, 0, 0], []
        taken: dict[str, list[tuple[float, float, float]]] = {}
        cpu: dict[str, list[tuple[float, float]]] = {}
        for repetition in range(repetitions):
            shutil.rmtree(place, ignore_errors=True)
            (place / "dvc").mkdir(parents=True)
            run([dvc_program, "init", "--no-scm", "-q"], place / "dvc")
            run([dvc_program, "config", "core.analytics", "false"], place / "dvc")
            dvc_files = []
            for number, version in enumerate(VERSIONS, 1):
                shutil.rmtree(place / "dvc" / "data", ignore_errors=True)
                shutil.copytree(data / version, place / "dvc" / "data")
                settle()
                copied = run(["cp", "-r", str(data / version), str(place / "copy")])
                shutil.rmtree(place / "copy")
                commands = {
                    "ours": lambda version=version: self.ours(
                        "commit", "d", str(data / version), "--store", store
                    ),
                    "dvc": lambda: run([dvc_program, "add", "-q", "data"], place / "dvc"),
                }
                done = in_turn(commands, repetition)
                dvc_files.append((place / "dvc" / "data.dvc").read_text())
                sizes[number] = size(place / "store")
                peaks.append(done["ours"].peak_mb)
                taken.setdefault(f"commit {version}", []).append(
                    (done["ours"].seconds, done["dvc"].seconds, copied.seconds)
                )
                cpu.setdefault(f"commit {version}", []).append(
                    (done["ours"].cpu_seconds, done["dvc"].cpu_seconds)
                )
            for version, dvc_file in zip(VERSIONS[:2], dvc_files, strict=False):
                (place / "dvc" / "data.dvc").write_text(dvc_file)
                shutil.rmtree(place / "dvc" / "data")
                commands = {
                    "dvc": lambda: run([dvc_program, "checkout", "-q"], place / "dvc"),
                    **{
                        f"checkout{way}": lambda version=version, flags=flags: self.checkout(
                            version, place / "out", store, flags
                        )
                        for way, flags in (("", []), (" --copy", ["--copy"]))
                    },
                }
                done = in_turn(commands, repetition)
                for way in ("checkout", "checkout --copy"):
                    taken.setdefault(f"{way} {version}", []).append(
                        (done[way].seconds, done["dvc"].seconds, 0.0)
                    )
        for what, found in taken.items():
            self._compare(name, what, found)
        for what, spent in cpu.items():
            ours, theirs = (statistics.median(column) for column in zip(*spent, strict=True))
            note = f"{ours:.2f} s; dvc {theirs:.2f} s"
            self.say(name, f"{what} / dvc, processor", ours / theirs, "x", note=note)
        for number, target in ((2, 2.0), (3, 0.1)):
            growth = 100 * (sizes[number] - sizes[number - 1]) / sizes[1]
            self.say(name, f"store growth of v{number}", growth, "%", target)
        self._read(name, store, truth)
        for version in VERSIONS[:2]:
            settle()
            ours = self.ours("commit", "keyed", str(data / version), "--key", "id", "--store", store)
            peaks.append(ours.peak_mb)
            self.say(name, f"commit {version} with its key", ours.seconds, "s")
        self.say(name, "peak memory of a commit", max(peaks), "MB", MEMORY_TARGET_MB)
        shutil.rmtree(place)

    def checkout(self, version: str, out: Path, store: str, flags: list[str]) -> Run:
        done = self.ours("checkout", f"d@{version}", str(out), "--store", store, *flags)
        shutil.rmtree(out)
        return done

    def _compare(self, name: str, what: str, taken: list[tuple[float, float, float]]) -> None:
        ours, theirs, copied = (statistics.median(column) for column in zip(*taken, strict=True))
        verb, version = what.rsplit(" ", 1)
        target = COMMIT_TARGETS[name][VERSIONS.index(version)] if verb == "commit" else CHECKOUT_TARGET
        note = f"{ours:.2f} s; dvc {theirs:.2f} s"
        note += f"; cp {copied:.2f} s" if copied else ""
        all_ratios = ", ".join(f"{one / other:.2f}" for one, other, _ in taken)
        self.say(name, f"{what} / dvc", ours / theirs, "x", target, f"{note}; each: {all_ratios}")
        if copied:
            self.say(name, f"{what} / cp", ours / copied, "x")

    def _read(self, name: str, store: str, truth: dict[str, Any]) -> None:
        found = self.ours("diff", "d@v1", "d@v2", "--key", "id", "--store", store)
        check_diff(name, store, json.loads(found.out), truth)
        self.say(name, "diff v1..v2, exactly right", found.seconds, "s", 1.0)
        for verb in (["log", "d"], ["show", "d@v1"]):
            self.say(name, verb[0], self.ours(*verb, "--store", store).seconds, "s", 2.0)
        blame = ("blame", "d", truth["id_format"] % 7, "--key", "id", "--store", store)
        self.say(name, "blame", self.ours(*blame).seconds, "s", 2.0)
        shutil.rmtree(Path(store) / "d" / "keys", ignore_errors=True)
        self.say(name, "blame, no hashes of keys kept", self.ours(*blame).seconds, "s", 2.0)

    def large(self, scale: float) -> None:
        data = workload(self._cache, LARGE, scale)
        place = self._cache / "bench"
        for way, flags in (("one machine", []), ("beam", ["--beam"])):
            shutil.rmtree(place, ignore_errors=True)
            done = self.ours(
                "commit", "d", str(data / "v1"), "--key", "id", "--store", str(place / "store"), *flags
            )
            note = f"{done.seconds:.1f} s"
            self.say("large", f"peak memory of a commit, {way}", done.peak_mb, "MB", MEMORY_TARGET_MB, note)
        shutil.rmtree(place)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self._rows, indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", default="A,B,C,large")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the records, for a quick look")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "mlplatform-bench")
    parser.add_argument("--json", type=Path, help="write the figures, too")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    compileall.compile_dir(
        str(Path(mlplatform.__file__).parent), quiet=2
    )  # as an installation is, and DVC here
    bench = Bench(options.cache)
    for name in filter(None, options.workloads.split(",")):
        if name == "large":
            bench.large(options.scale)
        else:
            bench.workload(name, WORKLOADS[name], options.scale, options.repetitions)
    if options.json:
        bench.write(options.json)
    print(f"{bench.misses} target(s) missed" if bench.misses else "every target is met")
    return 1 if bench.misses else 0


if __name__ == "__main__":
    sys.exit(main())
