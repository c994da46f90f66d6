"""Runs in the ledger: what a runner writes, and what another machine reads of it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlplatform.home import Home
from mlplatform.orchestration.local.ledger_runs import find_run, read_runs, run_of_events, summary_of
from mlplatform.orchestration.local.records import (
    ArtifactRecord,
    NodeDetails,
    NodeRecord,
    NoLogError,
    RunFolder,
    RunNotFoundError,
    RunRecord,
)
from mlplatform.orchestration.local.run_events import RunEvents, commit_of
from mlplatform.registry.events import run_stream
from mlplatform.registry.ledger import Ledger

RUN = "20260101T000000.000-ab12"


@pytest.fixture
def record():
    made = ArtifactRecord(7, "String", "/artifacts/a/out/1", "d1")
    return RunRecord(
        RUN,
        "tiny",
        "/artifacts",
        started_at="2026-01-01T00:00:00+00:00",
        arguments={"data": "photos"},
        versions={"tfx": "1.16.0"},
        nodes=[
            NodeRecord("a", "Make", "done", "first run", [], "2026-01-01T00:00:01+00:00", 1.5, 80.0, 1.2, 3,
                       {}, {"out": [made]}),
            NodeRecord("b", "Show", "waiting", upstream=["a"]),
        ],
    )  # fmt: skip


def written(home, record, state="done", seconds=2.5):
    """Write a run as a runner does, in which node b starts and ends as `state`."""
    folder = RunFolder(home.runs / record.run_id)
    folder.create()
    folder.log("a").write_text("a's log\n")
    folder.write_details(NodeDetails("a", "first", "first run", "k"))
    events = RunEvents(home, folder)
    first, second = record.nodes
    events.run_started(record)
    events.node_finished(first)
    second.state, second.started_at = "running", "2026-01-01T00:00:02+00:00"
    events.node_started(second)
    if state:
        second.state = record.state = state
        record.wall_s = seconds
        events.node_finished(second)
        events.run_finished(record)
    assert events.close() == ""
    return folder


@pytest.mark.parametrize("place", ["local", "memory://ledger_runs/root"])
def test_another_machine_reads_what_a_runner_wrote(place, record, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    root = str(tmp_path / "root") if place == "local" else place
    home = Home.at(root)
    folder = written(home, record)
    if place == "local":
        shutil.move(str(folder.path), tmp_path / "elsewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    found = find_run(Home.at(root))
    assert found.read() == record
    summary = summary_of(found)
    assert (summary.state, summary.wall_s, summary.nodes) == ("done", 2.5, {"done": 2})
    assert [each.run_id for each in read_runs(Home.at(root))] == [RUN]
    if place != "local":  # logs and details of a local root lie in the folder that was moved away
        assert found.read_log("a") == "a's log\n"
        assert found.read_details("a") == NodeDetails("a", "first", "first run", "k")
    with pytest.raises(NoLogError):
        found.read_log("b")
    assert found.read_details("b") is None
    with pytest.raises(RunNotFoundError, match="no run 'x'"):
        find_run(Home.at(root), "x")


def test_a_run_of_this_machine_is_read_from_its_folder(record, tmp_path):
    home = Home.at(tmp_path)
    folder = written(home, record, state="")  # killed
    folder.write(record)
    folder.release()
    assert find_run(home).read().state == "interrupted"
    assert len(list(read_runs(home))) == 1


def test_a_killed_run_ends_for_others_when_its_machine_runs_again(record, tmp_path):
    home = Home.at(tmp_path)
    written(home, record, state="")
    events = Ledger(home.ledger).events(run_stream(RUN))
    assert run_of_events(RUN, events).state == "running"
    later = RunEvents(home, RunFolder(home.runs / "later"))
    later.run_interrupted(RUN)
    assert later.close() == ""
    found = run_of_events(RUN, Ledger(home.ledger).events(run_stream(RUN)))
    assert (found.state, found.node("a").state, found.node("b").state) == ("interrupted", "done", "cancelled")


def test_events_without_a_runner_and_of_another_form_are_a_run_all_the_same(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append("runs/x", "dataset.used", dataset="items@v1")
    assert run_of_events("x", ledger.events("runs/x")).state == "unknown"
    ledger.append("runs/x", "node.finished", node="a", inputs="?", outputs=[1, {"uri": "s3://b/a"}], other=1)
    ledger.append("runs/x", "node.finished", node=3)
    ledger.append("runs/x", "run.started", nodes=[{}, {"node": "a"}, None])
    ledger.append("runs/x", "run.finished", state="odd", seconds="long")
    found = run_of_events("x", ledger.events("runs/x"))
    assert (found.state, found.wall_s, [node.id for node in found.nodes]) == ("unknown", 0.0, ["a"])


def test_a_ledger_that_cannot_be_written_is_reported_and_stops_no_run(record, tmp_path):
    (tmp_path / "ledger").write_text("a file")
    folder = RunFolder(tmp_path / "runs" / RUN)
    events = RunEvents(Home.at(tmp_path), folder)
    events.run_started(record)
    assert "ledger" in events.close()


def test_the_commit_is_that_of_the_code(tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    (tmp_path / "code").mkdir()
    assert commit_of(tmp_path / "code") == commit.strip()
    subprocess.run([*git, "worktree", "add", "-q", str(tmp_path / "tree")], check=True)
    assert commit_of(tmp_path / "tree") == commit.strip()
    subprocess.run([*git, "pack-refs", "--all"], check=True)
    subprocess.run([*git, "checkout", "-q", "--detach"], check=True)
    assert commit_of(tmp_path) == commit.strip()


def test_the_commands_read_the_runs_of_another_machine(record, tmp_path):
    home = Home.at(tmp_path / "root")
    shutil.move(str(written(home, record).path), tmp_path / "elsewhere")

    def runs(*arguments: str) -> str:
        command = [sys.executable, "-m", "mlplatform.cli.main", "runs", *arguments, "--root", home.root]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    [row] = json.loads(runs("list", "--json"))
    assert (row["run_id"], row["state"], row["wall_s"]) == (RUN, "done", 2.5)
    assert "/artifacts/a/out/1" in runs("show", RUN)
    assert "first run" in runs("why", "latest")
    assert Path(home.root, "runs", RUN).exists() is False
