"""The dashboard over many runs: CPU of its pages, first paint beside MLflow's, how soon it sees more.

    make bench-ui
    make bench-ui ARGS="--runs 2000 --rounds 3"
    make bench-ui ARGS="--only tabs --pairs 7"

The root holds runs of seven nodes as the local runner leaves them, and MLflow's database as many runs with
the same names, metrics and parameters. Chromium (Debian's, by playwright) opens in turns, each time as if for
the first time: a page of one line, our page of runs, MLflow's page of runs. CPU is that of the server's
process, wall time that of the browser.

Then a small pipeline runs in turns alone and followed by ten tabs, which are opened when the run begins and
look again by themselves until it ends: Chromium's on this machine (of ten HTTP clients, without playwright).
Exits with 1 where a target is missed.
"""

import argparse
import importlib.util
import itertools
import json
import os
import re
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from mlplatform.home import Home
from mlplatform.orchestration.local.records import NodeRecord, RunFolder, RunRecord

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mlplatform" / "bench-ui"
MLFLOW = "mlflow==3.17.2"
PAGES = (
    "/", "/runs", "/runs?state=failed", "/runs?q=item", "/runs/{run}", "/runs/{run}/nodes/Trainer",
    "/runs/{run}/logs/Trainer", "/compare?run={run}&run={other}", "/datasets", "/models",
    "/lineage", "/lineage?what=run:{run}", "/lineage?what=model:items@1", "/gates", "/disk",
)  # fmt: skip
PAGE_CPU_S, READY_S, RUN_SEEN_S, LINE_SEEN_S = 0.05, 1.5, 2.0, 1.0
FLOOR_TIMES, OF_MLFLOW, ROWS_OF_MLFLOW = 4.0, 0.2, 0.1
FOLLOWED_TIMES = 1.05
TABS = (
    "/", "/runs", *("/runs/{run}",) * 2, *("/runs/{run}/nodes/Work4",) * 2,
    *("/runs/{run}/logs/Work2?follow=1", "/runs/{run}/logs/Work4?follow=1") * 2,
)  # fmt: skip
NODES = ("ExampleGen", "Statistics", "Schema", "Validator", "Trainer", "Evaluator", "Pusher")


def main() -> None:
    """Run the benchmark and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7, help="of the browser")
    parser.add_argument("--mlflow", type=Path, help="Python of an environment with MLflow")
    parser.add_argument("--pairs", type=int, default=7, help="of a run alone and one followed by ten tabs")
    parser.add_argument("--only", choices=("pages", "browser", "tabs"), help="one part")
    options = parser.parse_args()
    checks: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-ui-") as scratch:
        if options.only != "tabs":
            checks += of_many_runs(options, Path(scratch))
        if options.only in (None, "tabs"):
            checks += followed(options.pairs, Path(scratch))
    missed = 0
    for name, value, limit in checks:
        missed += value > limit
        print(f"{'holds ' if value <= limit else 'MISSED'} {name}: {value:.3g} (at most {limit:g})")
    sys.exit(missed > 0)


def of_many_runs(options: argparse.Namespace, scratch: Path) -> list[tuple[str, float, float]]:
    """Return what was found of a dashboard over many runs."""
    checks: list[tuple[str, float, float]] = []
    home = Home.at(scratch / "root")
    names = make_root(home, options.runs)
    with dashboard(home) as (_, _, first_s):
        print(f"ready without an index: {first_s:.2f} s")
    with dashboard(home) as (pid, address, ready_s):
        if options.only != "browser":
            checks.append(("ready with an index, s", ready_s, READY_S))
            checks += pages(pid, address, names)
            checks += seen(home, address, options.runs)
        if options.only != "pages":
            checks += browser(address, names[-1], options, scratch)
    return checks


def make_root(home: Home, runs: int) -> list[str]:
    """Make a root of so many runs, each hundredth of which pushed a model; return their ids in order."""
    spec = importlib.util.spec_from_file_location("bench_ledger", Path(__file__).with_name("bench_ledger.py"))
    assert spec is not None
    assert spec.loader is not None
    ledgers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ledgers)
    ledgers.make_root(Path(home.root), runs)
    names = [f"20260101T{number:06}" for number in range(runs)]
    for number, name in enumerate(names):
        write_run(home, name, "failed" if number % 50 == 49 else "done", is_synced=False)
    return names


def write_run(home: Home, name: str, state: str, *, is_synced: bool = True) -> RunFolder:
    """Write what a run of seven nodes leaves in its folder."""
    folder = RunFolder(Path(home.runs) / name)
    folder.create()
    nodes = []
    for number, node in enumerate(NODES):
        found = NodeRecord(node, node, "done", "first run", list(NODES[max(0, number - 1) : number]))
        found.started_at, found.seconds = f"2026-01-01T00:00:{number * 5:02}+00:00", 4.0
        nodes.append(found)
    if state == "failed":
        nodes[-1].state, nodes[-1].error = "failed", "ValueError: no server took it"
    record = RunRecord(
        name, "item_category", started_at="2026-01-01T00:00:00+00:00", wall_s=40.0, nodes=nodes
    )
    record.state = state  # type: ignore[assignment]
    if is_synced:
        folder.write(record)
    else:
        (folder.path / "run.json").write_text(json.dumps(asdict(record)))
    folder.log("Trainer").write_text("epoch 1\n")
    if state != "running":
        folder.release()
    return folder


@contextmanager
def dashboard(home: Home) -> Iterator[tuple[int, str, float]]:
    """Run `mlplatform ui`; yields its process id, its address, and the seconds until it printed it."""
    command = [sys.executable, "-m", "mlplatform.cli.main", "ui", "--root", str(home.root), "--port", "0"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            address = next(
                found[0] for line in process.stdout if (found := re.search(r"http://\S+:\d+", line))
            )
            ready_s = time.perf_counter() - started
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield process.pid, address, ready_s
        finally:
            process.terminate()


def text_of(address: str) -> str:
    """Return a page."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        return str(answer.read().decode())


