"""One run while it runs: schedules the nodes, keeps the records, updates the display, ends cleanly."""

import contextlib
import importlib.metadata
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from mlplatform.home import Home
from mlplatform.orchestration.local.cache.unchanged import Memory, database_of
from mlplatform.orchestration.local.display import Display
from mlplatform.orchestration.local.errors import NodeFailedError, PipelineNotLoadedError
from mlplatform.orchestration.local.mlmd.lineage import Database, newest_of, repeat_executions
from mlplatform.orchestration.local.mlmd.repair import clear_attempt, end_executions, repair_dead_runs
from mlplatform.orchestration.local.plan import NodeOutcome, NodePlan, Plan
from mlplatform.orchestration.local.processes.failures import Failure
from mlplatform.orchestration.local.processes.fork_server import (
    Exited,
    Preloaded,
    Started,
    can_fork_this_process,
)
from mlplatform.orchestration.local.processes.node_process import STOP_GRACE_S, JobMessage, Processes
from mlplatform.orchestration.local.records import (
    FINISHED_WELL,
    RUNNER_LOG,
    NodeRecord,
    NodeState,
    RunFolder,
    RunRecord,
    RunState,
    now,
    run_folders,
)
from mlplatform.orchestration.local.run_events import RunEvents

TICK_S = 0.25
RUNS_TO_COMPARE = 50
COMPILING = "mlplatform.orchestration.local.compiling"
NODE = "mlplatform.orchestration.local.node"
CHECK_ARGUMENTS = "mlplatform.orchestration.local.early_check:check_arguments"


