"""After a death: no execution stays running in ML Metadata, and no half-written output stays on disk."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mlplatform.home import Home
from mlplatform.orchestration.local.mlmd.lineage import Database, end_attempt, end_running
from mlplatform.orchestration.local.records import RunRecord, run_folders
from mlplatform.storage.urls import is_local


def repair_dead_runs(home: Home, name: str, database: Database) -> list[str]:
    """Put right what runs whose runner was killed left in a database; return their ids.

    Args:
        home: Where the runs are recorded.
        name: The database's, as in `RunRecord.metadata`.
        database: The database.
    """
    dead = []
    for folder in run_folders(home):
        record = folder.read()
        if record.state == "interrupted" and not folder.is_settled() and record.metadata in ("", name):
            end_executions(database, record, is_failed=False)
            folder.write(record)
            dead.append(record.run_id)
    return dead


def end_executions(database: Database, record: RunRecord, *, is_failed: bool) -> None:
    """Mark what a run left as running, and remove what these executions had begun to write."""
    with database.open() as store:
        ended = end_running(store, record.run_id, is_failed=is_failed)
    if is_local(record.pipeline_root):
        _remove_outputs(Path(record.pipeline_root), [node.id for node in record.nodes], ended)


def clear_attempt(database: Database, record: RunRecord, node: str) -> None:
    """Make a node that failed ready to be tried again: nothing of it runs, and what it wrote is removed."""
    with database.open() as store:
        executions = end_attempt(store, record.run_id, f"{record.pipeline}.{node}")
    if is_local(record.pipeline_root):
        _remove_outputs(Path(record.pipeline_root), [node], executions)


def _remove_outputs(pipeline_root: Path, nodes: Sequence[str], executions: Sequence[int]) -> None:
    """Remove the folders that TFX names by execution: `<node>/<output>/<id>` and temporary ones."""
    for node in nodes:
        for execution in executions:
            for pattern in (f"*/{execution}", f".system/executor_execution/{execution}"):
                for folder in (pipeline_root / node).glob(pattern):
                    shutil.rmtree(folder, ignore_errors=True)
