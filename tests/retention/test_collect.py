"""Retention: what the policy does not keep goes, and what is kept loses nothing, whoever is killed when."""

import fcntl
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlplatform.cli.main import cli
from mlplatform.config_file import ConfigError
from mlplatform.home import Home
from mlplatform.orchestration.local.records import RunFolder, run_folders
from mlplatform.registry import ModelStore
from mlplatform.registry.approvals import Approvals
from mlplatform.registry.errors import ModelVersionNotFoundError
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.run_marks import tag_run
from mlplatform.reports.kept import kept_reports
from mlplatform.retention.collect import Collection, collect
from mlplatform.retention.metadata import MetadataVersionError, metadata, without_shared
from mlplatform.retention.policy import RetentionPolicy, read_policy
from mlplatform.storage import open_storage

LATER = datetime(2027, 6, 1, tzinfo=timezone.utc)
ONE = RetentionPolicy(keep_runs=1, keep_days=1, keep_withdrawn_days=30)
KILLS = int(os.environ.get("SOAK_GC_KILLS", "20"))


def remove(
    home: Home, policy: RetentionPolicy = ONE, now: datetime = LATER, *, is_dry_run: bool = False
) -> Collection:
    return collect(home, policy, now, is_dry_run=is_dry_run)


def freed(done: Collection) -> dict[str, int]:
    return {each.kind: each.count for each in done.freed if each.count}


def rows(home: Home, table: str) -> int:
    with closing(sqlite3.connect(home.metadata_db)) as database:
        [(count,)] = database.execute(f"SELECT COUNT(*) FROM {table}").fetchall()
        return int(count)


def files(home: Home) -> dict[str, bytes]:
    """Every file of a root but the ledger, the caches, and ML Metadata's own."""
    root = home.machine
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in ("ledger", "cache", "metadata")
    }


def days(home: Home) -> list[int]:
    """The runs whose records are there, by their day."""
    return sorted(int(folder.run_id[6:8]) for folder in run_folders(home))


def test_what_is_kept_and_what_goes(history: Callable[[], Home]) -> None:
    home = history()
    done = remove(home)
    reasons = {int(run[6:8]): why for run, why in done.kept.items()}
    assert reasons == {
        1: "it pushed items@1, which is kept",
        5: "it is one of the newest 1 of other",
        6: "it is one of the newest 1 of p",
    }
    assert days(home) == [1, 5, 6]
    assert freed(done) == {
        "runs": 3, "artifacts": 3, "metadata rows": 9, "reports": 3, "withdrawn models": 2,
    }  # fmt: skip
    assert {report.run[6:8] for report in kept_reports(home.reports)} == {"01", "05", "06"}
    store = ModelStore(home.models)
    assert [v.version for v in store.versions("items")] == [1]
    assert store.version("items", "1").integrity() == "intact"
    with pytest.raises(ModelVersionNotFoundError):
        store.version("items", "2")
    assert len(Ledger(home.ledger).streams("runs")) == 6  # what happened stays known
    artifacts = sorted(path.name for path in (home.pipelines / "p/Train/model").iterdir())
    assert artifacts == ["1"]
    assert freed(remove(home)) == {}


def test_ml_metadata_stays_whole(history: Callable[[], Home]) -> None:
    from ml_metadata import MetadataStore
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    home = history()
    remove(home)
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(home.metadata_db)
    store = MetadataStore(config)
    executions = store.get_executions()
    assert len(executions) == 3
    for execution in executions:
        events = store.get_events_by_execution_ids([execution.id])
        artifacts = store.get_artifacts_by_id([event.artifact_id for event in events])
        assert len(artifacts) == len(events) == 1
        assert Path(artifacts[0].uri, "Format-Serving", "saved_model.pb").is_file()
        assert len(store.get_contexts_by_execution(execution.id)) == 4
    assert len(store.get_artifacts()) == 2
    assert rows(home, "EventPath") == 0
    assert {context.name for context in store.get_contexts_by_type("pipeline")} == {"p", "other"}
    # The maker of what the newest run took from it is what the next run's cache finds.
    [maker] = [e for e in executions if e.last_known_state == mlmd.Execution.COMPLETE and e.name[6:8] == "01"]
    assert store.get_events_by_execution_ids([maker.id])


def test_a_dry_run_removes_nothing_and_says_the_same(history: Callable[[], Home]) -> None:
    home = history()
    before, database = files(home), home.metadata_db.read_bytes()
    said = remove(home, is_dry_run=True)
    assert (files(home), home.metadata_db.read_bytes()) == (before, database)
    assert said == remove(home)
    assert said.bytes > 0


