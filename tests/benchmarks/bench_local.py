"""Our local runner against TFX's own, on the same pipelines and the same machine, whole processes.

    python tests/benchmarks/bench_local.py
    python tests/benchmarks/bench_local.py --only taxi --repetitions 1

Each repetition starts with an empty root and measures, for both runners: the first run, a run of the
unchanged pipeline and, for the taxi pipeline, a run after an edit of the trainer's code. The taxi pipeline is
measured in both layouts of its code: with the trainer's module beside the others (the stock runner packs the
whole folder, so the edit makes it run Transform again) and in a folder of its own (it does not). Which runner
goes first alternates, since the second finds the libraries in the page cache. A figure is the median over the
repetitions; memory is the peak of the proportional set size (PSS) of the process tree. Both runners use this
interpreter and its packages, which must be byte-compiled, and both keep Beam in Python: where Beam's
DirectRunner cannot have Prism, it falls back to what both run here, so neither is to spend time on trying.
Exits with 1 where a target is missed.
"""

import argparse
import importlib.util
import json
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from mlplatform.home import Home
from mlplatform.orchestration.local.ledger_runs import read_runs
from mlplatform.orchestration.local.run_metrics import run_metrics

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE_EVERY_S = 0.5
# Pipeline -> the folder of the development data, and how often it is measured.
TAXI = ("taxi", "taxi_apart")
PIPELINES = {"taxi": ("taxi", 3), "taxi_apart": ("taxi", 3), "item_category": ("clothing", 1)}
COMPILED = ("tfx", "tensorflow", "keras", "apache_beam", "tensorflow_transform", "tensorflow_model_analysis")
STOCK = """
import sys
from apache_beam.runners.direct.direct_runner import SwitchingDirectRunner
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
if __name__ == "__main__":
    SwitchingDirectRunner._is_interactive = True  # no Prism
    {imports}
    LocalDagRunner().run(create_pipeline(data={data!r}, root={root!r}))
"""
# Figures to reach: scenario -> at most this fraction of the stock runner's time.
TARGETS = {"first": 0.45, "unchanged": 0.02, "trainer edited": 0.45}
ITEM_CATEGORY_TARGETS = {"first": 1.0}
ITEM_CATEGORY_S, LEAST_TOP_1 = 110.0, 0.89  # photos to pushed model, and its validation accuracy
MEMORY_TARGET = 1.2


