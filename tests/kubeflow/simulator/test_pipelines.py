"""Whole pipelines as a cluster runs them, twice each: minutes long, so left out unless asked for."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.orchestration.kubeflow.compile import compile_pipeline
from mlplatform.orchestration.local import LocalRunner
from mlplatform.registry import ModelStore
from mlplatform.registry.ledger import Ledger
from mlplatform.testing.kubeflow import SimulatedRun, Simulator

REPOSITORY = Path(__file__).parents[3]
TAXI = REPOSITORY.parent / "shared/data/taxi"
COLOURS = REPOSITORY / "tests/vision/colour_photos.py"
QUICK: dict[str, Any] = {
    "model": {"backbone": "scratch", "image_size": 32, "epochs": 2, "batch_size": 6, "augment": False},
    "thresholds": {"top_1": 0.0, "top_5": 0.0, "max_top_1_drop": 1.0},
    "budget": {"p99_latency_ms": 60_000, "load_time_s": 600, "peak_memory_mb": 10_000, "time_limit_s": 900},
    "policy": {"too_few_examples": "ignore"},
}
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def module_at(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_twice(
    s3: str, name: str, folder: Path, ingest: str, make: Callable[[str, int], Any]
) -> list[SimulatedRun]:
    """Run a pipeline and a later form of it; the ingest is cached, as it is when the data is unchanged."""
    root = f"{s3}/{name}"
    options = {"image": "team:1", "nodes": {ingest: {"cache": True}}}
    runs = []
    with Simulator(f"{root}/pipelines", folder, mode="fork") as cluster:
        for number in range(2):
            runs.append(cluster.run(compile_pipeline(make(root, number), root=root, options=options).text))
            assert runs[-1].state == "SUCCEEDED", runs[-1].failures()
    return runs


def test_taxi(s3: str, tmp_path: Path) -> None:
    """Stock components, the CSV files and the pushed models on a volume, the code in a module file."""
    if not TAXI.is_dir():
        pytest.skip(f"the development data is not there: {TAXI}")
    data = tmp_path / "data"
    data.mkdir()
    with (TAXI / "data.csv").open() as rows:
        (data / "data.csv").write_text("".join(row for _, row in zip(range(1501), rows, strict=False)))
    pipeline = module_at(REPOSITORY / "examples/taxi/pipeline.py")

    def make(_: str, __: int) -> Any:
        return pipeline.create_pipeline(
            data=str(data), root=str(tmp_path / "volume"), train_steps=20, eval_steps=2, min_accuracy=0.1
        )

    first, second = run_twice(s3, "taxi", tmp_path / "cluster", "CsvExampleGen", make)
    cached = {"CsvExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "Transform", "Trainer"}
    assert {name for name, state in second.states().items() if state == "CACHED"} == cached
    blessing = second.tasks["Evaluator"].outputs.artifacts["blessing"].metadata
    trained = first.tasks["Trainer"].outputs.artifacts["model"]
    assert blessing["baseline_model"] == trained.uri
    assert blessing["current_model"] == second.tasks["Trainer"].uri("model")
    assert "baseline_model" not in first.tasks["Evaluator"].outputs.artifacts["blessing"].metadata
    examples = first.tasks["CsvExampleGen"].outputs.artifacts["examples"].metadata
    assert examples["custom:span"] == 0  # beside the property of the type
    assert examples["input_fingerprint"]
    assert len(list((tmp_path / "volume/models/taxi").iterdir())) == 2


def test_item_category(s3: str, tmp_path: Path) -> None:
    """Our components, photos and everything else in the bucket; the same data locally gives the same."""
    from mlplatform.pipelines.item_category import create_pipeline

    colours = module_at(COLOURS)
    photos = tmp_path / "photos"
    for colour in colours.COLOURS:
        for number in range(4):
            split = "validation" if number == 3 else "train"
            place = photos / split / colour
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.jpg").write_bytes(colours.encode(colour, number, side=32))
    files = fsspec.filesystem("s3")
    files.put(str(photos), f"{s3}/photos", recursive=True)

    def make(root: str, number: int) -> Any:
        settings = {**QUICK, "model": {**QUICK["model"], "seed": number}}
        return create_pipeline(f"{s3}/photos", root, data_splits=["train", "validation"], **settings)

    first, second = run_twice(s3, "items", tmp_path / "cluster", "ImageExampleGen", make)
    # What reads or writes beside its artifacts is not cached, unless an option or a submission says so.
    assert {name for name, state in second.states().items() if state == "CACHED"} == {"ImageExampleGen"}

    home = tmp_path / "home"
    runner = LocalRunner(home)
    try:
        record = runner.run(create_pipeline(photos, home, **QUICK))
    finally:
        runner.close()
    here = DatasetStore(home / "datasets").show("items", "latest")
    there = DatasetStore(f"{s3}/items/datasets").show("items", "latest")
    assert (there.digest, there.version) == (here.digest, "v1")  # no second version
    figures = []
    for ledger, run in ((Ledger(home / "ledger"), record.run_id), (Ledger(f"{s3}/items/ledger"), first.id)):
        verdicts = [event for event in ledger.events(f"runs/{run}") if event.kind == "verdict"]
        figures.append({str(v.get("gate")): (v.get("is_accepted"), v.get("reasons")) for v in verdicts})
    assert figures[0] == figures[1]
    judged = [
        json.loads(files.cat_file(f"{run.tasks['ModelValidator'].uri('evaluation')}/metrics.json"))
        for run in (first, second)
    ]
    (evaluation,) = record.node("ModelValidator").outputs["evaluation"]
    local = json.loads((Path(evaluation.uri) / "metrics.json").read_text())
    assert judged[0]["quality"] == local["quality"]
    assert "no pushed model" in judged[0]["baseline"]["text"]
    assert "version 1 of item_category" in judged[1]["baseline"]["text"]
    versions = ModelStore(f"{s3}/items/models").versions("item_category")
    assert [(each.version, each.push and each.push.dataset) for each in versions] == [
        (1, "items@v1"),
        (2, "items@v1"),
    ]
