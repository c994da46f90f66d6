"""ML Metadata without TFX: repeat the executions of an unchanged run, end those of a dead one."""

import fcntl
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.orchestration.local.errors import DatabaseUnusableError

PIPELINE_CONTEXT, RUN_CONTEXT = "pipeline", "pipeline_run"


@dataclass(frozen=True)
class Database:
    """ML Metadata, as `Plan` names it.

    Attributes:
        connection: A serialized message.
        kind: Its type: `ConnectionConfig` or `MetadataStoreClientConfig`.
        lock: File that is locked while it is used; empty for none.
    """

    connection: bytes
    kind: str
    lock: str

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Yield the `ml_metadata.MetadataStore`, for this process alone where it is a SQLite file."""
        from ml_metadata.proto import metadata_store_pb2

        config = getattr(metadata_store_pb2, self.kind).FromString(self.connection)
        if self.lock:
            Path(self.lock).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644) if self.lock else -1
        try:
            if descriptor >= 0:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _opened(config)
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _opened(config: Any) -> Any:
    """Return the store.

    Raises:
        DatabaseUnusableError: It cannot be opened.
    """
    import ml_metadata

    try:
        return ml_metadata.MetadataStore(config)
    except (ml_metadata.errors.StatusError, RuntimeError) as error:
        place = config.sqlite.filename_uri if hasattr(config, "sqlite") else f"{config.host}:{config.port}"
        problem = " ".join(str(error).split()).rstrip(".")
        raise DatabaseUnusableError(place or "the database", problem) from error


def newest_of(store: Any, pipeline: str, *, is_alone: bool) -> list[str]:
    """Return id and name of a pipeline's newest execution, which another run or another database changes.

    Args:
        store: ML Metadata.
        pipeline: The pipeline's name.
        is_alone: Count all that is in the database, by the highest ids, not only what is of this pipeline.
    """
    import ml_metadata

    newest = ml_metadata.ListOptions(limit=1, order_by=ml_metadata.OrderByField.ID, is_asc=False)
    context = store.get_context_by_type_and_name(PIPELINE_CONTEXT, pipeline)
    found = store.get_executions_by_context(context.id, newest) if context is not None else []
    if is_alone:
        found = [*found, *store.get_executions(newest), *store.get_artifacts(newest)]
    return [f"{one.id} {one.name}" for one in found]


def repeat_executions(store: Any, run_id: str, executions: Sequence[int]) -> dict[int, int]:
    """Give a new run cached executions with the inputs, outputs and contexts of earlier ones.

    Returns:
        The new id of each execution.
    """
    from ml_metadata.proto import metadata_store_pb2

    repeated = {}
    for execution in store.get_executions_by_id(list(executions)):
        contexts = []
        for context in store.get_contexts_by_execution(execution.id):
            if context.type == RUN_CONTEXT:
                fresh = metadata_store_pb2.Context(type_id=context.type_id, name=run_id)
                for name, value in context.properties.items():
                    fresh.properties[name].CopyFrom(value)
                context = fresh
            contexts.append(context)
        copy = metadata_store_pb2.Execution(
            type_id=execution.type_id,
            name=str(uuid.uuid4()),
            last_known_state=metadata_store_pb2.Execution.CACHED,
        )
        for name, value in execution.properties.items():
            copy.properties[name].CopyFrom(value)
        for name, value in execution.custom_properties.items():
            copy.custom_properties[name].CopyFrom(value)
        events = store.get_events_by_execution_ids([execution.id])
        artifacts = {a.id: a for a in store.get_artifacts_by_id(list({e.artifact_id for e in events}))}
        pairs = []
        for event in events:
            again = metadata_store_pb2.Event(artifact_id=event.artifact_id, type=event.type, path=event.path)
            pairs.append((artifacts[event.artifact_id], again))
        repeated[execution.id], _, _ = store.put_execution(
            copy, pairs, contexts, reuse_context_if_already_exist=True, force_reuse_context=False
        )
    return repeated


def end_attempt(store: Any, run_id: str, node: str) -> list[int]:
    """Mark what a failed attempt of a node left as running; return the ids of all its executions in the run.

    Args:
        store: ML Metadata.
        run_id: The run.
        node: The node, as ML Metadata names it: `PIPELINE.NODE`.
    """
    from ml_metadata.proto import metadata_store_pb2

    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    states = metadata_store_pb2.Execution
    own = [
        execution
        for execution in (store.get_executions_by_context(context.id) if context is not None else ())
        if any(each.name == node for each in store.get_contexts_by_execution(execution.id))
    ]
    left = [e for e in own if e.last_known_state in (states.NEW, states.RUNNING)]
    for execution in left:
        execution.last_known_state = states.FAILED
    if left:
        store.put_executions(left)
    return [execution.id for execution in own]


def end_running(store: Any, run_id: str, *, is_failed: bool) -> list[int]:
    """Mark what a dead run left as running; return the ids of these executions.

    Args:
        store: ML Metadata.
        run_id: The run that is no more.
        is_failed: Mark them failed; else canceled.
    """
    from ml_metadata.proto import metadata_store_pb2

    context = store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
    if context is None:
        return []
    states = metadata_store_pb2.Execution
    left = [
        e
        for e in store.get_executions_by_context(context.id)
        if e.last_known_state in (states.NEW, states.RUNNING)
    ]
    for execution in left:
        execution.last_known_state = states.FAILED if is_failed else states.CANCELED
    if left:
        store.put_executions(left)
    return [execution.id for execution in left]
