"""How long the ledger's questions take with many runs: each in a process of its own, on a local root.

    python tests/benchmarks/bench_ledger.py [--runs 10000]

Promise: which records, code and run made a model, and what was made from a version of a dataset, are answered
in at most 0.5 s with 10,000 runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlplatform.registry import events, index
from mlplatform.registry.event import Draft, Event
from mlplatform.registry.ledger import Ledger

NODES = 7
PROGRAM = """
import sys, time
started = time.perf_counter()
from mlplatform.registry.lineage import made_from, origin
from mlplatform.registry.model_ledger import ModelLedger
imported, cpu = time.perf_counter(), time.process_time()
ledger = ModelLedger(sys.argv[1])
found = origin(ledger, "items", 1) if sys.argv[2] == "origin" else made_from(ledger, "clothes@v17")
count = len(found.nodes) if sys.argv[2] == "origin" else len(found.runs)
print(imported - started, time.perf_counter() - imported, count, time.process_time() - cpu)
"""


def run_events(run: str, dataset: str) -> list[Event]:
    """Return what a run of seven nodes leaves."""
    artifact = {
        "key": "examples",
        "type": "Examples",
        "uri": f"s3://bucket/artifacts/{run}/x",
        "digest": "d" * 64,
    }
    libraries = {"tensorflow": "2.16.2", "tfx": "1.16.0", "apache-beam": "2.70.0", "python": "3.10.13"}
    code = {"commit": "c" * 40, "libraries": libraries}
    drafts = [Draft(events.RUN_STARTED, run, {"pipeline": "item_category", "code": code})]
    for node in range(NODES):
        facts = {"node": f"node{node}", "state": "done", "inputs": [artifact] * 3, "outputs": [artifact] * 2}
        drafts += [
            Draft(events.NODE_STARTED, run, {"node": f"node{node}"}),
            Draft(events.NODE_FINISHED, run, facts),
        ]
    drafts.append(Draft(events.DATASET_USED, run, {"dataset": dataset, "digest": "d" * 64}))
    drafts.append(Draft(events.RUN_FINISHED, run, {"state": "done", "seconds": 60.0}))
    stream = events.run_stream(run)
    return [Event.of(stream, number, draft) for number, draft in enumerate(drafts, start=1)]


def make_root(root: Path, runs: int) -> None:
    """Make a root of so many runs, of which each hundredth pushed a version of `items`."""
    ledger = Ledger(root / "ledger")
    streams: dict[str, list[Event]] = {}
    for number in range(runs):
        run, dataset = f"20260101T{number:06}", f"clothes@v{number % 300}"
        streams[events.run_stream(run)] = found = run_events(run, dataset)
        folder = root / "ledger" / "runs" / run
        folder.mkdir(parents=True)
        for event in found:  # as the ledger writes them, without waiting for the disk each time
            (folder / f"{event.number:08}.json").write_text(json.dumps(event.as_json()))
        if number % 100 == 0:
            facts = {"version": number // 100 + 1, "digest": "d" * 64, "dataset": dataset}
            ledger.append("models/items", events.MODEL_PUSHED, run=run, **facts)
    assert index.write_index(ledger.storage, streams)


def main() -> None:
    """Make the root, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        make_root(Path(folder), runs)
        print(f"{runs:,} runs of {NODES} nodes made in {time.perf_counter() - started:.1f} s")
        for question in ("origin", "made_from"):
            took = []
            for _ in range(5):
                command = [sys.executable, "-c", PROGRAM, str(Path(folder) / "models"), question]
                answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                took.append((float(answer[1]), float(answer[3]), float(answer[0]), int(answer[2])))
            seconds, cpu, imports, count = sorted(took)[len(took) // 2]
            print(f"{question}: {seconds:.3f} s, {cpu:.3f} s of CPU; imports {imports:.3f} s; {count} found")


if __name__ == "__main__":
    main()
