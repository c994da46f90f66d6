"""A root with runs, artifacts, real ML Metadata, reports, pushed models and a dataset, all of it small."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from mlplatform.home import Home
from mlplatform.orchestration.local.records import ArtifactRecord, NodeRecord, RunFolder, RunRecord
from mlplatform.registry import ModelStore
from mlplatform.registry.ledger import Ledger
from mlplatform.reports.kept import keep_report

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
COMPLETE, CACHED = 3, 5


class World:
    """What happened in a root; each run is a day after the one before it."""

    def __init__(self, root: Path) -> None:
        from ml_metadata import MetadataStore
        from ml_metadata.proto import metadata_store_pb2 as mlmd

        self.home, self._mlmd, self.days = Home.at(root), mlmd, 0
        self.home.metadata_db.parent.mkdir(parents=True)
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = str(self.home.metadata_db)
        self.store = MetadataStore(config)
        self.ledger = Ledger(self.home.ledger)
        self.models = ModelStore(self.home.models)
        self.types = {
            name: self.store.put_context_type(mlmd.ContextType(name=name))
            for name in ("pipeline", "pipeline_run", "node", "execution_cache")
        }
        self.execution_type = self.store.put_execution_type(mlmd.ExecutionType(name="Train"))
        self.artifact_type = self.store.put_artifact_type(mlmd.ArtifactType(name="Model"))

    def run(
        self,
        pipeline: str = "p",
        *,
        state: str = "done",
        cached: Any = None,
        inputs: tuple[Any, ...] = (),
        push: str = "",
    ) -> Any:
        """Let a run train a model, or take that of another run; returns its artifact in ML Metadata."""
        mlmd, day = self._mlmd, START + timedelta(days=self.days)
        self.days += 1
        run = f"{day:%Y%m%dT%H%M%S.000}-{self.days:04x}"
        execution = mlmd.Execution(
            type_id=self.execution_type, last_known_state=CACHED if cached else COMPLETE
        )
        execution.name = run
        contexts = [
            mlmd.Context(type_id=self.types[kind], name=name)
            for kind, name in (
                ("pipeline", pipeline),
                ("pipeline_run", run),
                ("node", f"{pipeline}.Train"),
                ("execution_cache", f"key of {run if cached is None else cached.name}"),
            )
        ]
        pairs = [(each, mlmd.Event(type=mlmd.Event.INPUT)) for each in inputs]
        made = cached if cached is not None else mlmd.Artifact(type_id=self.artifact_type, name=run, state=2)
        number, _, _ = self.store.put_execution(execution, pairs, contexts, True)
        if cached is None:
            made.uri = str(self.home.pipelines / pipeline / "Train" / "model" / str(number))
            (Path(made.uri) / "Format-Serving").mkdir(parents=True)
            (Path(made.uri) / "Format-Serving" / "saved_model.pb").write_text(f"model of {run}")
        execution.id = number
        _, [artifact], _ = self.store.put_execution(
            execution, [(made, mlmd.Event(type=mlmd.Event.OUTPUT))], contexts, True
        )
        made = self.store.get_artifacts_by_id([artifact])[0]
        self._record(run, pipeline, day, state, made, cached.name if cached is not None else "")
        if push:
            self.models.push(Path(made.uri) / "Format-Serving", push, run=run)
        return made

    def _record(self, run: str, pipeline: str, day: datetime, state: str, made: Any, reused: str) -> None:
        folder = RunFolder(self.home.runs / run)
        folder.create()
        output = {"model": [ArtifactRecord(made.id, "Model", made.uri)]}
        node = NodeRecord("Train", "Train", "cached" if reused else "done", outputs=output, made_in=reused)
        at = day.isoformat(timespec="seconds")
        folder.write(RunRecord(run, pipeline, started_at=at, state=state, nodes=[node]))  # type: ignore[arg-type]
        folder.log("Train").write_text("trained\n" * 10)
        folder.release()
        stream = f"runs/{run}"
        self.ledger.append(stream, "run.started", pipeline=pipeline, at=at)
        self.ledger.append(stream, "run.finished", state=state, reused=[reused] if reused else [])
        keep_report(
            self.home.reports,
            "Gate",
            lambda f: (f / "verdict.json").write_text(json.dumps({"accepted": True})),
            run=run,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "root")


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Home]:
    """Bring a root with a history back to how it was, at the same place; returns it."""
    folder = tmp_path_factory.mktemp("history")
    world = World(folder / "root")
    first = world.run(push="items")  # serves, with a label
    world.models.promote("items", "1")
    second = world.run(push="items")
    world.run(push="items")  # is rolled back
    world.models.rollback("items", why="bad")
    world.run(inputs=(second,), state="failed")
    world.run("other")
    world.run(cached=first)  # the newest of `p`
    world.models.rollback("items", to="1", why="bad, too")
    world.ledger.compact()
    shutil.copytree(folder / "root", folder / "copy")

    def restored() -> Home:
        shutil.rmtree(world.home.machine)
        shutil.copytree(folder / "copy", world.home.machine)
        return world.home

    return restored
