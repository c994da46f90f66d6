"""A small pipeline of all that Kubeflow has, compiled by us, from end to end on an S3 root."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pytest

from mlplatform.registry.artifacts import PastRuns, Wanted
from mlplatform.registry.ledger import Ledger
from mlplatform.testing.kubeflow import RecurringRun, SimulatedRun, Simulator
from mlplatform.testing.kubeflow.recurring import with_macros

HERE = Path(__file__).parent
# What the components import; TensorFlow is not among it.
PRELOAD = (
    "tfx.dsl.component.experimental.decorators",
    "tfx.orchestration.data_types_utils",
    "fsspec",
    "s3fs",
)


@pytest.fixture(scope="module")
def small() -> Iterator[ModuleType]:
    """The module of the pipeline, imported by its bare name as an image has it."""
    sys.path.insert(0, str(HERE / "small"))
    try:
        import small_pipeline  # type: ignore[import-not-found]

        yield small_pipeline
    finally:
        sys.path.remove(str(HERE / "small"))
        sys.modules.pop("small_pipeline", None)


@dataclass
class Cluster:
    """A simulator, and how it is used here."""

    simulator: Simulator
    small: ModuleType
    root: str

    def package(self, **settings: Any) -> str:
        """Compile the pipeline, with its exit handler."""
        from mlplatform.orchestration.kubeflow.compile import compile_pipeline

        pipeline = self.small.create_pipeline(f"{self.root}/data", self.root, **settings)
        return compile_pipeline(
            pipeline,
            root=self.root,
            options={"image": "team:1", "nodes": {"count_words": {"retries": 1}}},
            exit_handler=self.small.exit_handler(f"{self.root}/status.json"),
        ).text

    def status(self) -> dict[str, Any]:
        """The final status that the exit handler received."""
        return json.loads(fsspec.filesystem("s3").cat_file(f"{self.root}/status.json"))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def cluster(s3: str, small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    root = f"{s3}/small"
    fsspec.filesystem("s3").pipe_file(f"{root}/data/text.txt", b"what is up")
    folder = tmp_path_factory.mktemp("cluster")
    with Simulator(f"{root}/pipelines", folder, mode="fork", preload=PRELOAD) as simulator:
        yield Cluster(simulator, small, root)


@pytest.fixture(scope="module")
def runs(cluster: Cluster) -> list[SimulatedRun]:
    """Two runs of the same package, one with a parameter of its own, and one of a changed pipeline."""
    package = cluster.package(marker=f"{cluster.root}/marker")
    return [
        cluster.simulator.run(package),
        cluster.simulator.run(package, {"least": 100}),
        cluster.simulator.run(cluster.package(marker=f"{cluster.root}/marker", times=2)),
    ]


def known(run: SimulatedRun, task: str = "train-model", key: str = "model") -> int:
    return int(fsspec.filesystem("s3").cat_file(f"{run.tasks[task].uri(key)}/known.txt"))


def test_first_run(cluster: Cluster, runs: list[SimulatedRun]) -> None:
    first = runs[0]
    assert first.state == "SUCCEEDED", first.failures()
    assert set(first.states().values()) == {"SUCCEEDED"}
    assert known(first) == known(first, "push", "pushed_model") == 3
    assert first.tasks["count-words"].attempts == 2
    assert "is TensorFlow imported: False" in first.tasks["count-words"].log
    blessing = first.tasks["judge"].outputs.artifacts["blessing"].metadata
    model = first.tasks["train-model"].outputs.artifacts["model"]
    assert blessing["current_model"] == model.uri
    assert blessing["current_model_id"] == model.name
    assert model.metadata["lies_at"] == f"{model.uri}/known.txt"


def test_later_runs_take_the_cache_and_start_from_the_blessed_model(runs: list[SimulatedRun]) -> None:
    first, second, third = runs
    assert second.state == third.state == "SUCCEEDED", second.failures() + third.failures()
    assert second.states() == {
        **first.states(),
        "count-words": "CACHED",  # the resolver, and what reads from it, is never cached
        "push": "SKIPPED",
    }
    assert known(second) == 6
    assert third.tasks["count-words"].state == "SUCCEEDED"  # other arguments
    assert known(third) == 9  # from the first model: the second was not blessed
    assert third.tasks["push"].state == "SUCCEEDED"


def test_what_is_replaced_in_a_recurring_runs_parameters() -> None:
    moment = datetime(2026, 11, 28, 2, 30, tzinfo=timezone(timedelta(hours=-3)))
    texts = {
        "day": "[[ScheduledTime.2006-01-02]]",
        "at": "s3://b/[[ScheduledTime]]/[[Index]]",
        "now": "[[CurrentTime.15:04]] 100%",
        "run": "[[RunUUID]] [[Else]]",
    }
    assert with_macros({**texts, "n": 3}, moment, 7, "abc") == {
        "day": "2026-11-28",
        "at": "s3://b/20261128053000/7",
        "now": "05:30 100%",
        "run": "abc [[Else]]",
        "n": 3,
    }


def test_the_exit_handler_hears_how_it_ended(cluster: Cluster, runs: list[SimulatedRun]) -> None:
    assert cluster.status()["state"] == "SUCCEEDED"
    handler = runs[-1].tasks["tell"]
    assert handler.state == "SUCCEEDED"


def test_a_gate_that_says_no(cluster: Cluster, runs: list[SimulatedRun]) -> None:
    run = cluster.simulator.run(
        cluster.package(marker=f"{cluster.root}/marker", is_strict=True), {"least": 1000}
    )
    gate = run.tasks["judge"]
    assert (run.state, gate.state, run.tasks["push"].state) == ("FAILED", "FAILED", "OMITTED")
    assert gate.exit_status == 3
    assert gate.termination_message.startswith("the model knows 12 words; it has to know 1000")
    assert run.tasks["tell"].state == "SUCCEEDED"
    assert cluster.status()["state"] == "FAILED"
    events = Ledger(f"{cluster.root}/ledger").events(f"runs/{run.id}")
    failed = [event for event in events if event.kind == "node.finished" and event.get("state") == "failed"]
    assert [(event.get("node"), event.get("error")) for event in failed] == [
        ("judge", "the model knows 12 words; it has to know 1000")
    ]


def test_the_ledger_and_the_logs_lie_under_the_root(cluster: Cluster, runs: list[SimulatedRun]) -> None:
    first = runs[0]
    ledger = Ledger(f"{cluster.root}/ledger")
    events = ledger.events(f"runs/{first.id}")
    assert events[0].kind == "run.started"
    assert events[0].get("pipeline") == "small_words"
    ended = {e.get("node"): e.get("state") for e in events if e.kind == "node.finished"}
    assert ended == dict.fromkeys(("base", "count_words", "train_model", "judge", "push", "tell"), "done")
    log = fsspec.filesystem("s3").cat_file(f"{cluster.root}/runs/{first.id}/logs/count_words.log").decode()
    assert "3 words" in log
    past = PastRuns(ledger, "small_words")
    made = [run.tasks["train-model"].uri("model") for run in reversed(runs)]
    found = [artifact.uri for artifact in past.latest(Wanted("Model"), 10)]
    assert [uri for uri in found if uri in made] == made  # another test may have run it, too
    pushed = past.latest_pushed_model()
    assert pushed is not None
    assert pushed.uri == made[0]


def test_a_recurring_run(cluster: Cluster, runs: list[SimulatedRun]) -> None:
    """Each of its runs takes the cache, and starts from the model that was blessed before it."""
    recurring = RecurringRun(
        cluster.simulator, cluster.package(marker=f"{cluster.root}/marker"), {"least": 1}
    )
    moment = datetime(2026, 11, 28, 2, tzinfo=timezone.utc)
    first, second = (recurring.start(moment + timedelta(days=day)) for day in range(2))
    assert first
    assert second
    assert recurring.runs == [first, second]
    assert first.state == second.state == "SUCCEEDED", first.failures() + second.failures()
    assert second.tasks["count-words"].state == "CACHED"
    assert known(second) == known(first) + 3
    recurring.pause()
    assert recurring.start(moment) is None
    recurring.resume()
    recurring.delete()
    assert recurring.start(moment) is None
    assert len(recurring.runs) == 2
