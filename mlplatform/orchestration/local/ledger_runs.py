"""All runs of a root: those of this machine by their folders, those of others by the root's ledger."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from mlplatform.home import Home
from mlplatform.orchestration.local.records import (
    RUNNER_LOG,
    NodeDetails,
    NodeRecord,
    NoLogError,
    RunFolder,
    RunNotFoundError,
    RunRecord,
    RunState,
    details_from_json,
    node_from_json,
    node_states,
    run_folders,
    run_from_json,
)
from mlplatform.orchestration.local.run_metrics import run_metrics
from mlplatform.registry.event import Event
from mlplatform.registry.events import NODE_FINISHED, NODE_STARTED, RUN_FINISHED, RUN_STARTED, run_stream
from mlplatform.registry.ledger import Ledger
from mlplatform.storage import open_storage
from mlplatform.storage.errors import CorruptStoreError
from mlplatform.storage.urls import is_local, join


@dataclass(frozen=True)
class RunSummary:
    """A run in one line.

    Attributes:
        run_id: Its id.
        pipeline: The pipeline's name.
        started_at: ISO 8601, UTC.
        state: As in `RunRecord`.
        wall_s: Seconds from start to end.
        nodes: How many nodes are in each state.
        failed: Ids of the nodes that failed.
        metrics: Figures of the model that it evaluated.
    """

    run_id: str
    pipeline: str
    started_at: str
    state: str
    wall_s: float
    nodes: dict[str, int]
    failed: list[str]
    metrics: dict[str, float]


class LedgerRun:
    """A run that has no folder on this machine; reads as a `RunFolder` does.

    Args:
        ledger: The root's ledger.
        home: The root.
        run_id: The run's id.
        overview: Its events but those of nodes, where they are known already.
    """

    def __init__(self, ledger: Ledger, home: Home, run_id: str, overview: Sequence[Event] = ()) -> None:
        self._ledger, self._home, self.run_id = ledger, home, run_id
        self._overview = overview

    @property
    def place(self) -> str:
        """Where its events lie."""
        return join(self._ledger.url, run_stream(self.run_id))

    def read(self) -> RunRecord:
        """Return the record."""
        return run_of_events(self.run_id, self._ledger.events(run_stream(self.run_id)))

    def summary(self) -> RunSummary:
        """Return the run in one line, of few requests."""
        events = self._overview or self._ledger.events(run_stream(self.run_id))
        record = run_of_events(self.run_id, events)
        ended = next((e.facts for e in reversed(events) if e.kind == RUN_FINISHED), {})
        nodes, failed, metrics = (ended.get(name) for name in ("nodes", "failed", "metrics"))
        return RunSummary(
            run_id=self.run_id,
            pipeline=record.pipeline,
            started_at=record.started_at,
            state=record.state,
            wall_s=record.wall_s,
            nodes=dict(nodes) if isinstance(nodes, dict) else node_states(record),
            failed=[str(node) for node in failed] if isinstance(failed, list) else [],
            metrics=dict(metrics) if isinstance(metrics, dict) else {},
        )

    def read_details(self, node_id: str) -> NodeDetails | None:
        """Return why a node ran or not; None where that was not published."""
        data = self._published(f"nodes/{node_id}.json")
        try:
            return details_from_json(json.loads(data)) if data is not None else None
        except ValueError:
            return None

    def read_log(self, node_id: str) -> str:
        """Return the log of a node.

        Raises:
            NoLogError: It has none, or none was published.
        """
        data = self._published(f"logs/{node_id}.log")
        if data is None:
            raise NoLogError(node_id, self.run_id)
        return data.decode("utf-8", errors="replace")

    def log_place(self, node_id: str) -> str:
        """Return where the log of a node lies."""
        return join(self._home.root, "runs", self.run_id, "logs", f"{node_id}.log")

    def _published(self, name: str) -> bytes | None:
        try:
            return open_storage(join(self._home.root, "runs", self.run_id)).read(name)
        except (FileNotFoundError, CorruptStoreError):
            return None


KeptRun = RunFolder | LedgerRun


def all_runs(home: Home) -> list[KeptRun]:
    """Return all runs of a root, newest first.

    A run of this machine is read from its folder, which also says whether its runner lives.
    """
    ledger = Ledger(home.ledger)
    runs: dict[str, KeptRun] = {}
    known: dict[str, list[Event]] = {}
    if is_local(home.root):  # what is asked for is read then, and nothing else
        known = {stream: [] for stream in ledger.streams("runs")}
    else:
        known = ledger.overview("runs")
    for stream, events in known.items():
        run_id = stream.partition("/")[2]
        runs[run_id] = LedgerRun(ledger, home, run_id, events)
    for folder in run_folders(home):
        runs[folder.run_id] = folder
    return [runs[run_id] for run_id in sorted(runs, reverse=True)]


def find_run(home: Home, run: str = "latest") -> KeptRun:
    """Return the run named by its id, the beginning of its id, or `latest`.

    Raises:
        RunNotFoundError: No run, or more than one, is meant.
    """
    runs = all_runs(home)
    if run == "latest" and runs:
        return runs[0]
    meant = [each for each in runs if each.run_id.startswith(run)]
    exact = [each for each in meant if each.run_id == run]
    if len(exact or meant) != 1:
        newest = [each.run_id for each in (meant or runs)[:5]]
        raise RunNotFoundError(run, home.root, newest, is_ambiguous=bool(meant))
    return (exact or meant)[0]


def read_runs(home: Home) -> Iterator[RunRecord]:
    """Yield the records of all runs, newest first."""
    for run in all_runs(home):
        yield run.read()


def log_of(run: KeptRun, node: str) -> str:
    """Return the log of a node, or of `RUNNER_LOG`.

    Raises:
        NodeNotFoundError: The run has no such node.
        NoLogError: The node has no log.
    """
    if node != RUNNER_LOG:
        run.read().node(node)
    return run.read_log(node)


def summary_of(run: KeptRun) -> RunSummary:
    """Return a run in one line."""
    if isinstance(run, LedgerRun):
        return run.summary()
    record = run.read()
    return RunSummary(
        run_id=record.run_id,
        pipeline=record.pipeline,
        started_at=record.started_at,
        state=record.state,
        wall_s=record.wall_s,
        nodes=node_states(record),
        failed=[node.id for node in record.failed],
        metrics=run_metrics(record),
    )


def run_of_events(run_id: str, events: Iterable[Event]) -> RunRecord:
    """Return what the events of a run amount to, oldest first; facts of another form are ignored."""
    record, is_started = RunRecord(run_id, "", state="unknown"), False
    for event in events:
        facts = event.facts
        if event.kind == RUN_STARTED:
            record, is_started = _started(run_id, event), True
        elif event.kind == RUN_FINISHED:
            record.state = _state(facts.get("state"))
            record.wall_s = _number(facts.get("seconds"))
            record.pipeline = record.pipeline or str(facts.get("pipeline") or "")
        elif event.kind in (NODE_STARTED, NODE_FINISHED) and isinstance(facts.get("node"), str):
            state = "running" if event.kind == NODE_STARTED else str(facts.get("state") or "done")
            _replace(record, _node({"started_at": event.at, **facts, "state": state}))
        record.started_at = record.started_at or event.at
    if is_started and record.state in ("cancelled", "failed", "interrupted"):
        for node in record.nodes:
            if node.state in ("waiting", "running"):
                node.state, node.why = "cancelled", node.why or "the run ended before"
    return record


def _started(run_id: str, event: Event) -> RunRecord:
    facts = {name: value for name, value in event.facts.items() if name != "nodes"}
    record = run_from_json({**facts, "run_id": run_id, "pipeline": str(facts.get("pipeline") or "")})
    record.state, record.started_at = "running", event.at
    nodes = event.facts.get("nodes")
    for facts_of_node in nodes if isinstance(nodes, list) else ():
        if isinstance(facts_of_node, dict) and isinstance(facts_of_node.get("node"), str):
            record.nodes.append(_node(facts_of_node))
    return record


def _node(facts: Mapping[str, Any]) -> NodeRecord:
    sides = {side: _by_key(facts.get(side)) for side in ("inputs", "outputs")}
    return node_from_json({"type": "", **facts, **sides, "id": facts["node"]})


def _by_key(artifacts: object) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for each in artifacts if isinstance(artifacts, list) else ():
        if isinstance(each, dict):
            facts = {"id": 0, "type": "", "uri": "", **{k: v for k, v in each.items() if k != "key"}}
            found.setdefault(str(each.get("key", "")), []).append(facts)
    return found


def _replace(record: RunRecord, node: NodeRecord) -> None:
    for place, known in enumerate(record.nodes):
        if known.id == node.id:
            node.type, node.upstream = node.type or known.type, node.upstream or known.upstream
            record.nodes[place] = node
            return
    record.nodes.append(node)


def _state(value: object) -> RunState:
    return value if value in get_args(RunState) else "unknown"  # type: ignore[return-value]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
