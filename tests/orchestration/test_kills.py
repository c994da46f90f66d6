"""Whatever is killed, whenever: all processes end, ML Metadata is consistent, the next run goes on."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import psutil
import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.demo.photos import make_photos
from mlplatform.demo.trip import ask, read_unseen, serving
from mlplatform.home import Home
from mlplatform.registry import ModelStore
from mlplatform.registry.ledger import Ledger
from mlplatform.storage.file_systems import identities

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

COMPLETE, CACHED = 3, 5
NEW, RUNNING = 1, 2
REPOSITORY = Path(__file__).parents[2]
TAXI = REPOSITORY.parent / "shared/data/taxi"
TAXI_NODES = ("CsvExampleGen", "StatisticsGen", "Transform", "Trainer", "Evaluator")
KILLS = int(os.environ.get("SOAK_RUNNER_KILLS", "50"))
EVENTS = ("started", "done")
URL_KILLS = max(1, KILLS * 2 // 5)
WAYS = (
    ("runner", signal.SIGTERM),
    ("runner", signal.SIGINT),
    ("node", signal.SIGKILL),
    ("fork server", signal.SIGKILL),
    ("runner", signal.SIGHUP),
    ("runner", signal.SIGKILL),
)
# After what a small run is killed; in the other ways at any time.
AFTER = {
    ("runner", signal.SIGTERM): "Sleep: started",
    ("runner", signal.SIGHUP): "Sleep: started",
    ("runner", signal.SIGKILL): "Fail: done",
}


class Started:
    """A run in processes of its own, distinguished by a mark in their environment.

    What it says is in the file `screen`; with `is_read`, it is for the test to read.
    """

    def __init__(self, arguments: list[str], folder: Path, *, is_read: bool = False) -> None:
        self.mark = uuid.uuid4().hex
        self.screen = folder / "screen"
        with self.screen.open("wb") as screen:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlplatform.cli.main", "run", *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE if is_read else screen,
                env={**os.environ, "TERM_OF_THE_TEST": self.mark},
                start_new_session=True,
            )

    def members(self) -> list[psutil.Process]:
        """Return all living processes of the run."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.status() != psutil.STATUS_ZOMBIE
                    and process.environ().get("TERM_OF_THE_TEST") == self.mark
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                continue
        return found

    def wait_for_nodes(self, count: int, event: str = "started", timeout_s: float = 300) -> None:
        """Return when so many nodes have started, or are done, or the run is over."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.process.poll() is None:
            if len(re.findall(rf": {event}", self.screen.read_text())) >= count:
                return
            time.sleep(0.02)

    def wait_for(self, text: str, timeout_s: float = 300) -> None:
        """Return when this was printed; fail where it is not."""
        deadline = time.monotonic() + timeout_s
        while text not in self.screen.read_text():
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.screen.read_text()
            time.sleep(0.02)

    def close_terminal_after(self, text: str) -> None:
        """Read until this was printed, and no further: nobody reads what it says then."""
        assert any(text.encode() in line for line in self.process.stderr)
        self.process.stderr.close()

    def kill(self, target: str, number: int) -> None:
        """Send a signal to one of the run's processes, where it has not ended by itself."""
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            members = {process.pid: process for process in self.members()}
            servers = [
                p
                for p in members.values()
                if "fork_server" in " ".join(p.cmdline()) and p.ppid() == self.process.pid
            ]
            nodes = [p for p in members.values() if any(p.ppid() == server.pid for server in servers)]
            chosen = {"runner": [self.process], "fork server": servers, "node": nodes}[target]
            if chosen:
                os.kill(random.choice(chosen).pid, number)

    def wait_until_gone(self, timeout_s: float = 120) -> None:
        """Return when no process is left; fail otherwise."""
        self.process.wait(timeout=timeout_s)
        deadline = time.monotonic() + timeout_s
        while left := self.members():
            assert time.monotonic() < deadline, f"left behind: {[process.cmdline() for process in left]}"
            time.sleep(0.05)


def assert_nothing_is_half_done(database: Path, artifacts: Path) -> None:
    """Check ML Metadata against the disk: all that is COMPLETE is there, and nothing else is."""
    import ml_metadata
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    store = ml_metadata.MetadataStore(config)
    states = {e.id: e.last_known_state for e in store.get_executions()}
    assert not [state for state in states.values() if state in (NEW, RUNNING)]
    complete = [execution for execution, state in states.items() if state == COMPLETE]
    given = {e.artifact_id for e in store.get_events_by_execution_ids(complete) if e.type == e.OUTPUT}
    uris = {artifact.uri for artifact in store.get_artifacts_by_id(list(given))}
    assert [uri for uri in uris if not Path(uri).exists()] == []
    # TFX's folders: <node>/<output>/<execution>, and <node>/.system/executor_execution/<execution>
    folders = [*artifacts.glob("*/[!.]*/[0-9]*"), *artifacts.glob("*/.system/executor_execution/[0-9]*")]
    assert [f for f in folders if states.get(int(f.name)) not in (COMPLETE, CACHED)] == []


