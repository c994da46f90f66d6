"""Nodes that run Beam: which engine, which options, which modules its workers find."""

import io
import json
import shutil
import sys

import pytest

from mlplatform.orchestration.local import LocalRunner
from mlplatform.orchestration.local.display import Lines

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("warm_start")]


def log_of(root, record, node):
    return (root / "runs" / record.run_id / f"logs/{node}.log").read_text()


@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_workers_find_the_modules_beside_the_pipeline_and_no_engine_is_downloaded(
    tmp_path, pipelines, mode, monkeypatch
):
    code, root = tmp_path / "code", tmp_path / "root"
    code.mkdir()
    for name in ("beam_by_name", "beam_steps", "neighbour"):
        shutil.copy(pipelines / f"{name}.py", code)
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry != str(pipelines)])
    screen = io.StringIO()
    runner = LocalRunner(root, display=Lines(screen))
    record = runner.run_reference(str(code / "beam_by_name.py"), overrides={"mode": mode})
    assert record.state == "done"
    log = log_of(root, record, "Count")
    assert "100" in log.splitlines()
    assert "prism" not in log.lower()
    assert "Count: Beam: " in screen.getvalue()  # records done, while it works
    assert " records, " in screen.getvalue()


def test_beam_arguments_may_be_placeholders(runner, pipeline, monkeypatch):
    """TFX: local_pipeline_beam_test, testBeamComponentWithPlaceHolderArgs."""
    import beam_steps
    from tfx.dsl.placeholder import placeholder

    monkeypatch.setenv("DIRECT_RUNNING_MODE", "multi_threading")
    monkeypatch.setenv("NUM_WORKERS", "--direct_num_workers=2")
    arguments = [
        "--runner=DirectRunner",
        "--direct_running_mode=" + placeholder.environment_variable("DIRECT_RUNNING_MODE"),
        placeholder.environment_variable("NUM_WORKERS"),
    ]
    made = pipeline(beam_steps.Options(), beam_pipeline_args=arguments)
    [artifact] = runner.run(made).node("Options").outputs["out"]
    with open(artifact.uri) as file:
        assert json.load(file) == [2, "multi_threading"]


def test_side_inputs_state_and_options_are_as_ever(runner, pipeline):
    import beam_steps

    arguments = ["--runner=DirectRunner", "--direct_running_mode=in_memory"]
    made = pipeline(beam_steps.JoinAndCount(), beam_pipeline_args=arguments)
    [artifact] = runner.run(made).node("JoinAndCount").outputs["out"]
    with open(artifact.uri) as file:
        views, rows = json.load(file)
    assert views == [True, False]
    words, totals = [("a", 1), ("a", 3), ("b", 2), ("c", 4)], {"a": 4, "b": 2, "c": 4}
    joined = [[key, number, totals[key], [1, 2, 3, 4], 4] for key, number in words]
    numbered = [["a", 1], ["a", 2], ["b", 1], ["c", 1]]
    assert sorted(rows, key=str) == sorted(joined + numbered, key=str)
