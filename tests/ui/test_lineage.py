"""`mlplatform lineage` and `runs export`, on a root with a history."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlplatform.cli.main import cli
from mlplatform.home import Home
from mlplatform.orchestration.local.run_events import is_dirty
from mlplatform.ui.lineage import NothingNamedError, lineage

FIRST, FAILED, SECOND = (f"2026010{day}T010203.000-aaa{day}" for day in (1, 2, 3))


def run(home: Home, *words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--root", home.root])


def test_up_from_a_model_leads_to_its_data_code_and_run(home: Home) -> None:
    done = run(home, "lineage", "item_category@1", "--up", "--json")
    document = json.loads(done.stdout)
    nodes = {node["id"]: node for node in document["nodes"]}
    assert {"model:item_category@1", f"run:{FIRST}", "dataset:items@v1"} <= set(nodes)
    assert nodes["dataset:items@v1"]["records"] == {"eval": 6, "train": 24}
    assert nodes[f"run:{FIRST}"]["arguments"] == {"data": "photos"}
    assert nodes["model:item_category@1"]["labels"] == ["stable"]
    assert {"from": f"run:{FIRST}", "to": "model:item_category@1", "how": "pushed"} in document["edges"]
    assert not any(SECOND in edge["to"] for edge in document["edges"])


def test_down_from_a_record_leads_to_every_model_that_saw_it(home: Home) -> None:
    named, part = lineage(home, "item-3", "down")
    assert named.id == "record:items/item-3"
    assert named.id in part.nodes
    models = {node.name for node in part.nodes.values() if node.kind == "model"}
    assert models == {"item_category@1", "item_category@2"}
    # A record of the second version alone was not in the first model.
    _, part = lineage(home, "record:items/item-35", "down")
    assert {n.name for n in part.nodes.values() if n.kind == "model"} == {"item_category@2"}
    assert part.as_json()["edges"][0].keys() == {"from", "to", "how"}


def test_a_reused_result_leads_to_the_run_that_made_it(home: Home) -> None:
    _, part = lineage(home, f"run:{SECOND}", "up")
    assert f"run:{FIRST}" in part.nodes
    assert "dataset:items@v1" in part.nodes
    _, part = lineage(home, SECOND, "up", hops=1)
    assert "dataset:items@v1" not in part.nodes


@pytest.mark.parametrize(
    "what", ["latest", SECOND, SECOND[:10], "item_category@stable", "items@v2", "dataset:items@latest"]
)
def test_ways_to_name_something(home: Home, what: str) -> None:
    named, part = lineage(home, what)
    assert named.id in part.nodes


@pytest.mark.parametrize(
    "what", ["nothing", "items@v9", "other@1", "run:2025", "2026", "record:items/x", "", "@", "a:b"]
)
def test_what_is_not_there_is_reported(home: Home, what: str) -> None:
    with pytest.raises(NothingNamedError, match="nothing under"):
        lineage(home, what)
    assert run(home, "lineage", what or "nothing").exit_code == 2


def test_the_page_holds_the_graph_and_needs_nothing_else(home: Home, tmp_path: Path) -> None:
    done = run(home, "lineage", "items@v1", "--html", str(tmp_path / "l.html"))
    assert done.exit_code == 0, done.output
    assert "--used-->" in done.output
    page = (tmp_path / "l.html").read_text("utf-8")
    assert "<svg" in page
    assert "items@v1" in page
    assert re.findall(r'(?:src|href)="(?!#|data:)', page) == []


def test_a_run_is_exported_whole(home: Home, tmp_path: Path) -> None:
    assert run(home, "runs", "export", FAILED, "-o", str(tmp_path / "run.json")).exit_code == 0
    document = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert document["run_id"] == FAILED
    assert [node["id"] for node in document["nodes"]] == ["ExampleGen", "Trainer"]
    assert document["nodes"][1]["cache"]["changes"][0]["part"] == "input examples"
    assert document["verdicts"][0]["reasons"] == ["3 records of train have no label"]
    assert document["previous"]["run_id"] == FIRST
    assert document["previous"]["data"][0] | {"splits_before": 0, "splits_now": 0} == {
        "dataset": "items", "before": "v1", "now": "v2", "splits_before": 0, "splits_now": 0,
        "added": 11, "removed": 3,
    }  # fmt: skip
    assert "step 2 of 2" in document["logs"]["Trainer"]
    assert {event["kind"] for event in document["events"]} >= {"run.started", "node.finished", "verdict"}
    assert run(home, "runs", "export", FAILED, "-o", str(tmp_path / "run.html")).exit_code == 0
    page = (tmp_path / "run.html").read_text("utf-8")
    # The cause stands before everything else.
    assert page.index("no photo could be read") < page.index("<svg")
    assert re.findall(r'(?:src|href)="(?!#|data:)', page) == []
    assert run(home, "runs", "export", FAILED, "-o", str(tmp_path / "run.txt")).exit_code == 2


def test_dirtiness_of_a_checkout(tmp_path: Path) -> None:
    assert is_dirty(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "code.py").write_text("one")
    subprocess.run([*git, "add", "code.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    (tmp_path / "beside").write_text("not tracked")
    assert is_dirty(tmp_path) is False
    (tmp_path / "code.py").write_text("two")
    assert is_dirty(tmp_path) is True


def test_tags_and_notes_of_a_run(tmp_path: Path) -> None:
    from mlplatform.orchestration.local.ledger_runs import find_run
    from mlplatform.orchestration.local.run_document import run_document
    from mlplatform.registry.ledger import Ledger

    home = Home.at(tmp_path / "root")
    Ledger(home.ledger).append("runs/one", "run.started", pipeline="p")
    assert run(home, "runs", "tag", "one", "keep", "best").output == "one: best, keep\n"
    assert run(home, "runs", "tag", "one", "--remove", "best").output == "one: keep\n"
    assert run(home, "runs", "tag", "one", "two words").exit_code == 2
    assert run(home, "runs", "note", "one", "the <b>best</b> so far").exit_code == 0
    document = run_document(home, find_run(home, "one"))
    assert document["tags"] == ["keep"]
    assert [note["note"] for note in document["notes"]] == ["the <b>best</b> so far"]
