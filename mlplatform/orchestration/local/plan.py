"""A compiled pipeline as the runner schedules it; holds no TFX object, so the runner needs no TFX."""

from dataclasses import dataclass, field

from mlplatform.orchestration.local.cache.sources import Sources
from mlplatform.orchestration.local.records import ArtifactRecord, NodeState
from mlplatform.roles import Role


@dataclass(frozen=True)
class LocalOptions:
    """What of a node's options holds on this machine, too.

    Attributes:
        env: Environment variables of its process.
        memory_mb: The memory that it is to get by with, in units of 2^20 bytes; None for any.
        timeout_s: Seconds after which an attempt is ended; None: never.
        retries: Further attempts after a failure.
        retry_wait_s: Seconds before the first of them.
        retry_factor: What the wait is multiplied with before each further one.
        retry_max_wait_s: The longest wait in seconds.
        cache: Whether an earlier result may be reused; None: as the pipeline says.
    """

    env: dict[str, str] = field(default_factory=dict)
    memory_mb: float | None = None
    timeout_s: int | None = None
    retries: int = 0
    retry_wait_s: float = 0.0
    retry_factor: float = 2.0
    retry_max_wait_s: float = 3600.0
    cache: bool | None = None

    def wait_after(self, attempts: int) -> float:
        """Return the seconds between an attempt, 1 for the first, and the next one."""
        return float(min(self.retry_wait_s * self.retry_factor ** (attempts - 1), self.retry_max_wait_s))


@dataclass(frozen=True)
class NodePlan:
    """One node.

    Attributes:
        id: Its id in the pipeline.
        type: Name of the component's class.
        upstream: Nodes that must be finished before it starts.
        executor: Import path of its executor's class; empty for a node of TFX's own.
        is_left_out: A partial run leaves it out.
        is_cached: Earlier results may be taken.
        is_forced: The caller wants it to run.
        looks_back: It looks for artifacts of earlier runs.
        is_resolver: It does nothing but look for artifacts.
        roles: The declared roles of its parameters.
        options: Its options.
    """

    id: str
    type: str
    upstream: tuple[str, ...]
    executor: str
    is_left_out: bool
    is_cached: bool
    is_forced: bool
    looks_back: bool
    is_resolver: bool = False
    roles: dict[str, Role] = field(default_factory=dict)
    options: LocalOptions = field(default_factory=LocalOptions)


@dataclass(frozen=True)
class Plan:
    """The pipeline.

    Attributes:
        pipeline: Its name.
        pipeline_root: Where its artifacts lie.
        connection: Its ML Metadata, a serialized message of `connection_kind`.
        connection_kind: `ConnectionConfig` or `MetadataStoreClientConfig`.
        database: The same for a reader, without secrets.
        sqlite: The SQLite file, empty for other databases.
        nodes: In topological order.
        needs_snapshot: It is a partial run that takes over results of an earlier run.
        main_path: The script that the caller runs, where it defines components itself; else empty.
        sources: What making it read.
        is_reproducible: Made twice, it was the same: no clock and no chance is in it.
        digest: Of the compiled pipeline, the values of its runtime parameters and its options, without the
            run's id.
    """

    pipeline: str
    pipeline_root: str
    connection: bytes
    connection_kind: str
    database: str
    sqlite: str
    nodes: tuple[NodePlan, ...]
    needs_snapshot: bool
    main_path: str
    sources: Sources
    is_reproducible: bool
    digest: str

    @property
    def looks_back(self) -> bool:
        """A node looks for artifacts of earlier runs."""
        return any(node.looks_back for node in self.nodes)

    @property
    def lock(self) -> str:
        """The file that is locked while one process uses a SQLite database; empty for a server."""
        return f"{self.sqlite}.lock" if self.sqlite else ""


@dataclass
class NodeOutcome:
    """How a node ended, as the runner receives it.

    Attributes:
        state: `done`, `cached` or `skipped`.
        why: The reason in one line.
        execution_id: Its execution in ML Metadata.
        inputs: Artifacts per input key.
        outputs: Artifacts per output key.
        made_in: The run whose result was taken; empty where none was.
    """

    state: NodeState
    why: str
    execution_id: int = 0
    inputs: dict[str, list[ArtifactRecord]] = field(default_factory=dict)
    outputs: dict[str, list[ArtifactRecord]] = field(default_factory=dict)
    made_in: str = ""
