"""Runs on a cluster as records: what the server says of them, and what the root's ledger knows."""

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from mlplatform.errors import MlplatformError
from mlplatform.home import Home
from mlplatform.orchestration.kubeflow.errors import ClusterRunFailedError
from mlplatform.orchestration.local.ledger_runs import run_of_events
from mlplatform.orchestration.local.records import NodeRecord, NodeState, RunRecord, RunState, node_states
from mlplatform.registry.events import RUN_FINISHED, RUN_STARTED, VERDICT, run_stream
from mlplatform.registry.ledger import Ledger
from mlplatform.storage.urls import join

_RUN_STATES: dict[str, RunState] = {
    "PENDING": "running", "RUNNING": "running", "PAUSED": "running", "CANCELING": "running",
    "SUCCEEDED": "done", "SKIPPED": "done", "FAILED": "failed", "CANCELED": "cancelled",
}  # fmt: skip
_NODE_STATES: dict[str, NodeState] = {
    "PENDING": "waiting", "RUNNING": "running", "CANCELING": "running", "SUCCEEDED": "done",
    "SKIPPED": "skipped", "CACHED": "cached", "OMITTED": "skipped", "FAILED": "failed",
    "CANCELED": "cancelled",
}  # fmt: skip


def write_started(
    home: Home, created: Mapping[str, Any], package: Any, parameters: Mapping[str, Any], reference: str
) -> RunRecord:
    """Write into the root's ledger that a run was submitted, and return its record."""
    record = RunRecord(
        run_id=str(created["run_id"]),
        pipeline=package.pipeline,
        pipeline_root=join(home.root, "pipelines"),
        started_at=str(created.get("created_at") or ""),
        reference=reference,
        arguments={"parameters": dict(parameters)},
        options={"runner": "kubeflow"},
    )
    dags = [package.spec["root"], *(each for each in package.spec["components"].values() if "dag" in each)]
    for name, task in (item for dag in dags for item in dag["dag"]["tasks"].items()):
        if name in package.nodes:
            upstream = [package.nodes.get(other, other) for other in task.get("dependentTasks", [])]
            record.nodes.append(NodeRecord(package.nodes[name], package.types[name], upstream=upstream))
    facts = {
        name: value for name, value in asdict(record).items() if name not in ("run_id", "nodes", "state")
    }
    nodes = [
        {"node": node.id, "type": node.type, "upstream": node.upstream, "state": node.state}
        for node in record.nodes
    ]
    at = {"at": record.started_at} if record.started_at else {}
    try:
        ledger = Ledger(home.ledger)
        if RUN_STARTED not in {event.kind for event in ledger.events(run_stream(record.run_id))}:
            ledger.append(run_stream(record.run_id), RUN_STARTED, **{**facts, **at, "nodes": nodes})
    except (MlplatformError, OSError) as error:  # the run is there, and its first pod writes the same
        logging.getLogger(__name__).warning("run %s is submitted; %s", record.run_id, error)
    return record


def is_refused_by_a_gate(home: Home, run_id: str, nodes: Collection[str]) -> bool:
    """Say whether a gate said no in one of the nodes of a run."""
    return any(
        event.kind == VERDICT and event.get("node") in nodes and event.get("is_accepted") is False
        for event in Ledger(home.ledger).events(run_stream(run_id))
    )


def is_written(home: Home, run_id: str) -> bool:
    """Say whether the root's ledger knows of a run."""
    return bool(Ledger(home.ledger).events(run_stream(run_id)))


def write_finished(home: Home, run: Mapping[str, Any]) -> None:
    """Write into the root's ledger how a run ended, unless that is there.

    Args:
        home: The root.
        run: A run that has ended, as the server's API gives it.
    """
    ledger, run_id = Ledger(home.ledger), str(run["run_id"])
    if RUN_FINISHED in {event.kind for event in ledger.events(run_stream(run_id))}:
        return
    record = record_of(home, run)
    facts: dict[str, Any] = {"state": record.state, "seconds": record.wall_s, "pipeline": record.pipeline}
    facts |= {"nodes": node_states(record), "failed": [node.id for node in record.failed]}
    ledger.append(run_stream(run_id), RUN_FINISHED, **facts)


def record_of(home: Home, run: Mapping[str, Any]) -> RunRecord:
    """Return the record of a run, as the server's API gives it, with what the root's ledger knows of it."""
    run_id = str(run["run_id"])
    record = run_of_events(run_id, Ledger(home.ledger).events(run_stream(run_id)))
    record.state = _RUN_STATES.get(str(run.get("state")), "unknown")
    record.pipeline = record.pipeline or str(run.get("display_name") or "")
    record.started_at = record.started_at or str(run.get("created_at") or "")
    record.wall_s = _seconds(run.get("created_at"), run.get("finished_at")) or record.wall_s
    by_task = {node.id.replace("_", "-"): node for node in record.nodes}
    for task in (run.get("run_details") or {}).get("task_details") or []:
        name = str(task.get("display_name") or "")
        node = by_task.get(name)
        if node is not None:
            _complete(node, task)
    if record.state in ("cancelled", "failed"):
        for node in record.nodes:
            if node.state in ("waiting", "running"):
                node.state, node.why = "cancelled", node.why or "the run ended before"
    return record


def _complete(node: NodeRecord, task: Mapping[str, Any]) -> None:
    """Put on a node what the server knows and its pod could not write."""
    state = _NODE_STATES.get(str(task.get("state")))
    if state is not None and (node.state in ("waiting", "running") or state in ("failed", "cached")):
        node.state = state
    node.error = node.error or first_line(task.get("error"))
    node.seconds = node.seconds or _seconds(task.get("start_time"), task.get("end_time"))


def first_line(error: object) -> str:
    """Return the first line of an error of the server's API; empty for none."""
    text = str(error.get("message") or "") if isinstance(error, Mapping) else ""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def require_success(run: Mapping[str, Any]) -> None:
    """Raise unless a run that has ended did so with success.

    Raises:
        ClusterRunFailedError: It failed or was cancelled.
    """
    state = str(run.get("state"))
    if _RUN_STATES.get(state) == "done":
        return
    tasks = (run.get("run_details") or {}).get("task_details") or []
    failed = [
        (str(task.get("display_name") or "?"), first_line(task.get("error")))
        for task in tasks
        if task.get("state") == "FAILED"
    ]
    failed = failed or ([("run", first_line(run.get("error")))] if run.get("error") else [])
    raise ClusterRunFailedError(str(run["run_id"]), _RUN_STATES.get(state, state), failed)


def _seconds(start: object, end: object) -> float:
    try:
        # Fractions are of one to nine digits, of which Python 3.10 reads three or six.
        first, last = (
            datetime.fromisoformat(re.sub(r"\.[0-9]+", "", str(at)).replace("Z", "+00:00"))
            for at in (start, end)
        )
    except ValueError:
        return 0.0
    return max(0.0, (last - first).total_seconds())