def newest_run(root: Path) -> dict:
    return json.loads((max((root / "runs").iterdir()) / "run.json").read_text())


@pytest.fixture
def place(tmp_path, pipelines):
    shutil.copytree(pipelines, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/text.txt").write_text("start")
    return tmp_path


@pytest.mark.timeout(900)
def test_killed_in_every_way_the_next_run_resumes_and_does_nothing_again_that_was_finished(place, soak_seed):
    random.seed(soak_seed)
    root, received = place / "root", place / "received"
    root.mkdir()
    (root / "notices.yaml").write_text(
        json.dumps({"command": ["sh", "-c", f"cat >> {received}; echo >> {received}"]})
    )
    name = [str(place / "code/by_name.py"), "--data", str(place / "data"), "--root", str(root)]
    for number, (target, sent) in enumerate(WAYS):
        (place / "data/text.txt").write_text(f"text {number}")
        after = AFTER.get((target, sent))
        words = [*name, "--set", f"seconds={30.0 if after else 1 + number / 100}"]
        started = Started(words, place, is_read=sent == signal.SIGHUP)
        if sent == signal.SIGHUP:
            started.close_terminal_after(after)
        elif after:
            started.wait_for(after)
        else:
            started.wait_for_nodes(random.randint(1, 4), random.choice(EVENTS))
        started.kill(target, sent)
        started.wait_until_gone()
        assert started.process.returncode != 0 or newest_run(root)["state"] == "done"
        if sent in (signal.SIGTERM, signal.SIGHUP):
            assert started.process.returncode == 128 + sent
            assert newest_run(root)["state"] == "cancelled"
        if sent == signal.SIGTERM:
            assert "run the same again to go on" in started.screen.read_text()
    last = Started([*name, "--set", "seconds=0.1"], place)
    last.wait_until_gone(timeout_s=180)
    assert last.process.returncode == 0, last.screen.read_text()
    states = {node["id"]: node["state"] for node in newest_run(root)["nodes"]}
    assert (states["Make"], states["Fail"], states["Sleep"]) == ("cached", "cached", "done")
    assert set(states.values()) <= {"done", "cached"}
    assert (root / "calls").read_text().splitlines().count(f"make text {number}!") == 1
    notices = [json.loads(line) for line in received.read_text().splitlines()]
    records = [json.loads(file.read_text()) for file in sorted(root.glob("runs/*/run.json"))]
    [killed] = [record["run_id"] for record in records if record["state"] == "interrupted"]
    assert [each["reason"] for each in notices if each["run"] == killed] == ["the runner was killed"]
    assert [each["occasion"] for each in notices if each["run"] == records[-1]["run_id"]] == ["recovered"]
    assert_nothing_is_half_done(root / "metadata.sqlite", root / "artifacts")


@pytest.mark.soak
@pytest.mark.shared_data
@pytest.mark.timeout(3 * 3600)
def test_fifty_random_kills_of_a_real_pipeline(tmp_path, soak_seed):
    if not TAXI.is_dir():
        pytest.skip(f"the development data is not there: {TAXI}")
    random.seed(soak_seed)
    root, code = tmp_path / "root", tmp_path / "taxi"
    shutil.copytree(REPOSITORY / "examples/taxi", code, ignore=shutil.ignore_patterns("__pycache__"))
    name = [str(code / "pipeline.py"), "--data", str(TAXI), "--root", str(root), "--set", "eval_steps=2"]
    killed = number = 0
    while killed < KILLS:
        number += 1
        # Something is to be done before, at and behind the Trainer, each time.
        changed = ["--set", f"train_steps={number + 4}", "--force", random.choice(TAXI_NODES)]
        started = Started([*name, *changed], tmp_path)
        time.sleep(random.uniform(0, 20))
        assert started.process.poll() in (None, 0), started.screen.read_text()
        started.kill(*random.choice(WAYS))
        started.wait_until_gone(timeout_s=120)
        killed += started.process.returncode != 0
        assert number < 4 * KILLS, f"{killed} of {number} runs were still alive when they were killed"
    print(f"{killed} of {number} runs were still alive when they were killed")
    steps = number + 4
    last = Started([*name, "--set", f"train_steps={steps}"], tmp_path)
    last.wait_until_gone(timeout_s=600)
    assert last.process.returncode == 0, last.screen.read_text()
    assert {node["state"] for node in newest_run(root)["nodes"]} <= {"done", "cached"}
    assert_nothing_is_half_done(root / "metadata/metadata.sqlite", root / "pipelines/taxi")


class SharedRoot:
    """A root at a URL: what is committed there, and a model server that reads it all the while."""

    # What is never changed once it is there; all else are caches, indexes, logs and work in progress.
    COMMITTED = re.compile(
        r"ledger/(models|runs|datasets)/.*|datasets/items/(versions|packs|bitmaps|uses)/.*"
        r"|models/.*|reports/.+/.*"
    )

    def __init__(self, url: str, port: int, photo: bytes) -> None:
        self.home, self._port, self._photo = Home.at(url), port, photo
        self.committed: dict[str, object] = {}
        self.models: list[int] = []
        self.versions: list[str] = []
        self.check()

    def check(self) -> None:
        """See that all that was committed is there as it was, whole, and that the newest model answers."""
        found = {name: facts for name, facts in identities(self.home.root) if self.COMMITTED.fullmatch(name)}
        lost = {name for name, facts in self.committed.items() if found.get(name) != facts}
        assert lost == set()
        self.committed = found
        store, pushed = DatasetStore(self.home.datasets), ModelStore(self.home.models)
        self.versions = [version.version for version in store.log("items")]
        assert store.verify("items").is_whole
        models = pushed.versions("item_category")
        assert {model.integrity() for model in models} == {"intact"}
        self.models = [model.version for model in models]
        for model in models:
            assert model.push is not None
            ledger = Ledger(self.home.ledger)
            events = ledger.events(f"runs/{model.push.run}")
            # A gate whose result was reused gave its verdict in the run that made it.
            made_in = {event.facts.get("made_in") for event in events} - {None, ""}
            events = [*events, *(event for run in sorted(made_in) for event in ledger.events(f"runs/{run}"))]
            gates = {event.facts["gate"] for event in events if event.kind == "verdict"}
            assert {"DataValidator", "ModelValidator"} <= gates
        self._wait_until_served(self.models[-1])
        classes, scores = ask(self._port, "item_category", self._photo)
        assert len(classes) == len(scores) == 6

    def _wait_until_served(self, version: int, timeout_s: float = 300) -> None:
        """Return when the server has a version; fail where another one answers for long."""
        url = f"http://127.0.0.1:{self._port}/v1/models/item_category"
        deadline = time.monotonic() + timeout_s
        while True:
            with urllib.request.urlopen(url, timeout=60) as answer:
                states = {
                    int(one["version"]): one["state"] for one in json.load(answer)["model_version_status"]
                }
            if states.get(version) == "AVAILABLE":
                return
            assert time.monotonic() < deadline, states
            time.sleep(0.2)


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_random_kills_with_a_root_at_a_url_lose_nothing_committed(tmp_path, soak_seed, s3):
    """The whole trip of item_category on drawn photos, with a network of next to nothing."""
    import keras

    random.seed(soak_seed)
    photos, network = tmp_path / "photos", tmp_path / "network.keras"
    listing = photos / "listing.csv"
    make_photos(photos, categories=6, per_category=20, unseen=12, size_px=64)
    layers = [keras.Input((32, 32, 3)), keras.layers.AveragePooling2D(8), keras.layers.Flatten()]
    keras.Sequential(layers).save(network)
    root = f"{s3}/{uuid.uuid4().hex}"
    settings: dict[str, object] = {"model.backbone": network, "model.image_size": 32}
    # What is pushed is not to depend on what so few photos teach, nor on how busy the machine is.
    settings |= {f"thresholds.{name}": 0.0 for name in ("top_1", "top_5", "per_class_top_5", "tail_top_5")}
    settings |= {f"thresholds.{name}": 1.0 for name in ("max_top_1_drop", "max_per_class_recall_drop")}
    settings |= {"budget.p99_latency_ms": 60_000, "budget.load_time_s": 600, "budget.time_limit_s": 1200}
    name = ["item_category", "--data", str(photos), "--root", root]
    name += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]

    def start(epochs: int) -> Started:
        return Started([*name, "--set", f"model.epochs={epochs}"], tmp_path)

    def finish(run: Started) -> None:
        run.wait_until_gone(timeout_s=1800)
        assert run.process.returncode == 0, run.screen.read_text()

    finish(start(1))
    photo = next(iter(read_unseen(photos))).path.read_bytes()
    with serving(root, tmp_path / "server.log") as port:
        shared = SharedRoot(root, port, photo)
        assert (shared.models, shared.versions) == ([1], ["v1"])
        print(f"before any kill: {len(shared.committed)} files, {shared.versions}, models {shared.models}")
        killed = number = 0
        while killed < URL_KILLS:
            number += 1
            # One photo less each time: another dataset version and another model.
            head, *rows = listing.read_text().splitlines(keepends=True)
            rows.remove(random.choice(rows))
            listing.write_text("".join([head, *rows]))
            started = start(number + 1)
            nodes, event, delay_s = random.randint(0, 6), random.choice(EVENTS), random.uniform(0, 4)
            target, sent = random.choice(WAYS)
            started.wait_for_nodes(nodes, event)
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.process.wait(timeout=delay_s)
            was_alive = started.process.poll() is None
            started.kill(target, sent)
            started.wait_until_gone(timeout_s=300)
            killed += was_alive
            shared.check()
            when = f"{delay_s:.1f} s after {nodes} nodes were {event}"
            kept = (
                f"{len(shared.committed)} files, {len(shared.versions)} versions, {len(shared.models)} models"
            )
            print(
                f"{killed} of {number}: {signal.Signals(sent).name} to the {target} {when}; {kept}",
                flush=True,
            )
            assert number < 4 * URL_KILLS, f"{killed} of {number} runs were still alive when they were killed"
        finish(start(1))
        shared.check()
    print(f"{killed} of {number} runs were still alive when they were killed; {len(shared.models)} models")
