"""Metrics of runs, and runs in notebooks."""

import json

import pytest
from click.testing import CliRunner

from mlplatform.cli.runs import runs
from mlplatform.home import Home
from mlplatform.orchestration.local.records import ArtifactRecord, NodeRecord, RunFolder, RunRecord
from mlplatform.orchestration.local.run_metrics import run_metrics


@pytest.fixture
def record(tmp_path):
    """Return a function that writes the record of a run whose gate wrote some metrics."""

    def make(run_id, metrics):
        evaluation = tmp_path / f"evaluation-{run_id}"
        evaluation.mkdir()
        (evaluation / "metrics.json").write_text(metrics)
        gate = NodeRecord("Gate", "ModelValidator", "done", why="<first>")
        gate.outputs = {"evaluation": [ArtifactRecord(1, "ModelEvaluation", str(evaluation))]}
        made = RunRecord(run_id, "p", state="done", nodes=[gate])
        folder = RunFolder(Home.at(tmp_path / "home").runs / run_id)
        folder.create()
        folder.write(made)
        folder.release()
        return made

    return make


def quality(**figures):
    return json.dumps({"quality": figures})


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (quality(top_1={"value": 0.9, "low": 0.8}, photos=5, classes=[]), {"top_1": 0.9, "photos": 5}),
        (json.dumps({"quality": None}), {}),
        ("[]", {}),
        ("{", {}),
    ],
)
def test_the_figures_of_a_runs_evaluation(record, metrics, expected):
    assert run_metrics(record("1", metrics)) == expected


def test_list_and_compare_show_them(record, tmp_path):
    record("1", quality(top_1={"value": 0.875}))
    record("2", quality(top_1={"value": 0.9}))
    root = ["--root", str(tmp_path / "home")]
    listed = json.loads(CliRunner().invoke(runs, ["list", "--json", *root]).stdout)
    assert [row["metrics"] for row in listed] == [{"top_1": 0.9}, {"top_1": 0.875}]
    assert "0.875" in CliRunner().invoke(runs, ["list", *root]).stdout
    assert "top_1: 0.875 -> 0.9" in CliRunner().invoke(runs, ["compare", "1", "2", *root]).stdout


def test_a_run_in_a_notebook_is_a_table(record):
    shown = record("1", "{}")._repr_html_()
    assert "run 1 of p: done" in shown
    assert "<td>Gate</td><td>done</td><td>0.0 s</td><td>&lt;first&gt;</td>" in shown
