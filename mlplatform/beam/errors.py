"""What keeps a Beam engine from taking work."""

from mlplatform.errors import MlplatformError, UsageError


class JobServerUnreachableError(MlplatformError):
    """Nothing answers where an engine's job server should be."""

    def __init__(self, endpoint: str, cause: str) -> None:
        super().__init__(endpoint, cause)
        self.endpoint, self.cause = endpoint, cause

    def __str__(self) -> str:
        return (
            f"the engine's job server at {self.endpoint} cannot be reached: {self.cause}. Start it, or "
            "correct the engine's option job_endpoint."
        )


class NoWorkerCommandError(UsageError):
    """The command that starts a Python worker is not on this machine."""

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self.command = command

    def __str__(self) -> str:
        return (
            f"the command of the engine's Python workers, {self.command}, is not there. Install mlplatform "
            "into the environment of the workers, give the engine's option worker_command, or take another "
            "environment (loopback, external or docker)."
        )


class WorkerVersionError(MlplatformError):
    """A worker of the engine has other versions than the process that submitted the job."""

    def __init__(self, driver: str, worker: str) -> None:
        super().__init__(driver, worker)
        self.driver, self.worker = driver, worker

    def __str__(self) -> str:
        return (
            f"the engine's workers have {self.worker}, and the job was submitted with {self.driver}. Install "
            "the same versions in both, or name the worker environment that has them."
        )


class EngineJobError(MlplatformError):
    """A job failed on its engine."""

    def __init__(self, cause: str, page: str) -> None:
        super().__init__(cause, page)
        self.cause, self.page = cause, page

    def __str__(self) -> str:
        return f"{self.cause}" + (f"\nThe job's page: {self.page}" if self.page else "")