@dataclass(frozen=True)
class Measured:
    """One process tree: wall seconds, processor seconds, peak PSS in MB; of ours also its bound and top-1."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    bound: str = ""
    top_1: float = 0.0


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


def not_compiled() -> list[str]:
    """Return the packages of this interpreter of which a module has no byte code."""
    found = []
    for name in COMPILED:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        modules = (m for m in Path(spec.origin).parent.rglob("*.py") if not m.stem.endswith("_test"))
        if not all(Path(importlib.util.cache_from_source(str(module))).is_file() for module in modules):
            found.append(name)
    return found


def bound_of(root: Path, wall_s: float) -> str:
    """Return what the newest run of ours spent its time on: its longest chain of nodes, and all else."""
    record = json.loads((max((root / "runs").glob("2*")) / "run.json").read_text())
    chains: dict[str, tuple[float, list[str]]] = {}
    for node in record["nodes"]:
        before = max((chains[up] for up in node["upstream"] if up in chains), default=(0.0, []))
        step = f"{node['id']} {node['seconds']:.1f}"
        chains[node["id"]] = (before[0] + node["seconds"], [*before[1], step])
    chain_s, steps = max(chains.values())
    cpu_s = sum(node["cpu_s"] for node in record["nodes"])
    if chain_s == 0:
        return f"{wall_s:.1f} s: no node ran; reading what it depends on and ML Metadata"
    return (
        f"{wall_s:.1f} s = {chain_s:.1f} s longest chain of nodes ({', '.join(steps)}) + "
        f"{wall_s - chain_s:.1f} s loading, compiling and ending; nodes used {cpu_s:.1f} s of processors"
    )


def top_1_of(root: Path | str) -> float:
    """Return the accuracy that the newest run of ours measured; 0 where it measured none."""
    return run_metrics(next(read_runs(Home.at(root)))).get("top_1", 0.0)


def repetition(
    pipeline: str, data: Path, work: Path, runners: Sequence[str]
) -> dict[str, dict[str, Measured]]:
    """Measure every scenario once for both runners, in turn; returns scenario -> runner -> figures."""
    figures: dict[str, dict[str, Measured]] = {}
    for runner in runners:
        code = work / runner / "code"
        root = work / runner / "root"
        trainer = make_code(pipeline, code)
        command = command_of(runner, pipeline, code, data, root)
        for scenario in ("first", "unchanged", "trainer edited"):
            if scenario == "trainer edited":
                if pipeline not in TAXI:
                    continue
                trainer.write_text(trainer.read_text().replace("(100, 50)", "(100, 40)"))
            found = measure(command, work / f"{runner}.log")
            if runner == "ours":
                found = replace(found, bound=bound_of(root, found.wall_s), top_1=top_1_of(root))
            figures.setdefault(scenario, {})[runner] = found
            text = f"{found.wall_s:7.2f} s {found.cpu_s:7.2f} s cpu {found.peak_mb:6.0f} MB"
            print(f"  {runner:<6} {scenario:<15} {text}", flush=True)
    return figures


def make_code(pipeline: str, code: Path) -> Path:
    """Copy the taxi pipeline's code; return the trainer's module."""
    shutil.copytree(REPOSITORY / "examples/taxi", code, ignore=shutil.ignore_patterns("__pycache__"))
    trainer = code / "trainer.py"
    if pipeline == "taxi_apart":
        (code / "training").mkdir()
        trainer = trainer.rename(code / "training/trainer.py")
        composed = code / "pipeline.py"
        composed.write_text(
            composed.read_text().replace('HERE / "trainer.py"', 'HERE / "training/trainer.py"')
        )
    return trainer


def command_of(runner: str, pipeline: str, code: Path, data: Path, root: Path) -> list[str]:
    """Return the command line that runs the pipeline once."""
    if runner == "ours":
        name = str(code / "pipeline.py") if pipeline in TAXI else pipeline
        run = [sys.executable, "-m", "mlplatform.cli.main", "run", name]
        return [*run, "--data", str(data), "--root", str(root)]
    imports = f"from mlplatform.pipelines.{pipeline} import create_pipeline"
    if pipeline in TAXI:
        imports = f"sys.path.insert(0, {str(code)!r}); from pipeline import create_pipeline"
    script = code.parent / "stock.py"
    script.write_text(STOCK.format(imports=imports, data=str(data), root=str(root)))
    return [sys.executable, str(script)]


def report(pipeline: str, repetitions: list[dict[str, dict[str, Measured]]]) -> dict[str, Any]:
    """Print medians, ratios, targets and bounds; return them, with the targets that were `missed`."""
    document: dict[str, Any] = {"pipeline": pipeline, "repetitions": len(repetitions), "missed": []}
    print(f"\n{pipeline}, median of {len(repetitions)}")
    print(f"{'':<16}{'stock':>9}{'ours':>9}{'ratio':>8}{'cpu':>8}   target")
    for scenario in repetitions[0]:
        stock, ours = (
            statistics.median(r[scenario][runner].wall_s for r in repetitions) for runner in ("stock", "ours")
        )
        stock_cpu, ours_cpu = (
            statistics.median(r[scenario][runner].cpu_s for r in repetitions) for runner in ("stock", "ours")
        )
        ratio, cpu_ratio = ours / stock, ours_cpu / stock_cpu
        target = ""
        must = (TARGETS if pipeline in TAXI else ITEM_CATEGORY_TARGETS).get(scenario)
        if must is not None:
            target = f"at most {must:.2f}: {verdict(ratio, must)}"
            document["missed"] += [scenario] if ratio > must else []
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
    target = ""
    if pipeline in TAXI:
        target = f"at most {MEMORY_TARGET:.2f}: {verdict(ratio, MEMORY_TARGET)}"
        document["missed"] += ["peak memory"] if ratio > MEMORY_TARGET else []
    print(f"{'peak memory':<16}{stock:7.0f}MB{ours:7.0f}MB{ratio:8.3f}{'':8}   {target}")
    if pipeline == "item_category":
        wall_s = statistics.median(r["first"]["ours"].wall_s for r in repetitions)
        top_1 = statistics.median(r["first"]["ours"].top_1 for r in repetitions)
        print(
            f"photos to pushed model {wall_s:.1f} s, at most {ITEM_CATEGORY_S:.0f}; "
            f"top-1 {top_1:.3f}, at least {LEAST_TOP_1}"
        )
        document["top_1"] = top_1
        document["missed"] += ["time to a model"] if wall_s > ITEM_CATEGORY_S else []
        document["missed"] += ["top-1"] if top_1 < LEAST_TOP_1 else []
    print("what bounds ours, in the last repetition:")
    for scenario, found in repetitions[-1].items():
        print(f"  {scenario}: {found['ours'].bound}")
    document["peak_memory"] = {"stock_mb": stock, "ours_mb": ours, "ratio": ratio}
    document["all"] = [{s: {k: asdict(v) for k, v in f.items()} for s, f in r.items()} for r in repetitions]
    return document


def verdict(ratio: float, must: float) -> str:
    """Say whether a target is met."""
    return "met" if ratio <= must else "MISSED"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(PIPELINES), default=None, help="one of the pipelines")
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared/data")
    parser.add_argument("--data", type=Path, default=None, help="other data, for --only")
    parser.add_argument(
        "--repetitions", type=int, default=None, help="default: taxi 3 in each layout, item_category 1"
    )
    parser.add_argument("--json", type=Path, default=None, help="write all figures here")
    arguments = parser.parse_args()
    if uncompiled := not_compiled():
        folders = sysconfig.get_paths()["purelib"]
        raise SystemExit(
            f"not byte-compiled: {', '.join(uncompiled)}; first run: "
            f"env -u PYTHONDONTWRITEBYTECODE {sys.executable} -m compileall -q {folders}"
        )
    documents = []
    for pipeline in [arguments.only] if arguments.only else list(PIPELINES):
        folder, repetitions = PIPELINES[pipeline]
        data = (arguments.data if arguments.only and arguments.data else arguments.shared / folder).absolute()
        if not data.is_dir():
            raise SystemExit(f"{pipeline}: there is no data at {data}; give --shared, or --only and --data")
        found = []
        for number in range(arguments.repetitions or repetitions):
            runners = ("stock", "ours") if number % 2 == 0 else ("ours", "stock")
            print(f"{pipeline}, repetition {number + 1}, {runners[0]} first", flush=True)
            with tempfile.TemporaryDirectory() as work:
                found.append(repetition(pipeline, data, Path(work), runners))
        documents.append(report(pipeline, found))
    if arguments.json:
        arguments.json.write_text(json.dumps(documents, indent=1))
    if any(document["missed"] for document in documents):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