def test_what_else_keeps_a_run(world: Any) -> None:
    home = world.home
    made = [world.run() for _ in range(7)]
    tag_run(world.ledger, made[0].name, add=["best"])
    live = RunFolder(home.runs / made[1].name)
    record = live.read()
    record.state = "running"
    shutil.rmtree(live.path)
    shutil.rmtree(Path(home.ledger) / "runs" / made[1].name)
    live.create()
    live.write(record)
    Approvals(world.ledger).ask("items", "d1", run=made[2].name, now=LATER, time_limit_s=60.0)
    world.run(cached=made[3])
    world.run(state="failed")
    done = remove(home, now=LATER)
    live.release()
    assert {int(run[6:8]) for run in done.kept} == {1, 2, 3, 4, 8, 9}
    assert done.kept[made[0].name] == "it has a tag or a note"
    assert done.kept[made[1].name] == "it goes on"
    assert done.kept[made[2].name] == "it asks for an approval of items"
    assert done.kept[made[3].name].endswith("reuses its results")


def test_young_runs_and_versions_stay(history: Callable[[], Home]) -> None:
    home = history()
    done = remove(home, RetentionPolicy(keep_runs=1, keep_days=10), datetime(2026, 1, 8, tzinfo=timezone.utc))
    assert freed(done) == {}
    assert len(done.kept) == 6


def test_a_version_that_is_promoted_again_stays(history: Callable[[], Home]) -> None:
    home = history()
    ModelStore(home.models).promote("items", "3", "canary")
    done = remove(home)
    assert done.removed_versions == {"items": (2,)}
    assert any(run[6:8] == "03" for run in done.kept)


def test_a_place_that_is_not_the_roots_is_left_alone(world: Any, tmp_path: Path) -> None:
    first, linked, shared = world.run(), world.run(), world.run()
    newest = world.run()
    elsewhere = tmp_path / "elsewhere"
    shutil.move(Path(first.uri), elsewhere)
    Path(first.uri).symlink_to(elsewhere)
    outside = tmp_path / "imported"
    shutil.move(Path(linked.uri), outside)
    with closing(sqlite3.connect(world.home.metadata_db)) as database, database:
        database.execute("UPDATE Artifact SET uri = ? WHERE id = ?", (str(outside), linked.id))
        database.execute("UPDATE Artifact SET uri = ? WHERE id = ?", (f"{shared.uri}/part", newest.id))
    remove(world.home)
    assert (elsewhere / "Format-Serving").is_dir()
    assert (outside / "Format-Serving").is_dir()
    assert (Path(shared.uri) / "Format-Serving").is_dir()  # the newest run's artifact lies in it


def test_places_that_share_something() -> None:
    places = ["/a/1", "/a/2", "/a/3", "/a/4"]
    assert without_shared(places, iter(["/a/2/", "/a/3/x"])) == ["/a/1", "/a/4"]
    assert without_shared(["/a/1/x", "/a/10"], iter(["/a/1"])) == ["/a/10"]