def pages(pid: int, address: str, names: list[str]) -> list[tuple[str, float, float]]:
    """Return the server's CPU for each page, the first time and the median of five later times."""
    clock = (~pid << 3) | 2  # the CPU clock of that process, as clock_getcpuclockid(3) gives it
    found = []
    for page in PAGES:
        target, costs = page.format(run=names[-1], other=names[-2]), []
        for _ in range(6):
            before = time.clock_gettime(clock)
            text_of(address + target)
            costs.append(time.clock_gettime(clock) - before)
        found.append((f"CPU of {page}, first, s", costs[0], PAGE_CPU_S))
        found.append((f"CPU of {page}, later, s", statistics.median(costs[1:]), PAGE_CPU_S))
    return found


def seconds_until(is_there: Callable[[], bool], at_most_s: float = 60) -> float:
    """Return how long it takes until something is there, asked again and again."""
    started = time.perf_counter()
    while not is_there():
        if time.perf_counter() - started > at_most_s:
            raise SystemExit(f"it was not seen within {at_most_s:g} s")
    return time.perf_counter() - started


def seen(home: Home, address: str, runs: int) -> list[tuple[str, float, float]]:
    """Return the longest times, of five, until a new run and a new line of its log are on their pages."""
    run_s, line_s = [], []
    for number in range(5):
        name = f"20260102T{runs + number:06}"
        folder = write_run(home, name, "running")
        run_s.append(seconds_until(lambda name=name: name in text_of(f"{address}/runs")))
        with folder.log("Trainer").open("a") as log:
            log.write(f"a line of {name}\n")
        page = f"{address}/runs/{name}/logs/Trainer"
        line_s.append(seconds_until(lambda page=page, name=name: f"a line of {name}" in text_of(page)))
        folder.release()
    return [("a new run is seen, s", max(run_s), RUN_SEEN_S), ("a new line, s", max(line_s), LINE_SEEN_S)]


