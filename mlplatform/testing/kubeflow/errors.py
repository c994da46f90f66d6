"""What a cluster answers that does not take a package, or cannot go on with a run."""

from mlplatform.errors import MlplatformError


class RefusedError(MlplatformError):
    """The server refuses a package or a run.

    Attributes:
        stage: `upload`, `compile` or `argo validation`.
        message: The server's words.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(stage, message)
        self.stage, self.message = stage, message

    def __str__(self) -> str:
        return f"Kubeflow Pipelines refuses the package at {self.stage}: {self.message}"


class DriverError(MlplatformError):
    """The driver or the launcher of a task fails, and the task with it."""

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(task, problem)
        self.task, self.problem = task, problem

    def __str__(self) -> str:
        return f"task {self.task!r} fails before or after its container runs: {self.problem}"


class ForkServerError(MlplatformError):
    """The process that containers are forked from ended, or did not start."""

    def __init__(self, status: int | None, log: str) -> None:
        super().__init__(status, log)
        self.status, self.log = status, log

    def __str__(self) -> str:
        return f"the process that containers are forked from ended with {self.status}: {self.log[-2000:]}"
