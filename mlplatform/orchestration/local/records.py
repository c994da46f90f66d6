"""The records of runs: plain JSON below `<root>/runs/<run_id>/`, read without TFX.

run.json              the run and, per node, state, times, reason and artifacts
nodes/<node>.json     the node's cache key part by part, and what it was compared with
logs/<node>.log       everything that the node printed
pipeline.pb           the compiled pipeline (TFX's intermediate representation)
lock                  locked by the runner while it lives, and its process id
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import Any, Literal

from mlplatform.errors import MlplatformError, UsageError
from mlplatform.files import write_json
from mlplatform.home import Home

NodeState = Literal["waiting", "running", "done", "cached", "failed", "skipped", "cancelled"]
RunState = Literal["running", "done", "failed", "cancelled", "interrupted", "unreadable", "unknown"]
RUNNER_LOG = "_runner"  # in place of a node's id: the log of making the pipeline and of starting nodes
FINISHED_WELL: frozenset[str] = frozenset({"done", "cached", "skipped"})


@dataclass(frozen=True)
class ArtifactRecord:
    """An artifact that a node took or gave.

    Attributes:
        id: Its id in ML Metadata.
        type: Name of its artifact type.
        uri: Where it lies.
        digest: Digest of its content and properties; empty where it could not be read.
        properties: Its properties that JSON can hold.
    """

    id: int
    type: str
    uri: str
    digest: str = ""
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass
class NodeRecord:
    """One node of a run.

    Attributes:
        id: The node's id in the pipeline.
        type: Name of the component's class.
        state: Where it stands; `cached`: an earlier result was taken; `skipped`: a condition or a partial run
            left it out; `cancelled`: the run ended before it could finish or start.
        why: Why it ran, or why not, in one line.
        upstream: Ids of the nodes that it waits for.
        started_at: ISO 8601, UTC; empty where it never started.
        seconds: Wall time.
        peak_memory_mb: Peak of its process, with what it shares with the others.
        cpu_s: Processor seconds of its process.
        execution_id: Its execution in ML Metadata, 0 where there is none.
        inputs: Artifacts per input key.
        outputs: Artifacts per output key.
        error: The cause of a failure, in a few lines.
        made_in: The run whose result was taken; empty where none was.
    """

    id: str
    type: str
    state: NodeState = "waiting"
    why: str = ""
    upstream: list[str] = field(default_factory=list)
    started_at: str = ""
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    cpu_s: float = 0.0
    execution_id: int = 0
    inputs: dict[str, list[ArtifactRecord]] = field(default_factory=dict)
    outputs: dict[str, list[ArtifactRecord]] = field(default_factory=dict)
    error: str = ""
    made_in: str = ""


@dataclass
class RunRecord:
    """One run of a pipeline.

    Attributes:
        run_id: Its id, also in ML Metadata.
        pipeline: The pipeline's name.
        pipeline_root: Where the pipeline's artifacts lie.
        metadata: The ML Metadata database, without secrets.
        started_at: ISO 8601, UTC.
        wall_s: Seconds from start to end, loading the pipeline included.
        state: Where it stands; `interrupted`: its runner was killed; `unreadable`: its `run.json` is damaged;
            `unknown`: only its components wrote events, no runner of ours did.
        reference: How the pipeline was named on the command line; empty for a pipeline object.
        arguments: What its function was called with.
        options: What else was asked of the runner: from, to, force, parallelism.
        versions: Python and the libraries that made the stack.
        nodes: In topological order.
    """

    run_id: str
    pipeline: str
    pipeline_root: str = ""
    metadata: str = ""
    started_at: str = ""
    wall_s: float = 0.0
    state: RunState = "running"
    reference: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    nodes: list[NodeRecord] = field(default_factory=list)

    def node(self, node_id: str) -> NodeRecord:
        """Return the node with this id.

        Raises:
            NodeNotFoundError: There is none.
        """
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise NodeNotFoundError(self.run_id, node_id, [node.id for node in self.nodes])

    def _repr_html_(self) -> str:
        """Return the run as notebooks show it: its state, and a row for each node."""
        rows = [(node.id, node.state, f"{node.seconds:.1f} s", node.error or node.why) for node in self.nodes]
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        head = "<tr><th>node</th><th>state</th><th>time</th><th>why</th></tr>"
        title = f"run {self.run_id} of {self.pipeline}: {self.state}, {self.wall_s:.1f} s"
        return f"<p>{escape(title)}</p><table>{head}{body}</table>"

    @property
    def failed(self) -> list[NodeRecord]:
        """The nodes that failed."""
        return [node for node in self.nodes if node.state == "failed"]


@dataclass
class NodeDetails:
    """Why a node ran or not: its cache key part by part.

    Attributes:
        node: The node's id.
        decision: `hit`, or why there was none: `first`, `changed`, `gone`, `forced`, `off`, `uncertain`.
        why: The same in one line.
        key: The cache key; empty for a node of TFX's own.
        compared_with: The run whose key of this node was compared; empty for none.
        changes: The parts that differ from it, each with `part`, `before` and `now`.
        parts: All parts of the key.
        files: Digest per source file that the key depends on.
        paths: Digest per file or folder of data, outside the pipeline's artifacts, that it depends on.
        folders: Digest of the names in each folder that something was pushed to.
        doubts: What changed while the node ran: its result is not for later runs.
    """

    node: str
    decision: str = ""
    why: str = ""
    key: str = ""
    compared_with: str = ""
    changes: list[dict[str, str]] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


class NodeNotFoundError(UsageError):
    """A run has no such node."""

    def __init__(self, run_id: str, node: str, known: list[str]) -> None:
        super().__init__(run_id, node, known)
        self.run_id, self.node, self.known = run_id, node, known

    def __str__(self) -> str:
        return f"run {self.run_id} has no node {self.node!r}; it has {', '.join(self.known) or 'none yet'}"


class NoLogError(MlplatformError):
    """A node has no log: it started no process."""

    def __init__(self, node: str, run_id: str) -> None:
        super().__init__(node, run_id)
        self.node, self.run_id = node, run_id

    def __str__(self) -> str:
        return f"{self.node} started no process in run {self.run_id}: it has no log"


class RunNotFoundError(UsageError):
    """There is no such run, or more than one begins so."""

    def __init__(self, run: str, runs: str, newest: list[str], is_ambiguous: bool = False) -> None:
        super().__init__(run, runs, newest, is_ambiguous)
        self.run, self.runs, self.newest, self.is_ambiguous = run, runs, newest, is_ambiguous

    def __str__(self) -> str:
        if self.is_ambiguous:
            return f"more than one run under {self.runs} begins with {self.run!r}: {', '.join(self.newest)}"
        if not self.newest:
            return f"no run is recorded under {self.runs}: run a pipeline first, or name its root folder"
        return f"no run {self.run!r} under {self.runs}; the newest are {', '.join(self.newest)}"


class RunFolder:
    """The folder of one run's records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.path.name

    @property
    def place(self) -> str:
        """Where the records lie."""
        return str(self.path)

    @property
    def ir(self) -> Path:
        """The compiled pipeline."""
        return self.path / "pipeline.pb"

    def log(self, node_id: str) -> Path:
        """The log of a node, or of `RUNNER_LOG`."""
        return self.path / "logs" / f"{node_id}.log"

    def log_place(self, node_id: str) -> str:
        """Return where the log of a node lies."""
        return str(self.log(node_id))

    def read_log(self, node_id: str) -> str:
        """Return the log of a node, or of `RUNNER_LOG`.

        Raises:
            NoLogError: It started no process.
        """
        try:
            return self.log(node_id).read_text("utf-8", errors="replace")
        except FileNotFoundError:
            raise NoLogError(node_id, self.run_id) from None

    def details(self, node_id: str) -> Path:
        """The node's own record."""
        return self.path / "nodes" / f"{node_id}.json"

    def read_details(self, node_id: str) -> NodeDetails | None:
        """Return why a node ran or not; None where it never came to that, or a power cut took the file."""
        try:
            return details_from_json(json.loads(self.details(node_id).read_text("utf-8")))
        except (FileNotFoundError, ValueError):
            return None

    def write_details(self, details: NodeDetails) -> None:
        """Write `nodes/<node>.json` in one step."""
        write_json(self.details(details.node), asdict(details))

    def create(self) -> None:
        """Make the folder and hold its lock until this process ends or `release` is called."""
        (self.path / "logs").mkdir(parents=True)
        (self.path / "nodes").mkdir()
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, str(os.getpid()).encode())  # for `runner_process`

    def runner_process(self) -> int | None:
        """Return the process that runs this run; None where it has ended."""
        if not self.is_live():
            return None
        text = (self.path / "lock").read_text("utf-8")
        return int(text) if text.isdigit() else None

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_live(self) -> bool:
        """Say whether a runner holds the lock."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared, which a file that may only be read allows, too: the reader may be another account.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def is_settled(self) -> bool:
        """Say whether `run.json` itself says how the run ended."""
        return self._read().state != "running"

    def write(self, record: RunRecord) -> None:
        """Write `run.json` in one step, which a power cut does not undo."""
        write_json(self.path / "run.json", asdict(record), is_synced=True)

    def _read(self) -> RunRecord:
        try:
            return run_from_json(json.loads((self.path / "run.json").read_text("utf-8")))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return RunRecord(self.path.name, "", state="unreadable")

    def read(self) -> RunRecord:
        """Return the record; one whose runner is gone without a word is `interrupted`."""
        record = self._read()
        if record.state == "running" and not self.is_live():
            record.state = "interrupted"
            for node in record.nodes:
                if node.state in ("running", "waiting"):
                    node.state = "cancelled"
                    node.why = node.why or "the runner was killed"
        return record


def run_folders(home: Home) -> Iterator[RunFolder]:
    """Yield the folders of all runs, newest first."""
    if home.runs.is_dir():
        for path in sorted(home.runs.iterdir(), reverse=True):
            if (path / "run.json").is_file():
                yield RunFolder(path)


def node_states(record: RunRecord) -> dict[str, int]:
    """Return how many nodes of a run are in each state."""
    states: dict[str, int] = {}
    for node in record.nodes:
        states[node.state] = states.get(node.state, 0) + 1
    return states


def run_from_json(document: Mapping[str, Any]) -> RunRecord:
    """Return the record in a `run.json`; keys that this version does not know are left out."""
    record = RunRecord(**_known(RunRecord, document))
    record.nodes = [node_from_json(node) for node in document.get("nodes", ())]
    return record


def node_from_json(document: Mapping[str, Any]) -> NodeRecord:
    """Return one node of a `run.json`."""
    node = NodeRecord(**_known(NodeRecord, document))
    node.inputs = artifacts_from_json(document.get("inputs", {}))
    node.outputs = artifacts_from_json(document.get("outputs", {}))
    return node


def details_from_json(document: Mapping[str, Any]) -> NodeDetails:
    """Return the details in a `nodes/<node>.json`."""
    return NodeDetails(**_known(NodeDetails, document))


def artifacts_from_json(document: Mapping[str, Any]) -> dict[str, list[ArtifactRecord]]:
    """Return the artifacts of one side of a node."""
    return {
        key: [ArtifactRecord(**_known(ArtifactRecord, artifact)) for artifact in artifacts]
        for key, artifacts in document.items()
    }


def now() -> str:
    """Return the time as the records hold it: ISO 8601, UTC, seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _known(kind: type, document: Mapping[str, Any]) -> dict[str, Any]:
    names = {entry.name for entry in fields(kind)}
    return {key: value for key, value in document.items() if key in names}
