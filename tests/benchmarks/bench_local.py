"""Our local runner against TFX's own, on the same pipeline and the same machine, whole processes.

    python tests/benchmarks/bench_local.py --data ../shared/data/taxi
    python tests/benchmarks/bench_local.py --pipeline item_category --data PHOTOS

Each repetition starts with an empty root and measures, for both runners in turn: the first run, a run of
the unchanged pipeline and, for the taxi pipeline, a run after an edit of the trainer's code. A figure is the
median over the repetitions; memory is the peak of the proportional set size (PSS) of the process tree.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE_EVERY_S = 0.5
STOCK = """
import sys
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
if __name__ == "__main__":
    {imports}
    LocalDagRunner().run(create_pipeline(data={data!r}, root={root!r}))
"""
# Figures that the taxi pipeline must reach: scenario -> (must, aim), as fractions of the stock runner's.
TARGETS = {"first": (0.60, 0.40), "unchanged": (0.05, 0.05), "trainer edited": (0.60, 0.40)}
MEMORY_TARGET = 1.2


@dataclass(frozen=True)
class Measured:
    """One process tree: wall seconds, processor seconds and peak PSS in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measure(command: list[str], log: Path) -> Measured:
    """Run a command to its end.

    Raises:
        SystemExit: It failed; the message holds the end of what it printed.
    """
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=REPOSITORY)
        peak = [0.0]
        sampler = threading.Thread(target=_sample, args=(process, peak), daemon=True)
        sampler.start()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        status = process.wait()
        wall_s = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    sampler.join()
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text(errors='replace')[-3000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(wall_s, cpu_s, peak[0])


def _sample(process: "subprocess.Popen[bytes]", peak: list[float]) -> None:
    tree = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            for member in [tree, *tree.children(recursive=True)]:
                try:
                    total += member.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
        except psutil.NoSuchProcess:
            break
        peak[0] = max(peak[0], total / 2**20)
        time.sleep(SAMPLE_EVERY_S)


def repetition(pipeline: str, data: Path, work: Path) -> dict[str, dict[str, Measured]]:
    """Measure every scenario once for both runners; returns scenario -> runner -> figures."""
    figures: dict[str, dict[str, Measured]] = {}
    for runner in ("stock", "ours"):
        code = work / runner / "code"
        root = work / runner / "root"
        shutil.copytree(REPOSITORY / "examples/taxi", code, ignore=shutil.ignore_patterns("__pycache__"))
        command = command_of(runner, pipeline, code, data, root)
        for scenario in ("first", "unchanged", "trainer edited"):
            if scenario == "trainer edited":
                if pipeline != "taxi":
                    continue
                trainer = code / "trainer.py"
                trainer.write_text(trainer.read_text().replace("(100, 50)", "(100, 40)"))
            found = measure(command, work / f"{runner}.log")
            figures.setdefault(scenario, {})[runner] = found
            text = f"{found.wall_s:7.2f} s {found.cpu_s:7.2f} s cpu {found.peak_mb:6.0f} MB"
            print(f"  {runner:<6} {scenario:<15} {text}", flush=True)
    return figures


def command_of(runner: str, pipeline: str, code: Path, data: Path, root: Path) -> list[str]:
    """Return the command line that runs the pipeline once."""
    if runner == "ours":
        name = str(code / "pipeline.py") if pipeline == "taxi" else pipeline
        run = [sys.executable, "-m", "mlplatform.cli.main", "run", name]
        return [*run, "--data", str(data), "--root", str(root)]
    imports = f"from mlplatform.pipelines.{pipeline} import create_pipeline"
    if pipeline == "taxi":
        imports = f"sys.path.insert(0, {str(code)!r}); from pipeline import create_pipeline"
    script = code.parent / "stock.py"
    script.write_text(STOCK.format(imports=imports, data=str(data), root=str(root)))
    return [sys.executable, str(script)]


def report(pipeline: str, repetitions: list[dict[str, dict[str, Measured]]]) -> dict[str, Any]:
    """Print medians, ratios and targets; return them."""
    document: dict[str, Any] = {"pipeline": pipeline, "repetitions": len(repetitions)}
    print(f"\n{pipeline}, median of {len(repetitions)}")
    print(f"{'':<16}{'stock':>9}{'ours':>9}{'ratio':>8}{'cpu':>8}   target")
    for scenario in repetitions[0]:
        stock, ours = (
            statistics.median(r[scenario][runner].wall_s for r in repetitions) for runner in ("stock", "ours")
        )
        stock_cpu, ours_cpu = (
            statistics.median(r[scenario][runner].cpu_s for r in repetitions) for runner in ("stock", "ours")
        )
        must, aim = TARGETS[scenario]
        target = f"at most {must:.2f}, aim at {aim:.2f}" if pipeline == "taxi" else ""
        ratio, cpu_ratio = ours / stock, ours_cpu / stock_cpu
        print(f"{scenario:<16}{stock:8.2f}s{ours:8.2f}s{ratio:8.3f}{cpu_ratio:8.3f}   {target}")
        document[scenario] = {"stock_s": stock, "ours_s": ours, "ratio": ratio}
        document[scenario] |= {
            "stock_cpu_s": stock_cpu,
            "ours_cpu_s": ours_cpu,
            "cpu_ratio": cpu_ratio,
        }
    stock, ours = (
        statistics.median(max(s[runner].peak_mb for s in r.values()) for r in repetitions)
        for runner in ("stock", "ours")
    )
    ratio = ours / stock
    print(f"{'peak memory':<16}{stock:7.0f}MB{ours:7.0f}MB{ratio:8.3f}{'':8}   at most {MEMORY_TARGET:.2f}")
    document["peak_memory"] = {"stock_mb": stock, "ours_mb": ours, "ratio": ratio}
    document["all"] = [{s: {k: asdict(v) for k, v in f.items()} for s, f in r.items()} for r in repetitions]
    return document


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", default="taxi", help="taxi, or a packaged pipeline")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None, help="write all figures here")
    arguments = parser.parse_args()
    found = []
    for number in range(arguments.repetitions):
        print(f"repetition {number + 1}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found.append(repetition(arguments.pipeline, arguments.data.absolute(), Path(folder)))
    document = report(arguments.pipeline, found)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