def browser(
    address: str, newest: str, options: argparse.Namespace, scratch: Path
) -> list[tuple[str, float, float]]:
    """Return first paints and first rows beside those of a page of one line and of MLflow."""
    from playwright.sync_api import sync_playwright

    with (
        one_line(scratch) as floor,
        mlflow(options, scratch) as (other, its_newest),
        sync_playwright() as play,
    ):
        chromium = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        of_pages = {
            "floor": (floor, "one line"),
            "ours": (f"{address}/runs", newest[:9]),
            "mlflow": (f"{other}/#/experiments/0/runs", its_newest),
        }
        paints: dict[str, list[float]] = {name: [] for name in of_pages}
        rows: dict[str, list[float]] = {name: [] for name in of_pages}
        for _ in range(options.rounds):
            for name, (url, text) in of_pages.items():
                context = chromium.new_context()
                page = context.new_page()
                page.goto(url, wait_until="commit")
                page.get_by_text(text).first.wait_for(timeout=120_000)
                rows[name].append(page.evaluate("performance.now()"))
                page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
                entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
                paints[name].append(page.evaluate(entry))
                context.close()
        chromium.close()
    for name in of_pages:
        paint, row = statistics.median(paints[name]), statistics.median(rows[name])
        print(f"{name}: first paint {paint:.0f} ms, first row {row:.0f} ms (medians of {options.rounds})")
    paint = {name: statistics.median(found) for name, found in paints.items()}
    row = {name: statistics.median(found) for name, found in rows.items()}
    return [
        ("first paint / one line's", paint["ours"] / paint["floor"], FLOOR_TIMES),
        ("first paint / MLflow's", paint["ours"] / paint["mlflow"], OF_MLFLOW),
        ("first row / MLflow's", row["ours"] / row["mlflow"], ROWS_OF_MLFLOW),
    ]


TOY = """
from toy_steps import Work
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from mlplatform.home import Home

def create_pipeline(data, root, number=0):
    home, nodes = Home.at(root), []
    for place in range(6):
        nodes.append(Work(number=number, place=place).with_id(f"Work{place}"))
        if place:
            nodes[-1].add_upstream_node(nodes[-2])
    database = sqlite_metadata_connection_config(str(home.metadata_db))
    return Pipeline("toy", str(home.pipelines / "toy"), components=nodes, metadata_connection_config=database)
"""
TOY_STEPS = """
import time
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import String

@component
def Work(number: Parameter[int], place: Parameter[int], out: OutputArtifact[String]):
    began, line = time.process_time(), 0
    while time.process_time() - began < 1.5:
        if time.process_time() - began > line / 20:
            print(f"step {line} of 30", flush=True)
            line += 1
    out.write(f"{number} {place}")
"""


def followed(pairs: int, scratch: Path) -> list[tuple[str, float, float]]:
    """Return how much longer a run takes that ten tabs follow: the median of so many pairs."""
    home = Home.at(scratch / "followed")
    (scratch / "toy.py").write_text(TOY)
    (scratch / "toy_steps.py").write_text(TOY_STEPS)
    ratios = []
    has_browser = importlib.util.find_spec("playwright") is not None
    with dashboard(home) as (_, address, _):
        run_s(home, scratch, 0, None)
        for pair in range(1, pairs + 1):
            alone_s = run_s(home, scratch, 2 * pair, None)
            with (chromium_tabs if has_browser else http_tabs)(address) as open_tabs:
                beside_s = run_s(home, scratch, 2 * pair + 1, open_tabs)
            ratios.append(beside_s / alone_s)
            print(f"a run alone {alone_s:.2f} s, followed {beside_s:.2f} s; load {os.getloadavg()[0]:.1f}")
    who = "Chromium" if has_browser else "HTTP clients"
    return [(f"a run beside ten tabs / alone, {who}", statistics.median(ratios), FOLLOWED_TIMES)]


