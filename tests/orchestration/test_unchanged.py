"""When a run may be repeated without making the pipeline: only while all that it depended on is as it was."""

import dataclasses
import datetime
import json
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2

from mlplatform.fingerprints.digests import Digests, file_digest
from mlplatform.home import Home
from mlplatform.orchestration.local.cache import surroundings, unchanged
from mlplatform.orchestration.local.cache.pushed import versions_digest
from mlplatform.orchestration.local.cache.sources import Sources, names_digest, neighbours_digest
from mlplatform.orchestration.local.cache.unchanged import Memory
from mlplatform.orchestration.local.errors import DatabaseUnusableError
from mlplatform.orchestration.local.mlmd.lineage import Database
from mlplatform.orchestration.local.plan import NodePlan, Plan
from mlplatform.orchestration.local.records import (
    ArtifactRecord,
    NodeDetails,
    NodeRecord,
    RunFolder,
    RunRecord,
)
from mlplatform.roles import READ, VALUE, WRITTEN
from mlplatform.storage import open_storage

NODE = NodePlan("n", "N", (), "m.E", False, True, False, False)


class World:
    """A finished run of a pipeline of one node, and all that it depended on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, Home.at(folder / "root")
        for name in ("code", "listed", "data", "pushed/1"):
            (folder / name).mkdir(parents=True)
        for name in (
            "code/pipeline.py",
            "code/settings",
            "listed/a",
            "data/rows",
            "pushed/1/model",
            "output",
        ):
            (folder / name).write_text(name)
        self.digests = Digests(folder / "digests")
        config = metadata_store_pb2.ConnectionConfig()
        config.sqlite.filename_uri = str(folder / "metadata.sqlite")
        config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.database = Database(config.SerializeToString(), "ConnectionConfig", "")
        self.plan = Plan(
            pipeline="p",
            pipeline_root=str(folder / "artifacts"),
            connection=self.database.connection,
            connection_kind=self.database.kind,
            database="",
            sqlite=config.sqlite.filename_uri,
            nodes=(NODE,),
            needs_snapshot=False,
            main_path="",
            sources=Sources(
                files={self.path("code/settings"): self.of("code/settings"), self.path("absent"): ""},
                folders={self.path("listed"): names_digest(self.path("listed"))},
                neighbours={self.path("code"): neighbours_digest(self.path("code"))},
            ),
            is_reproducible=True,
            digest="",
        )
        self.details = NodeDetails(
            "n",
            decision="first",
            parts={"parameter x": "1"},
            files={self.path("code/pipeline.py"): self.of("code/pipeline.py")},
            paths={self.path("pushed/1"): self.digests.of(self.path("pushed/1"))},
            folders={self.path("pushed"): names_digest(self.path("pushed"))},
        )
        self.record = RunRecord("20260101T000000.000-0000", "p", state="done")
        output = ArtifactRecord(1, "String", self.path("output"))
        self.record.nodes = [NodeRecord("n", "N", "done", execution_id=1, outputs={"out": [output]})]
        self.execute()

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def of(self, name: str) -> str:
        return file_digest(self.path(name))

    def memory(self) -> Memory:
        return Memory(self.home, "pipeline.py", {"data": self.path("data")})

    def remember(self, memory: Memory | None = None) -> None:
        run = RunFolder(self.home.runs / self.record.run_id)
        if not run.path.exists():
            run.create()
        run.write(self.record)
        run.write_details(self.details)
        (memory or self.memory()).remember(run, self.record, self.plan, self.database)

    def recalled(self) -> unchanged.Remembered | None:
        return self.memory().recall()

    def execute(self, pipeline: str = "p", name: str = "one") -> None:
        """Add an execution of a pipeline to ML Metadata."""
        with self.database.open() as store:
            type_id = store.put_execution_type(metadata_store_pb2.ExecutionType(name="N"))
            context_type = store.put_context_type(metadata_store_pb2.ContextType(name="pipeline"))
            context = metadata_store_pb2.Context(type_id=context_type, name=pipeline)
            execution = metadata_store_pb2.Execution(type_id=type_id, name=name)
            store.put_execution(execution, [], [context], reuse_context_if_already_exist=True)

    def newest(self, *, is_alone: bool = False) -> list[str]:
        from mlplatform.orchestration.local.mlmd.lineage import newest_of

        with self.database.open() as store:
            return newest_of(store, "p", is_alone=is_alone)


class OneHour(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime(2026, 1, 1, 12, tzinfo=tz)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(surroundings, "datetime", OneHour)  # the tests may run over the full hour
    return World(tmp_path)


def test_nothing_changed(world):
    assert world.recalled() is None
    world.remember()
    remembered = world.recalled()
    assert remembered is not None
    assert remembered.run == world.record.run_id
    assert remembered.newest == world.newest()


@pytest.mark.parametrize(
    "name", ["code/pipeline.py", "code/settings", "data/rows", "pushed/1/model", "output"]
)
@pytest.mark.parametrize("is_gone", [False, True])
def test_content_that_changed_or_is_gone(world, name, is_gone):
    world.remember()
    if is_gone:
        (world.folder / name).unlink()
    else:
        (world.folder / name).write_text("another")
    assert world.recalled() is None


@pytest.mark.parametrize("name", ["absent", "listed/b", "code/new.yaml", "data/more", "pushed/2"])
def test_what_appeared(world, name):
    world.remember()
    (world.folder / name).write_text("new")
    assert world.recalled() is None


def test_an_unreadable_place_is_a_change(world):
    world.remember()
    (world.folder / "data/rows").unlink()
    (world.folder / "data/rows").symlink_to(world.folder / "data/rows")
    assert world.recalled() is None


@pytest.mark.parametrize(
    "name", ["WINDOW_SIZE", "COLUMNS_TO_USE", "STYLE", "LINES_PER_SHARD", "_MINE", "SSHKEY"]
)
def test_variables_count(world, monkeypatch, name):
    world.remember()
    monkeypatch.setenv(name, "1")
    assert world.recalled() is None


@pytest.mark.parametrize("name", ["_", "COLUMNS", "SSH_CONNECTION", "TERM", "XDG_SESSION_ID"])
def test_the_terminal_does_not(world, monkeypatch, name):
    world.remember()
    monkeypatch.setenv(name, "another")
    assert world.recalled() is not None


def test_the_surroundings_are_those_at_the_start(world, monkeypatch):
    memory = world.memory()
    monkeypatch.setenv("CHANGED_DURING_THE_RUN", "1")
    world.remember(memory)
    assert world.recalled() is None


def test_data_is_that_at_the_start(world):
    memory = world.memory()
    (world.folder / "data/rows").write_text("changed during the run")
    world.remember(memory)
    assert world.recalled() is None


@pytest.mark.parametrize("where", ["files of the key", "files of the sources"])
def test_a_file_that_was_edited_during_the_run(world, where):
    world.remember()
    if where == "files of the key":
        world.details.files[world.path("code/settings")] = "another digest"
    else:
        world.plan.sources.files[world.path("code/pipeline.py")] = "another digest"
    world.remember()
    assert world.recalled() is None


@pytest.mark.parametrize(
    "change",
    [
        {"is_reproducible": False},
        {"sources": Sources(world=("subprocess.Popen",))},
        {"nodes": (dataclasses.replace(NODE, is_cached=False),)},
        {"nodes": (dataclasses.replace(NODE, is_forced=True),)},
        {"nodes": (dataclasses.replace(NODE, is_left_out=True),)},
    ],
)
def test_plans_that_cannot_be_repeated(world, change):
    world.remember()
    world.plan = dataclasses.replace(world.plan, **change)
    world.remember()
    assert world.recalled() is None


@pytest.mark.parametrize("text", ["gs://bucket/data", '{"x": "s3://bucket"}', "in 20260101T000000.000-0000"])
def test_keys_that_cannot_be_looked_at(world, text):
    world.details.parts["parameter x"] = text
    world.remember()
    assert world.recalled() is None


@pytest.fixture
def bucket(world):
    """A place in object storage that the node read, and where it pushed; `put` changes what is there."""
    url = f"memory://{uuid.uuid4().hex}"
    put = open_storage(url).put
    put("rows", b"1")
    put("models/1/model", b"1")
    world.details.parts |= {"parameter rows": "0" * 32, "parameter nothing": f"{url}/nothing"}
    places = (f"{url}/rows", f"{url}/nothing", f"{url}/models/1")
    world.details.paths |= {place: world.digests.of(place) for place in places}
    world.details.folders[f"{url}/models"] = versions_digest(f"{url}/models")
    world.remember()
    return put


def test_nothing_changed_in_object_storage(world, bucket):
    assert world.recalled() is not None


@pytest.mark.parametrize("name", ["rows", "nothing", "models/1/model", "models/1/more", "models/2/model"])
def test_content_in_object_storage_that_changed_or_appeared(world, bucket, name):
    bucket(name, b"2")
    assert world.recalled() is None


def test_object_storage_that_cannot_be_reached_is_a_change(world, bucket, monkeypatch):
    def find(*_, **__):
        raise PermissionError("no")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.find", find)
    assert world.recalled() is None
    world.remember()
    assert world.recalled() is None


@pytest.mark.parametrize(
    ("role", "is_repeated"), [(WRITTEN, True), (VALUE, True), (READ, False), (None, False)]
)
def test_a_url_that_a_parameter_names(world, role, is_repeated):
    world.details.parts["parameter x"] = "s3://bucket/models"
    world.plan = dataclasses.replace(
        world.plan, nodes=(dataclasses.replace(NODE, roles={"x": role} if role else {}),)
    )
    world.remember()
    assert (world.recalled() is not None) is is_repeated


def test_doubts_about_a_result(world):
    world.details.doubts = ["/a"]
    world.remember()
    assert world.recalled() is None


def test_another_run_of_the_pipeline_and_another_database_are_seen(world):
    before = world.newest()
    world.execute("q", name="of another pipeline")
    assert world.newest() == before
    assert world.newest(is_alone=True) != before
    world.execute(name="two")
    assert world.newest() != before
    (world.folder / "metadata.sqlite").unlink()
    assert world.newest() == []
    world.execute(name="another with the same id")
    assert world.newest() != before


def test_the_note_is_for_its_owner_and_holds_no_secret_for_others(world):
    world.remember()
    [note] = (world.home.cache / "nodes/runs").iterdir()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert json.loads(note.read_text())["run"] == world.record.run_id


def test_arguments_with_keys_of_several_kinds_are_remembered_apart(world):
    world.remember(Memory(world.home, "pipeline.py", {"classes": {1: "x", "shoes": "y"}}))
    assert Memory(world.home, "pipeline.py", {"classes": {1: "x", "shoes": "y"}}).recall() is not None
    assert Memory(world.home, "pipeline.py", {"classes": {1: "z", "shoes": "y"}}).recall() is None


def test_a_database_whose_folder_is_gone_is_made_anew(tmp_path):
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(tmp_path / "gone" / "metadata.sqlite")
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    lock = str(tmp_path / "gone" / "metadata.lock")
    with Database(config.SerializeToString(), "ConnectionConfig", lock).open() as store:
        assert store.get_executions() == []


def test_a_damaged_database_is_named(tmp_path):
    file = tmp_path / "metadata.sqlite"
    file.write_bytes(b"not a database" * 100)
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(file)
    with (
        pytest.raises(DatabaseUnusableError, match="file is not a database") as raised,
        Database(config.SerializeToString(), "ConnectionConfig", "").open(),
    ):
        pass
    assert raised.value.database == str(file)
    assert file.read_bytes() == b"not a database" * 100


HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.soak  # ML Metadata waits for half a minute before it gives up
def test_a_database_that_another_program_holds_is_named(tmp_path):
    file = tmp_path / "metadata.sqlite"
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(file)
    # SQLite's locks are those of a process: one of its own has to hold it.
    other = [sys.executable, "-I", "-S", "-c", HOLD, str(file)]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(
                DatabaseUnusableError, match=r"Concurrent writes .*retries\. If another program holds it"
            ) as raised,
            Database(config.SerializeToString(), "ConnectionConfig", "").open(),
        ):
            pass
        holder.stdin.close()
    assert raised.value.database == str(file)


def test_the_hour_is_a_part(monkeypatch):
    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return OneHour.now(tz) + datetime.timedelta(hours=1)

    monkeypatch.setattr(surroundings, "datetime", OneHour)
    before = surroundings.surroundings()
    monkeypatch.setattr(surroundings, "datetime", Later)
    assert surroundings.surroundings() != before