class ActiveRun:
    """A run with its records and processes; a context manager that ends all of them.

    While it is entered, SIGTERM and SIGHUP end the run as Ctrl-C does.
    """

    def __init__(self, home: Home, name: str, parallelism: int, display: Display) -> None:
        self._home, self._parallelism, self._display = home, parallelism, display
        self._began = time.monotonic()
        self.folder = RunFolder(home.runs / new_run_id())
        self.folder.create()
        self._events = RunEvents(home, self.folder)
        self.record = RunRecord(self.folder.path.name, name, started_at=now(), versions=versions())
        self.record.options["parallelism"] = parallelism
        self._write()
        self._processes: Processes | None = None
        self._is_shared = False
        self._plan: Plan | None = None
        self._previous: dict[str, str] = {}
        self._jobs: dict[int, NodePlan] = {}
        self._job_began: dict[int, float] = {}
        self._outcomes: dict[int, NodeOutcome] = {}
        self._reported: dict[int, Failure] = {}
        self._overdue: dict[int, float] = {}  # jobs that took too long, and when they were asked to end
        self._attempts: dict[str, int] = {}
        self._wait_until: dict[str, float] = {}  # nodes that are tried again, and when
        self._failures: dict[str, Failure] = {}
        self._handlers: dict[int, Any] = {}
        self._dead: list[str] = []  # runs that were killed, until the ledger knows it

    def __enter__(self) -> "ActiveRun":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                    self._handlers[number] = signal.signal(number, _exit)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end_processes()
            if self.record.state == "running":
                self._end("cancelled" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed")
            self._settle()
        finally:
            try:
                self._close_events()
            finally:  # whoever presses Ctrl-C again does not wait for the ledger
                self.folder.release()
                for number, handler in self._handlers.items():
                    signal.signal(number, handler)

    def _start_events(self) -> None:
        """Begin to write into the ledger; from then on, this process has a thread more and is not forked."""
        self._events.run_started(self.record)
        for run in self._dead:
            self._events.run_interrupted(run)
        self._events.finish_earlier_runs()

    def _close_events(self) -> None:
        if problem := self._events.close():
            with contextlib.suppress(OSError):
                self._display.print_line(f"not all of this run could be written into the ledger: {problem}")

    def _end_processes(self) -> None:
        if self._processes is None:
            return
        try:
            if self._is_shared:
                self._processes.end_jobs()
            else:
                self._processes.stop()
        except (KeyboardInterrupt, SystemExit):  # the second Ctrl-C: no more patience
            self._processes.stop()

    @property
    def identity(self) -> dict[str, Any]:
        """What compiling needs to know of this run."""
        return {"run_id": self.record.run_id, "ir_path": str(self.folder.ir)}

    def repeat(self, memory: Memory) -> RunRecord | None:
        """Repeat the last run in a moment where nothing changed since; None where something did."""
        remembered = memory.recall()
        if remembered is None:
            return None
        earlier = RunFolder(self._home.runs / remembered.run)
        old = earlier.read()
        if old.state != "done":
            return None
        database = database_of(remembered)
        self._dead += repair_dead_runs(self._home, old.metadata, database)
        with database.open() as store:
            if newest_of(store, old.pipeline, is_alone=remembered.looks_back) != remembered.newest:
                return None
            executions = [node.execution_id for node in old.nodes if node.execution_id]
            repeated = repeat_executions(store, self.record.run_id, executions)
            newest = newest_of(store, old.pipeline, is_alone=remembered.looks_back)
        self.record.pipeline, self.record.pipeline_root = old.pipeline, old.pipeline_root
        self.record.metadata = old.metadata
        why = f"nothing changed since run {old.run_id}"
        for node in old.nodes:
            if node.state == "skipped":
                self.record.nodes.append(NodeRecord(node.id, node.type, "skipped", node.why, node.upstream))
                continue
            again = NodeRecord(node.id, node.type, "cached", why, node.upstream, now())
            again.inputs, again.outputs = node.inputs, node.outputs
            again.made_in = node.made_in or old.run_id
            again.execution_id = repeated.get(node.execution_id, 0)
            self.record.nodes.append(again)
            details = earlier.read_details(node.id)
            if details is not None:
                details.decision, details.why, details.changes = "hit", why, []
                details.compared_with = old.run_id
                self.folder.write_details(details)
        self._start_events()
        for node in self.record.nodes:
            self._events.node_finished(node)
        self._display.started(self.record)
        self._end("done")
        memory.repeated(remembered, self.record.run_id, newest)  # whatever comes before leaves it as it was
        return self.record

    def remember(self, memory: Memory) -> None:
        """Write down what this finished run depended on."""
        if self._plan is not None:
            memory.remember(self.folder, self.record, self._plan, self._database(self._plan))

    def share(self, processes: Processes) -> None:
        """Run the nodes in processes that outlive this run."""
        self._processes, self._is_shared = processes, True

    def preload_modules(self) -> None:
        """Import what every node needs, beside what the caller does meanwhile."""
        self._processes = warm_processes(self.folder.log(RUNNER_LOG))

    def preload_reference(self, reference: str, **arguments: Any) -> None:
        """Import the pipeline's module, and with it what its nodes need; check its arguments meanwhile.

        A module that starts threads when it is imported is left to each process, since a process with threads
        cannot be forked.

        Raises:
            Exception: What is wrong with the arguments, or with the module.
        """
        self._display.print_line(f"loading {reference}")
        log = self.folder.log(RUNNER_LOG)
        self._processes = Processes(log)
        checking = self._processes.start(CHECK_ARGUMENTS, log, reference=reference, **arguments)
        self._processes.preload(f"{COMPILING}:load", reference=reference)
        threads = self._preloaded(checking)
        if threads:
            self._display.print_line(
                f"importing {reference} starts threads ({', '.join(threads)}): nodes start slower"
            )
            self._processes.stop()
            self.preload_modules()

    def call(self, target: str, **arguments: Any) -> Any:
        """Call `module:function` in a process of its own and return what it returns.

        Raises:
            Exception: What it raised, where it is ours.
            PipelineNotLoadedError: It raised something else, or was killed.
        """
        log, processes = self.folder.log(RUNNER_LOG), self._running_processes()
        job = processes.start(target, log, **arguments)
        result: list[Any] = []
        while True:
            for event in processes.events(TICK_S):
                if isinstance(event, JobMessage) and event.job == job and event.kind == "result":
                    result.append(event.content)
                elif isinstance(event, JobMessage) and event.job == job and event.kind == "failure":
                    raise self._load_error(event.content)
                elif isinstance(event, Preloaded):
                    self._check_preloaded(event)
                elif isinstance(event, Exited) and event.job == job:
                    if result:
                        return result[0]
                    raise PipelineNotLoadedError(self.record.pipeline, killed(event), str(log))

    def execute(self, make_plan: Callable[[], Plan]) -> RunRecord:
        """Make the plan and run its nodes; return the finished record.

        Raises:
            Exception: What the first failed node raised.
        """
        plan = make_plan()
        self._take(plan)
        self._dead += repair_dead_runs(self._home, plan.database, self._database(plan))
        self._start_events()
        self._display.started(self.record)
        if plan.main_path:
            self._running_processes().preload(
                f"{COMPILING}:adopt_main", path=plan.main_path, arguments=sys.argv
            )
        if plan.needs_snapshot:
            self.call(
                f"{COMPILING}:snapshot",
                ir_path=str(self.folder.ir),
                connection=plan.connection,
                connection_kind=plan.connection_kind,
                lock=self._database(plan).lock,
            )
        self._schedule(plan)
        self._end("failed" if self._failures else "done")
        if self._failures:
            self._raise_failures()
        return self.record

    def _raise_failures(self) -> NoReturn:
        """Raise what the first failed node raised; the error names the others."""
        (node, *others), (failure, *_) = self._failures, self._failures.values()
        others_failed = [(n, cause_of(self._failures[n]), str(self.folder.log(n))) for n in others]
        cause, log = cause_of(failure), str(self.folder.log(node))
        failed = NodeFailedError(node, cause, log, self.record.run_id, failure.exit_code, others_failed)
        error = failure.exception()
        if error is None:
            raise failed
        raise error from failed

    def _running_processes(self) -> Processes:
        assert self._processes is not None, "preload first"
        return self._processes

    def _preloaded(self, checking: int) -> tuple[str, ...]:
        while True:
            for event in self._running_processes().events(TICK_S):
                if isinstance(event, JobMessage) and event.job == checking and event.kind == "failure":
                    if event.content.is_ours:  # all else is reported when the pipeline is made
                        raise self._load_error(event.content)
                elif isinstance(event, Preloaded):
                    if event.failure is not None:
                        raise self._load_error(event.failure)
                    return event.unsafe_threads

    def _check_preloaded(self, preloaded: Preloaded) -> None:
        if preloaded.failure is not None:
            raise self._load_error(preloaded.failure)
        if preloaded.unsafe_threads:
            self._display.print_line(
                f"importing what the nodes need starts threads ({', '.join(preloaded.unsafe_threads)}), with "
                "which nodes may hang: start them in the components, or under `if __name__ == '__main__':`"
            )

    def _load_error(self, failure: Failure) -> BaseException:
        error = failure.exception() if failure.is_ours else None
        pipeline = self.record.reference or self.record.pipeline
        return error or PipelineNotLoadedError(pipeline, cause_of(failure), str(self.folder.log(RUNNER_LOG)))

    def _take(self, plan: Plan) -> None:
        self._plan = plan
        self.record.pipeline, self.record.pipeline_root = plan.pipeline, plan.pipeline_root
        self.record.metadata = plan.database
        for node in plan.nodes:
            record = NodeRecord(node.id, node.type, upstream=list(node.upstream))
            if node.is_left_out:
                record.state, record.why = "skipped", "left out of this partial run"
            self.record.nodes.append(record)
        self._previous = self._earlier_records(plan)
        self._write()

    def _earlier_records(self, plan: Plan) -> dict[str, str]:
        """Return, per node, the folder of the newest run that has a record of it."""
        found: dict[str, str] = {}
        for count, folder in enumerate(run_folders(self._home)):
            missing = [node.id for node in plan.nodes if node.executor and node.id not in found]
            if not missing or count > RUNS_TO_COMPARE:
                break
            if folder.path != self.folder.path and folder.read().pipeline == plan.pipeline:
                found |= {node: str(folder.path) for node in missing if folder.details(node).exists()}
        return found

    def _schedule(self, plan: Plan) -> None:
        processes = self._running_processes()
        while True:
            if not self._failures and not self._reported:
                for node in self._ready(plan)[: self._parallelism - len(self._jobs)]:
                    self._start(plan, node)
            if not self._jobs and (self._failures or not self._wait_until):
                return
            for event in processes.events(TICK_S):
                self._handle(event)
            self._end_overdue(processes)
            self._display.tick()

    def _ready(self, plan: Plan) -> list[NodePlan]:
        states = {node.id: node.state for node in self.record.nodes}
        return [
            node
            for node in plan.nodes
            if states[node.id] == "waiting"
            and self._wait_until.get(node.id, 0.0) <= time.monotonic()
            and all(states.get(upstream, "done") in FINISHED_WELL for upstream in node.upstream)
        ]

    def _start(self, plan: Plan, node: NodePlan) -> None:
        job = self._running_processes().start(
            f"{NODE}:run_node",
            self.folder.log(node.id),
            environment=node.options.env,
            run=str(self.folder.path),
            node=node,
            connection=plan.connection,
            connection_kind=plan.connection_kind,
            lock=self._database(plan).lock,
            memory=str(self._home.cache / "nodes"),
            previous=self._previous.get(node.id, ""),
            reference=self.record.reference,
        )
        self._jobs[job], self._job_began[job] = node, time.monotonic()
        self._attempts[node.id] = self._attempts.get(node.id, 0) + 1
        self._wait_until.pop(node.id, None)
        record = self.record.node(node.id)
        record.started_at = now()
        self._change(record, "running")

    def _handle(self, event: object) -> None:
        if isinstance(event, Preloaded):
            self._check_preloaded(event)
        elif isinstance(event, Started) and event.job in self._jobs:
            self._job_began[event.job] = time.monotonic()
        elif isinstance(event, JobMessage) and event.job in self._jobs:
            record = self.record.node(self._jobs[event.job].id)
            if event.kind == "progress":
                self._display.progressed(record, event.content)
            elif event.kind == "line":
                self._display.print_line(f"  {record.id}: {event.content}")
            elif event.kind == "result":
                self._outcomes[event.job] = event.content
            elif event.kind == "failure":
                self._reported[event.job] = event.content
        elif isinstance(event, Exited) and event.job in self._jobs:
            self._node_ended(event)

    def _node_ended(self, exited: Exited) -> None:
        node = self._jobs.pop(exited.job)
        record = self.record.node(node.id)
        record.seconds = round(time.monotonic() - self._job_began.pop(exited.job), 3)
        record.peak_memory_mb = round(exited.peak_memory_kb / 1024, 1)
        record.cpu_s = round(exited.cpu_s, 3)
        outcome, reported = self._outcomes.pop(exited.job, None), self._reported.pop(exited.job, None)
        is_overdue = self._overdue.pop(exited.job, None) is not None
        self._compare_memory(node, record)
        attempt = f"attempt {self._attempts[node.id]} of {node.options.retries + 1}"
        if outcome is not None and exited.status == 0:
            record.why, record.execution_id = outcome.why, outcome.execution_id
            if self._attempts[node.id] > 1:
                record.why = f"{outcome.why} ({attempt})"
            record.inputs, record.outputs = outcome.inputs, outcome.outputs
            record.made_in = outcome.made_in
            self._change(record, outcome.state)
            return
        overdue = f"it took longer than {node.options.timeout_s} s, its timeout_s, and was ended"
        failure = reported or Failure.of_death(overdue if is_overdue else killed(exited))
        record.error = cause_of(failure)
        record.why = record.error.splitlines()[0]
        # What a gate refuses, and wrong usage, are the same the next time.
        if failure.exit_code == 1 and self._attempts[node.id] <= node.options.retries:
            self._try_again(node, record, f"{attempt} failed: {record.why}")
            return
        self._failures[record.id] = failure
        self._change(record, "failed")

    def _try_again(self, node: NodePlan, record: NodeRecord, why: str) -> None:
        assert self._plan is not None
        clear_attempt(self._database(self._plan), self.record, node.id)
        wait_s = node.options.wait_after(self._attempts[node.id])
        self._wait_until[node.id] = time.monotonic() + wait_s
        record.state, record.why, record.error = "waiting", why, ""
        self._write()
        self._display.print_line(f"  {node.id}: {why}; the next in {wait_s:g} s")

    def _end_overdue(self, processes: Processes) -> None:
        """End the jobs that took longer than they may: politely first, then for certain."""
        moment = time.monotonic()
        for job, node in self._jobs.items():
            if job in self._overdue:
                if moment - self._overdue[job] > STOP_GRACE_S:
                    processes.signal(signal.SIGKILL, job)
            elif (
                node.options.timeout_s is not None and moment - self._job_began[job] > node.options.timeout_s
            ):
                self._overdue[job] = moment
                processes.signal(signal.SIGTERM, job)

    def _compare_memory(self, node: NodePlan, record: NodeRecord) -> None:
        limit_mb = node.options.memory_mb
        if limit_mb is not None and record.peak_memory_mb > limit_mb:
            self._display.print_line(
                f"  {node.id}: it used {record.peak_memory_mb:,.0f} MB of memory; on a cluster it may use "
                f"{limit_mb:,.0f} MB, its option memory, and would be ended"
            )

    def _change(self, record: NodeRecord, state: NodeState) -> None:
        record.state = state
        self._write()
        if state == "running":
            self._events.node_started(record)
        else:
            self._events.node_finished(record)
        self._display.changed(record)

    def _end(self, state: RunState) -> None:
        for node in self.record.nodes:
            if node.state in ("waiting", "running"):
                node.why = "the run was stopped" if state == "cancelled" else "the run ended before"
                node.state = "cancelled"
                if node.started_at:
                    self._events.node_finished(node)
        self.record.state = state
        self._write()
        if not self._events.is_started:  # the pipeline could not be made
            self._start_events()
        self._events.run_finished(self.record)
        with contextlib.suppress(OSError):  # the terminal is gone, or who read the lines
            self._display.ended(self.record)

    def _settle(self) -> None:
        """See that nothing of this run stays running in ML Metadata, whoever was killed."""
        states = {node.state for node in self.record.nodes if node.started_at}
        if self._plan is not None and states & {"failed", "cancelled"}:
            try:
                end_executions(self._database(self._plan), self.record, is_failed="failed" in states)
            except Exception as error:  # noqa: BLE001 - must not hide why the run ended
                with contextlib.suppress(OSError):
                    self._display.print_line(f"ML Metadata was not updated with the end of the run: {error}")

    def _database(self, plan: Plan) -> Database:
        """Return ML Metadata; nodes take turns, also at a server, where they could meet in a deadlock."""
        lock = plan.lock or str(self._home.cache / "nodes" / "metadata.lock")
        Path(lock).parent.mkdir(parents=True, exist_ok=True)
        return Database(plan.connection, plan.connection_kind, lock)

    def _write(self) -> None:
        self.record.wall_s = round(time.monotonic() - self._began, 3)
        self.folder.write(self.record)


def warm_processes(log: Path, *, may_fork: bool = False) -> Processes:
    """Start a fork server that has imported what every node needs.

    Args:
        log: As in `Processes`.
        may_fork: Fork it from this process, which has imported TFX, where that is safe.
    """
    processes = Processes(log, is_forked=may_fork and can_fork_this_process())
    processes.preload(
        NODE,
        "mlplatform.fingerprints.libraries:read_distributions",
        "mlplatform.fingerprints.imported:record_imports",
    )
    return processes


def cause_of(failure: Failure) -> str:
    """Return the cause in a few lines: the error's own words, then the user's line of code."""
    if failure.is_ours:
        return failure.message
    where = f"\n  at {failure.frame}" if failure.frame else ""
    return f"{failure.type}: {failure.message}{where}"


def killed(exited: Exited) -> str:
    """Return what is known of a process that ended without a word."""
    if exited.status == -signal.SIGKILL:
        peak_mb = exited.peak_memory_kb / 1024
        return f"its process was killed (signal 9; out of memory?) after using {peak_mb:,.0f} MB"
    if exited.status < 0:
        return f"its process was ended by signal {-exited.status}"
    return f"its process ended by itself with exit status {exited.status}"


def new_run_id() -> str:
    """Return an id that sorts by time."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%f}"[:-3] + f"-{secrets.token_hex(2)}"


def versions() -> dict[str, str]:
    """Return the versions that made the stack, without importing it."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("tfx", "tensorflow", "apache-beam", "ml-metadata", "mlplatform"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _exit(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
