"""The stock taxi pipeline, ingest to push, under our runner."""

import io
import json
import shutil
from pathlib import Path

import pytest

from mlplatform.orchestration.local import LocalRunner
from mlplatform.orchestration.local.display import Lines

REPOSITORY = Path(__file__).parents[2]
TAXI = REPOSITORY.parent / "shared/data/taxi"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.shared_data,
    pytest.mark.usefixtures("warm_start"),
]


@pytest.mark.timeout(900)
def test_stock_components_run_and_an_edit_runs_only_what_it_reaches(tmp_path):
    if not TAXI.is_dir():
        pytest.skip(f"the development data is not there: {TAXI}")
    data, code, root = tmp_path / "data", tmp_path / "code", tmp_path / "root"
    data.mkdir()
    with (TAXI / "data.csv").open() as rows:
        (data / "data.csv").write_text("".join(line for _, line in zip(range(1001), rows, strict=False)))
    shutil.copytree(REPOSITORY / "examples/taxi", code, ignore=shutil.ignore_patterns("__pycache__"))
    screen = io.StringIO()
    runner = LocalRunner(root, display=Lines(screen))
    name, arguments = (
        str(code / "pipeline.py"),
        {"data": str(data), "overrides": {"train_steps": 20, "eval_steps": 2}},
    )

    first = runner.run_reference(name, **arguments)
    assert {node.state for node in first.nodes} == {"done"}
    assert [entry.name for entry in (root / "models/taxi").iterdir()] != []
    assert not (root / "pipelines/taxi/_wheels").exists()  # nothing was packed
    transform_log = (root / "runs" / first.run_id / "logs/Transform.log").read_text()
    assert "ephemeral" not in transform_log

    second = runner.run_reference(name, **arguments)
    assert {node.state for node in second.nodes} == {"cached"}

    trainer = code / "trainer.py"
    trainer.write_text(trainer.read_text().replace("(100, 50)", "(20, 10)"))
    third = runner.run_reference(name, **arguments)
    ran = {node.id for node in third.nodes if node.state == "done"} - {"latest_blessed_model"}
    assert ran == {"Trainer", "Evaluator", "Pusher"}
    assert third.node("Trainer").why == f"code edited: {trainer}"
    details = json.loads((root / "runs" / third.run_id / "nodes/Trainer.json").read_text())
    assert [change["part"] for change in details["changes"]] == [f"code {trainer}"]