def run_s(home: Home, scratch: Path, number: int, open_tabs: Callable[[str], object] | None) -> float:
    """Return the seconds of a run, of which nothing was there before."""
    before = set(home.runs.iterdir()) if home.runs.is_dir() else set()
    command = [
        sys.executable,
        "-m",
        "mlplatform.cli.main",
        "run",
        str(scratch / "toy.py"),
        "--root",
        home.root,
    ]
    command += ["--data", str(scratch), "--set", f"number={number}"]
    started = time.perf_counter()
    with (scratch / "toy.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        if open_tabs is not None:
            seconds_until(lambda: has_begun(home, before) or process.poll() is not None)
            open_tabs(has_begun(home, before))
        code = process.wait()
    wall_s = time.perf_counter() - started
    if code:
        raise SystemExit((scratch / "toy.log").read_text())
    return wall_s


def has_begun(home: Home, before: set[Path]) -> str:
    """Return the new run whose nodes are known; empty while there is none."""
    for folder in set(home.runs.iterdir()) - before:
        if (folder / "run.json").is_file() and json.loads((folder / "run.json").read_text())["nodes"]:
            return folder.name
    return ""


@contextmanager
def chromium_tabs(address: str) -> Iterator[Callable[[str], None]]:
    """Start Chromium with ten empty tabs; yields what opens them. Each must have looked again at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tabs = [chromium.new_context().new_page() for _ in TABS]
        opened: list[float] = []

        def open_tabs(run: str) -> None:
            for tab, page in zip(tabs, TABS, strict=True):
                tab.goto(address + page.format(run=run), wait_until="load")
                opened.append(tab.evaluate("performance.timeOrigin"))

        yield open_tabs
        for tab, page, first in zip(tabs, TABS, opened, strict=True):
            tab.wait_for_load_state()
            if tab.evaluate("performance.timeOrigin") <= first:
                raise SystemExit(f"the tab of {page} never looked again")
        chromium.close()


@contextmanager
def http_tabs(address: str) -> Iterator[Callable[[str], None]]:
    """Yield what follows a run by ten HTTP clients, as often as a browser would look again."""
    is_over, threads, looks = threading.Event(), [], []

    def follow(page: str) -> None:
        pause_s = 1.0
        while not is_over.wait(pause_s):
            text = text_of(address + page)
            if found := re.search(r'http-equiv="refresh" content="(\d+)"', text):
                pause_s = float(found[1])
                looks.append(page)

    def open_tabs(run: str) -> None:
        for page in TABS:
            threads.append(threading.Thread(target=follow, args=(page.format(run=run),)))
            threads[-1].start()

    yield open_tabs
    is_over.set()
    for thread in threads:
        thread.join()
    if len(set(looks)) < len(set(TABS)):
        raise SystemExit("not every page was looked at while the run was going on")


@contextmanager
def one_line(scratch: Path) -> Iterator[str]:
    """Serve a static page of one line."""
    folder = scratch / "floor"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>floor</title><p>one line")
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder)]
    port = free_port()
    with subprocess.Popen(
        [*command, str(port)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        try:
            seconds_until(lambda: answers(port))
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


@contextmanager
def mlflow(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, str]]:
    """Serve MLflow's own pages of as many runs; yields the address and the newest run's name."""
    python = options.mlflow or installed_mlflow()
    database = scratch / "mlflow.db"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    program = (
        "import mlflow\n"
        "with mlflow.start_run(run_name='run-0'):\n"
        "    mlflow.log_params({'epochs': 10, 'size': 224})\n"
        "    mlflow.log_metrics({'top_1': 0.9, 'top_5': 0.99})\n"
    )
    subprocess.run(
        [str(python), "-c", program], check=True, env=environment, cwd=scratch, capture_output=True
    )
    multiply(database, options.runs)
    port = free_port()
    command = [str(python), "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (
        (scratch / "mlflow.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=scratch, start_new_session=True) as process,
    ):
        try:
            seconds_until(lambda: answers(port), at_most_s=240)
            yield f"http://127.0.0.1:{port}", f"run-{options.runs - 1}"
        finally:
            os.killpg(process.pid, 15)


def installed_mlflow() -> Path:
    """Return the Python of an environment with MLflow, which is made where it is not there."""
    folder = CACHE / "mlflow"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():  # written last: an environment that was not finished is made again
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", MLFLOW], check=True)
        ready.touch()
    return python


def multiply(database: Path, runs: int) -> None:
    """Write an MLflow run's rows again and again, as newer runs."""
    with sqlite3.connect(database) as store:
        (first,) = store.execute("SELECT run_uuid FROM runs").fetchone()
        for table in ("runs", "latest_metrics", "metrics", "params", "tags"):
            columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
            rows = store.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
            marks = ", ".join("?" * len(columns))
            copies = (
                [
                    value_of(table, column, value, first, number)
                    for column, value in zip(columns, row, strict=True)
                ]
                for number, row in itertools.product(range(1, runs), rows)
            )
            store.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)


def value_of(table: str, column: str, value: object, first: str, number: int) -> object:
    """Return a column of the copy of a row."""
    if column == "run_uuid":
        return f"{number:032x}"
    if table == "runs" and column in ("start_time", "end_time"):
        return int(str(value)) + 1000 * number
    if isinstance(value, str):
        return value.replace(first, f"{number:032x}").replace("run-0", f"run-{number}")
    return value


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answers(port: int) -> bool:
    """Say whether something answers at a port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    main()
