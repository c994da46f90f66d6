"""The errors of the local runner."""

from collections.abc import Sequence

from mlplatform.errors import MlplatformError, UsageError


class NodeFailedError(MlplatformError):
    """A node failed: its own cause first, then where to look and how to go on.

    Attributes:
        node: The node's id.
        cause: What its process said of it.
        log: The node's log.
        run_id: The run.
        exit_code: 3 where a gate said no, 2 for wrong usage, else 1.
    """

    def __init__(self, node: str, cause: str, log: str, run_id: str, exit_code: int = 1) -> None:
        super().__init__(node, cause, log, run_id, exit_code)
        self.node, self.cause, self.log, self.run_id, self.exit_code = node, cause, log, run_id, exit_code

    def __str__(self) -> str:
        return (
            f"{self.node} failed: {self.cause}\n"
            f"  log: {self.log}\n"
            "  to go on: put it right and run the same again; finished nodes are taken as they are"
        )


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


class UnsupportedPipelineError(UsageError):
    """TFX cannot run this locally, and neither can we."""

    def __init__(self, pipeline: str, reason: str) -> None:
        super().__init__(pipeline, reason)
        self.pipeline, self.reason = pipeline, reason

    def __str__(self) -> str:
        return f"pipeline {self.pipeline!r} cannot run on this machine: {self.reason}"