def test_who_only_looks_keeps_no_node_waiting(history: Callable[[], Home]) -> None:
    file = history().metadata_db
    with metadata(file, is_written=False) as copy, open(f"{file}.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as nodes take it
        [(before,)] = copy.execute("SELECT COUNT(*) FROM Context").fetchall()
        with closing(sqlite3.connect(file, timeout=0)) as written, written:
            written.execute("DELETE FROM Context")
        assert copy.execute("SELECT COUNT(*) FROM Context").fetchall() == [(before,)]
    assert before > 0


def test_another_schema_is_not_touched(history: Callable[[], Home]) -> None:
    home = history()
    with closing(sqlite3.connect(home.metadata_db)) as database, database:
        database.execute("UPDATE MLMDEnv SET schema_version = 11")
    before = files(home)
    with pytest.raises(MetadataVersionError, match="schema 11"):
        remove(home)
    assert files(home) == before


@pytest.fixture(scope="session")
def collected(history: Callable[[], Home]) -> dict[str, bytes]:
    """What a collection that nobody disturbs leaves of the history."""
    home = history()
    remove(home)
    return files(home)


def check_and_finish(home: Home, collected: dict[str, bytes]) -> None:
    """After a kill: what is kept is there, what a cache may find is whole, and the next one ends it."""
    found = files(home)
    kept = {name: data for name, data in collected.items() if name != "reports/index.html"}
    assert {name: found.get(name) for name in kept} == kept
    with closing(sqlite3.connect(home.metadata_db)) as database:
        for (uri,) in database.execute("SELECT uri FROM Artifact").fetchall():
            assert Path(uri, "Format-Serving", "saved_model.pb").is_file(), uri
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    remove(home)
    assert files(home) == collected
    assert rows(home, "Artifact") == 2
    assert not (home.metadata_db.parent / "to-remove.json").exists()
    assert [v.version for v in ModelStore(home.models).versions("items")] == [1]


@pytest.mark.parametrize("step", [0, *random.Random(16).sample(range(1, 70), 7)])
def test_killed_before_one_of_its_steps(
    history: Callable[[], Home],
    collected: dict[str, bytes],
    killed_at: Callable[[int, Callable[[], object]], bool],
    step: int,
) -> None:
    home = history()
    assert killed_at(step, lambda: remove(home))
    check_and_finish(home, collected)


@pytest.mark.soak
def test_killed_before_every_step(
    history: Callable[[], Home],
    collected: dict[str, bytes],
    killed_at: Callable[[int, Callable[[], object]], bool],
) -> None:
    home, step = history(), 0
    while killed_at(step, lambda: remove(home)):
        check_and_finish(home, collected)
        history()  # at the same place
        step += 1
    assert step > 70


COLLECT = """
import sys
from datetime import datetime, timezone
from mlplatform.home import Home
from mlplatform.retention.collect import collect
from mlplatform.retention.policy import RetentionPolicy
import mlplatform.registry.models, mlplatform.datasets.gc, mlplatform.reports.page
policy = RetentionPolicy(keep_runs=1, keep_days=1, keep_withdrawn_days=30)
print("begins", flush=True)
collect(Home.at(sys.argv[1]), policy, datetime(2027, 6, 1, tzinfo=timezone.utc), is_dry_run=False)
"""


@pytest.mark.soak
def test_killed_at_any_moment(
    history: Callable[[], Home], collected: dict[str, bytes], soak_seed: int
) -> None:
    began = time.monotonic()
    remove(history())
    whole_s, chance, hits = time.monotonic() - began, random.Random(soak_seed), 0
    for _ in range(KILLS):
        home = history()
        command = [sys.executable, "-c", COLLECT, home.root]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begins\n"
            time.sleep(chance.uniform(0, 1.2 * whole_s))
            process.send_signal(signal.SIGKILL)
            process.wait()
            hits += process.returncode == -signal.SIGKILL
        check_and_finish(home, collected)
    assert hits > KILLS // 3  # else it was over before


def run(home: Home, *words: str) -> Result:
    return CliRunner().invoke(cli, ["gc", *words, "--root", home.root])


def test_the_command_needs_a_policy_or_a_yes(history: Callable[[], Home]) -> None:
    home = history()
    before = files(home)
    said = run(home, "--keep", "1", "--days", "1")
    assert said.exit_code == 0, said.output
    assert "would remove" in said.stdout
    assert "has no retention.yaml" in said.stdout
    assert files(home) == before
    (home.machine / "retention.yaml").write_text("keep_runs: 1\nkeep_days: 1\nkeep_withdrawn_days: 0\n")
    dry = json.loads(run(home, "--dry-run", "--json").stdout)
    assert (dry["is_dry_run"], dry["has_policy"], dry["policy"]["keep_runs"]) == (True, True, 1)
    done = json.loads(run(home, "--json").stdout)
    assert (done["is_dry_run"], done["freed"]) == (False, dry["freed"])
    assert {each["kind"] for each in done["freed"] if each["count"]} == {
        "runs", "artifacts", "metadata rows", "reports", "withdrawn models",
    }  # fmt: skip
    assert days(home) == [1, 5, 6]
    assert "removed 0 runs" in run(home).stdout


def test_without_a_policy_a_yes_will_do(history: Callable[[], Home]) -> None:
    home = history()
    assert "removed 1 runs" in run(home, "--keep", "1", "--days", "1", "--yes").stdout


@pytest.mark.parametrize("text", ["keep_rnus: 3", "keep_runs: 0", "- 1", "a: [", "keep_days: never"])
def test_a_policy_that_cannot_be_used_removes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "retention.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"retention\.yaml"):
        read_policy(Home.at(tmp_path))
    assert run(Home.at(tmp_path), "--yes").exit_code == 2


def test_an_empty_root(tmp_path: Path) -> None:
    assert freed(remove(Home.at(tmp_path / "nothing"))) == {}


def test_a_root_at_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    home = Home.at(f"memory://gc-{tmp_path.name}")
    ledger, models, reports = Ledger(home.ledger), ModelStore(home.models), open_storage(home.reports)
    for day in (1, 2, 3, 4):
        run_id = f"2026010{day}T000000.000-000{day}"
        stream = f"runs/{run_id}"
        ledger.append(stream, "run.started", pipeline="p", at=f"2026-01-0{day}T00:00:00+00:00")
        ledger.append(stream, "run.finished", state="done")
        open_storage(f"{home.root}/runs").put(f"{run_id}/logs/Train.log", b"trained")
        reports.put(f"{run_id}/run.html", b"page")
        if day == 4:  # the newest one pushes nothing
            continue
        model = tmp_path / f"m{day}"
        model.mkdir()
        (model / "saved_model.pb").write_text(model.name)
        models.push(model, "items", run=run_id)
    models.rollback("items", why="bad")
    done = remove(home)
    assert freed(done) == {"runs": 1, "reports": 1, "withdrawn models": 1}
    assert [name[6:8] for name in reports.names("") if name != "index.html"] == ["01", "02", "04"]
    assert open_storage(home.models).names("items") == ["1", "2"]
    assert freed(remove(home)) == {}
