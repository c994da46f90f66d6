"""The local runner's face: run a pipeline object, a compiled pipeline, or a pipeline by name."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from mlplatform.fingerprints.libraries import environment_fingerprint
from mlplatform.home import Home
from mlplatform.orchestration.engine import parse_engine
from mlplatform.orchestration.local.active_run import ActiveRun, warm_processes
from mlplatform.orchestration.local.cache.unchanged import Memory
from mlplatform.orchestration.local.capacity import default_parallelism
from mlplatform.orchestration.local.display import Display, display_for
from mlplatform.orchestration.local.errors import RunNotInProgressError, UnguardedMainError
from mlplatform.orchestration.local.ledger_runs import find_run, log_of
from mlplatform.orchestration.local.plan import Plan
from mlplatform.orchestration.local.processes import fork_server
from mlplatform.orchestration.local.processes.node_process import Processes
from mlplatform.orchestration.local.records import RunFolder, RunRecord


class LocalRunner:
    """Runs TFX pipelines on this machine, each node in a warm process of its own.

    What all nodes import is imported once for all runs of pipeline objects by the same runner, so that in a
    notebook the second run starts at once; nodes see the user's code as it is when they start.

    Args:
        root: Root folder of the runner's own records; a pipeline keeps its own `pipeline_root` and metadata.
        parallelism: Nodes at the same time, 1 or more; None: as many as cores and memory allow.
        force: Nodes whose earlier results are not taken.
        display: Who shows the run; None: a live table on a terminal, else lines, on stderr.

    Attributes:
        record: The record of the newest run, also while it runs and where it failed; None before the first.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        parallelism: int | None = None,
        force: Sequence[str] = (),
        display: Display | None = None,
    ) -> None:
        self._home = Home.at(root)
        self._parallelism = parallelism if parallelism is not None else default_parallelism()
        self._force = tuple(force)
        self._display = display
        self._processes: Processes | None = None
        self._libraries = ""
        self._imported: set[str] = set()  # modules of executors, in the warm processes
        self.record: RunRecord | None = None

    def run(
        self,
        pipeline: Any,
        run_options: Any = None,
        *,
        from_nodes: Sequence[str] = (),
        to_nodes: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Run a pipeline object.

        Args:
            pipeline: A `tfx.orchestration.pipeline.Pipeline`.
            run_options: TFX's own `RunOptions` for a partial run.
            from_nodes: Run these nodes and those after them; the rest is taken from the latest run.
            to_nodes: Run these nodes and those before them.
            parameters: Values of the pipeline's runtime parameters.

        Returns:
            The run's record: state, time, reason and artifacts of every node.

        Raises:
            NodeNameError: A node that was named is not there.
            RuntimeParameterError: A runtime parameter is unknown, has no value, or has one of another type.
            NothingToReuseError: No earlier run finished what a partial run takes over.
            Exception: What the first failed node raised, chained to a `NodeFailedError` with its log; the
                latter itself where the node's own error cannot be brought here.
        """
        options: dict[str, Any] = {"from_nodes": tuple(from_nodes), "to_nodes": tuple(to_nodes)}
        options |= {"force": self._force, "parameters": dict(parameters or {})}
        with self._run(pipeline.pipeline_info.pipeline_name) as active:
            from mlplatform.orchestration.local.compiling import compile_pipeline, partial_run_of

            if run_options is not None:
                options["partial_run"] = partial_run_of(run_options)
            return self._run_plan(active, compile_pipeline(pipeline, **active.identity, **options))

    def run_with_ir(self, pipeline: Any, run_options: Any = None) -> RunRecord:
        """Run a compiled pipeline, a `pipeline_pb2.Pipeline`, with TFX's own `pipeline_pb2.RunOptions`."""
        partial = run_options.partial_run if run_options is not None else None
        with self._run(pipeline.pipeline_info.id) as active:
            from mlplatform.orchestration.local.compiling import plan_of

            plan = plan_of(pipeline, **active.identity, force=self._force, partial_run=partial)
            return self._run_plan(active, plan)

    def _run_plan(self, active: ActiveRun, plan: Plan) -> RunRecord:
        """Run what was compiled in this process; without any process where nothing changed."""
        # Resolvers and importers look again in each run: what they find may be of the last one.
        looks_again = plan.looks_back or not all(node.executor for node in plan.nodes)
        is_plain = not (self._force or looks_again or any(node.is_left_out for node in plan.nodes))
        memory = Memory(self._home, "", {"compiled": plan.digest})
        if is_plain and (record := active.repeat(memory)) is not None:
            return record
        active.share(self._warm(plan))
        record = active.execute(lambda: plan)
        if is_plain:
            active.remember(memory)
        return record

    def run_reference(
        self,
        reference: str,
        *,
        data: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        from_nodes: Sequence[str] = (),
        to_nodes: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        engine: str | Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Run a pipeline by name.

        It is made in the nodes' own warm process, and TFX is imported only there; not at all where nothing
        changed since the last run.

        Args:
            reference: A packaged name, `path/to/file.py[:function]` or `package.module:function`.
            data: What the function takes as `data`.
            overrides: Further keyword arguments of the function.
            from_nodes: As for `run`.
            to_nodes: As for `run`.
            parameters: As for `run`.
            engine: The engine of Beam, as `engine.parse_engine` takes it; None: as the pipeline says.

        Raises:
            PipelineNotFoundError: There is no such pipeline.
            UnknownChoiceError: There is no such engine.
            ConfigError: It has no such option, or a value does not fit.
            Exception: As for `run`.
        """
        from mlplatform.orchestration.local.reference import check_reference, provisional_name

        check_reference(reference)
        arguments: dict[str, Any] = {"data": data, "overrides": dict(overrides or {})}
        arguments["parameters"] = dict(parameters or {})
        chosen = parse_engine(engine)
        if chosen:
            arguments["engine"] = asdict(chosen)
        memory = Memory(self._home, reference, arguments)
        is_plain = not (from_nodes or to_nodes or self._force)
        with self._run(provisional_name(reference)) as active:
            active.record.reference, active.record.arguments = reference, arguments
            active.record.options |= {"from": list(from_nodes), "to": list(to_nodes)}
            if is_plain and (record := active.repeat(memory)) is not None:
                return record
            made_from = {"data": data, "overrides": arguments["overrides"], "root": self._home.root}
            active.preload_reference(reference, **made_from)
            record = active.execute(
                lambda: active.call(
                    "mlplatform.orchestration.local.compiling:compile_reference",
                    reference=reference,
                    **made_from,
                    from_nodes=tuple(from_nodes),
                    to_nodes=tuple(to_nodes),
                    force=self._force,
                    parameters=arguments["parameters"],
                    engine=chosen,
                    **active.identity,
                )
            )
            if is_plain:
                active.remember(memory)
            return record

    def status(self, run: str = "latest") -> RunRecord:
        """Return the record of a run of this root, also of one that is in progress.

        Args:
            run: Its id, the beginning of that, or `latest`.

        Raises:
            RunNotFoundError: No run, or more than one, is meant.
        """
        return find_run(self._home, run).read()

    def logs(self, run: str, node: str) -> str:
        """Return what a node of a run has printed so far.

        Raises:
            RunNotFoundError: No run, or more than one, is meant.
            NodeNotFoundError: The run has no such node.
            NoLogError: The node has no log.
        """
        return log_of(find_run(self._home, run), node)

    def cancel(self, run: str = "latest") -> None:
        """Have a run that is in progress on this machine end as by Ctrl-C: its process gets SIGTERM.

        Raises:
            RunNotFoundError: No run, or more than one, is meant.
            RunNotInProgressError: It is over, or another machine runs it.
        """
        found = find_run(self._home, run)
        process = found.runner_process() if isinstance(found, RunFolder) else None
        if process is None:
            raise RunNotInProgressError(found.run_id, found.read().state)
        os.kill(process, signal.SIGTERM)

    def close(self) -> None:
        """End the warm processes that are kept for further runs; otherwise they end with this process."""
        if self._processes is not None:
            self._processes.stop()

    def _warm(self, plan: Plan) -> Processes:
        libraries = environment_fingerprint()
        if self._processes is not None and libraries != self._libraries:  # what they imported is old
            self._processes.stop()
        if self._processes is None or not self._processes.is_alive():
            self._libraries = libraries
            self._home.runs.mkdir(parents=True, exist_ok=True)
            self._processes = warm_processes(self._home.runs / "_processes.log", may_fork=True)
            self._imported = set()
        modules = {
            node.executor.rpartition(".")[0] for node in plan.nodes if node.executor.startswith("tfx.")
        }
        executors = modules - self._imported
        if executors and not self._processes.is_forked:  # a fork has them from the pipeline's components
            self._imported |= executors
            self._processes.preload(*sorted(executors))
        return self._processes

    @contextmanager
    def _run(self, name: str) -> Iterator[ActiveRun]:
        if fork_server.is_fork_server:
            raise UnguardedMainError(_script_that_called())
        display = self._display or display_for()
        active = ActiveRun(self._home, name, self._parallelism, display)
        self.record = active.record
        active.record.options["force"] = list(self._force)
        with active:
            yield active


def _script_that_called() -> str:
    """Return the file of the code that called this module."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename in (__file__, contextlib.__file__):
        frame = frame.f_back
    return frame.f_code.co_filename
