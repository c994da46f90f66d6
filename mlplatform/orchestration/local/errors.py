"""The errors of the local runner."""

from collections.abc import Sequence
from typing import get_args

from mlplatform.errors import MlplatformError, UsageError
from mlplatform.roles import Role


class NodeFailedError(MlplatformError):
    """A node failed: its own cause first, then where to look and how to go on.

    Attributes:
        node: The node's id.
        cause: What its process said of it.
        log: The node's log.
        run_id: The run.
        exit_code: 3 where a gate said no, 2 for wrong usage, else 1.
        others: Nodes that failed beside it, each with its cause and its log.
    """

    def __init__(
        self,
        node: str,
        cause: str,
        log: str,
        run_id: str,
        exit_code: int = 1,
        others: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        super().__init__(node, cause, log, run_id, exit_code, others)
        self.node, self.cause, self.log, self.run_id, self.exit_code = node, cause, log, run_id, exit_code
        self.others = tuple(others)

    def __str__(self) -> str:
        failed = [(self.node, self.cause, self.log), *self.others]
        causes = "".join(f"{node} failed: {cause}\n  log: {log}\n" for node, cause, log in failed)
        return causes + ("  to resume: fix the cause and run the same again; finished nodes are reused")


class PipelineNotLoadedError(MlplatformError):
    """Making or compiling the pipeline raised an error of its own."""

    def __init__(self, pipeline: str, cause: str, log: str) -> None:
        super().__init__(pipeline, cause, log)
        self.pipeline, self.cause, self.log = pipeline, cause, log

    def __str__(self) -> str:
        return f"pipeline {self.pipeline!r} could not be made: {self.cause}\n  log: {self.log}"


class NodeNameError(UsageError):
    """A node that the caller named is not in the pipeline."""

    def __init__(self, pipeline: str, unknown: Sequence[str], nodes: Sequence[str]) -> None:
        super().__init__(pipeline, unknown, nodes)
        self.pipeline, self.unknown, self.nodes = pipeline, unknown, nodes

    def __str__(self) -> str:
        return (
            f"pipeline {self.pipeline!r} has no node {', '.join(map(repr, self.unknown))}; "
            f"its nodes are {', '.join(self.nodes)}"
        )


class RuntimeParameterError(UsageError):
    """A runtime parameter is unknown, has no value, or has one of another type."""

    def __init__(self, pipeline: str, problem: str, known: Sequence[str]) -> None:
        super().__init__(pipeline, problem, known)
        self.pipeline, self.problem, self.known = pipeline, problem, known

    def __str__(self) -> str:
        known = ", ".join(self.known) or "none"
        return f"pipeline {self.pipeline!r}: {self.problem}; its runtime parameters are {known}"


class NothingToReuseError(UsageError):
    """No earlier run finished the nodes whose results a partial run takes over."""

    def __init__(self, pipeline: str, unfinished: Sequence[str]) -> None:
        super().__init__(pipeline, unfinished)
        self.pipeline, self.unfinished = pipeline, unfinished

    def __str__(self) -> str:
        return (
            f"pipeline {self.pipeline!r} cannot run in part: no earlier run finished all nodes that are left "
            f"out; the one that came furthest lacks {', '.join(self.unfinished)}. Run it in full, or up "
            f"to node {self.unfinished[-1]}"
        )


class ParameterRoleError(UsageError):
    """A component declares a role that there is not."""

    def __init__(self, component: str, parameter: str, role: object) -> None:
        super().__init__(component, parameter, role)
        self.component, self.parameter, self.role = component, parameter, role

    def __str__(self) -> str:
        roles = ", ".join(get_args(Role))
        return f"{self.component} declares {self.role!r} as role of {self.parameter!r}; the roles are {roles}"


class RunNotInProgressError(UsageError):
    """A run that is to be cancelled is not in progress on this machine."""

    def __init__(self, run_id: str, state: str) -> None:
        super().__init__(run_id, state)
        self.run_id, self.state = run_id, state

    def __str__(self) -> str:
        return (
            f"run {self.run_id} cannot be cancelled here: it is {self.state}, or another machine runs "
            "it, where it can be cancelled"
        )


class UnguardedMainError(UsageError):
    """A script starts its run when it is imported, and the nodes' processes import it."""

    def __init__(self, script: str) -> None:
        super().__init__(script)
        self.script = script

    def __str__(self) -> str:
        return (
            f"{self.script} starts a run while the run's own processes import it: "
            "start the run under `if __name__ == '__main__':`"
        )


class UnsupportedPipelineError(UsageError):
    """TFX cannot run this locally, and neither can we."""

    def __init__(self, pipeline: str, reason: str) -> None:
        super().__init__(pipeline, reason)
        self.pipeline, self.reason = pipeline, reason

    def __str__(self) -> str:
        return f"pipeline {self.pipeline!r} cannot run on this machine: {self.reason}"


class DatabaseUnusableError(MlplatformError):
    """ML Metadata cannot be opened: it is damaged, or another program holds it."""

    def __init__(self, database: str, problem: str) -> None:
        super().__init__(database, problem)
        self.database, self.problem = database, problem

    def __str__(self) -> str:
        return (
            f"ML Metadata in {self.database} cannot be opened: {self.problem}. If another program holds it, "
            "end that and run again; a damaged file can be moved away: a new one is made, and all nodes run."
        )


class InputsNotResolvedError(MlplatformError):
    """TFX could not find a node's inputs; stock runners log this and continue without the node."""

    def __init__(self, node: str, message: str, skipped: Sequence[str] = ()) -> None:
        super().__init__(node, message, skipped)
        self.node, self.message, self.skipped = node, message, tuple(skipped)

    def __str__(self) -> str:
        after = f"; {', '.join(self.skipped)} before it gave no outputs" if self.skipped else ""
        return f"the inputs of node {self.node!r} could not be resolved: {self.message}{after}"
