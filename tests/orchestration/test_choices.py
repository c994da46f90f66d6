"""Runners and engines are chosen by name, by entry point or by import string."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from mlplatform.orchestration.choices import ENGINES, RUNNERS, Choices, UnknownChoiceError
from mlplatform.orchestration.local.errors import RunNotInProgressError
from mlplatform.orchestration.local.records import RunFolder, RunRecord
from mlplatform.orchestration.local.runner import LocalRunner
from mlplatform.orchestration.runner import Runner


def test_what_is_offered_is_there():
    assert RUNNERS.load("local") is LocalRunner
    assert list(ENGINES.load("direct")()) == ["--runner=DirectRunner"]
    assert (RUNNERS.names()[0], ENGINES.names()[0]) == ("local", "direct")


def test_the_local_runner_keeps_the_protocol(tmp_path):
    # By calling it: a protocol's own __init__ cannot be read in Python 3.10.
    assert LocalRunner(tmp_path, parallelism=2, force=("Trainer",)).record is None
    for name in ("run_reference", "status", "logs", "cancel"):
        promised = inspect.signature(getattr(Runner, name)).parameters
        kept = inspect.signature(getattr(LocalRunner, name)).parameters
        assert {p: promised[p].default for p in promised} == {
            p: kept[p].default for p in kept if p in promised
        }
        assert all(kept[p].default is not inspect.Parameter.empty for p in kept.keys() - promised.keys())


def test_a_team_registers_its_own(tmp_path, monkeypatch):
    folder = tmp_path / "team-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: team\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[mlplatform.engines]\nours = team_engine:arguments\n")
    (tmp_path / "team_engine.py").write_text("def arguments():\n    return ['--runner=Ours']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ENGINES.names()[-1] == "ours"
    assert ENGINES.load("ours")() == ENGINES.load("team_engine:arguments")() == ["--runner=Ours"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("flink", "there is none of this name"),
        ("not_there:x", "No module named 'not_there'"),
        ("json:x", "module 'json' has no attribute 'x'"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(name, problem):
    with pytest.raises(UnknownChoiceError, match=problem) as raised:
        Choices("engine", "no.such.group", {"direct": "json:loads"}).load(name)
    assert "there is direct, or give an import string" in str(raised.value)


def test_the_command_refuses_an_engine_that_does_not_exist(tmp_path):
    command = [sys.executable, "-m", "mlplatform.cli.main", "run", "item_category", "--root", str(tmp_path)]
    done = subprocess.run([*command, "--engine", "flinc"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "engine 'flinc': there is none of this name; there is direct" in done.stderr


RUNS = """
import sys, time
from mlplatform.orchestration.local.active_run import ActiveRun
from mlplatform.orchestration.local.display import display_for
from mlplatform.home import Home

with ActiveRun(Home.at(sys.argv[1]), "sleeps", 1, display_for()) as active:
    print(active.record.run_id, flush=True)
    time.sleep(600)
"""


def test_a_run_is_cancelled_from_another_process(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", RUNS, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run_id = process.stdout.readline().strip()
    runner = LocalRunner(tmp_path, parallelism=1)
    assert runner.status(run_id).state == "running"
    runner.cancel(run_id)
    process.communicate(timeout=60)
    assert runner.status().state == "cancelled"
    with pytest.raises(RunNotInProgressError, match="it is cancelled"):
        runner.cancel()


def test_what_a_node_printed_is_read_by_the_runner(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "20260101")
    folder.create()
    folder.write(RunRecord("20260101", "tiny"))
    Path(folder.log("_runner")).write_text("printed\n")
    assert LocalRunner(tmp_path, parallelism=1).logs("latest", "_runner") == "printed\n"
    folder.release()
