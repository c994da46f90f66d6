"""The example of a team's repository: its own test, and its nightly runs as a cluster makes them."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pytest

from mlplatform.registry import ModelStore
from mlplatform.testing.kubeflow import RecurringRun, Simulator

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples/kubeflow"
QUICK: dict[str, Any] = {
    "model": {"backbone": "scratch", "image_size": 32, "epochs": 2, "batch_size": 6, "augment": False},
    "thresholds": {"top_1": 0.0, "top_5": 0.0, "max_top_1_drop": 1.0},
    "budget": {"p99_latency_ms": 60_000, "load_time_s": 600, "peak_memory_mb": 10_000, "time_limit_s": 900},
}


def module_at(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The team's package, as in its image."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLE))
    yield
    for name in ("team_items", "team_items.pipeline"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("_installed")
def test_the_teams_own_test() -> None:
    module_at(EXAMPLE / "test_pipeline.py").test_the_cluster_takes_it()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("_installed")
def test_two_nights(s3: str, tmp_path: Path) -> None:
    """The second takes the photos from the cache, and is trained from and compared with the first."""
    from mlplatform.orchestration.kubeflow.compile import compile_pipeline

    colours = module_at(REPOSITORY / "tests/vision/colour_photos.py")
    files = fsspec.filesystem("s3")
    for colour in colours.COLOURS:
        for number in range(4):
            split = "validation" if number == 3 else "train"
            data = colours.encode(colour, number, side=32)
            files.pipe_file(f"{s3}/photos/{split}/{colour}/{number}.jpg", data)
    root = f"{s3}/team"
    options = {"image": "team:1", "nodes": {"ImageExampleGen": {"cache": True}}}
    create_pipeline = importlib.import_module("team_items.pipeline").create_pipeline
    pipeline = create_pipeline(f"{s3}/photos", root, **QUICK)
    package = compile_pipeline(pipeline, root=root, options=options).text
    with Simulator(f"{root}/pipelines", tmp_path / "cluster", mode="fork") as cluster:
        nights = RecurringRun(cluster, package)
        moment = datetime(2026, 11, 28, 2, tzinfo=timezone.utc)
        for night in range(2):
            run = nights.start(moment + timedelta(days=night))
            assert run
            assert run.state == "SUCCEEDED", run.failures()
    first, second = nights.runs
    assert second.tasks["ImageExampleGen"].state == "CACHED"
    assert first.tasks["pushed"].outputs.artifacts["model"].metadata["unresolved"] == 1
    assert first.tasks["ModelTrainer"].uri("model") in str(second.tasks["pushed"].outputs)
    judged = files.cat_file(f"{second.tasks['ModelValidator'].uri('evaluation')}/metrics.json").decode()
    assert "version 1 of team_items" in judged
    versions = ModelStore(f"{root}/models").versions("team_items")
    assert [(each.version, each.push and each.push.run) for each in versions] == [
        (1, first.id),
        (2, second.id),
    ]
