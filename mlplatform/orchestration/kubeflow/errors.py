"""The errors of compiling for Kubeflow Pipelines and of running there."""

from collections.abc import Sequence

from mlplatform.errors import MlplatformError, UsageError


class CompileError(UsageError):
    """A pipeline cannot be compiled for Kubeflow Pipelines."""

    def __init__(self, pipeline: str, problem: str) -> None:
        super().__init__(pipeline, problem)
        self.pipeline, self.problem = pipeline, problem

    def __str__(self) -> str:
        return f"pipeline {self.pipeline!r} cannot be compiled for Kubeflow Pipelines: {self.problem}"


class PackageError(UsageError):
    """A compiled package is not what Kubeflow Pipelines runs.

    Attributes:
        problems: One sentence for each thing that is wrong, with what to do.
    """

    def __init__(self, pipeline: str, problems: Sequence[str]) -> None:
        super().__init__(pipeline, problems)
        self.pipeline, self.problems = pipeline, problems

    def __str__(self) -> str:
        return f"package of pipeline {self.pipeline!r}: {'; '.join(self.problems)}"


class ParameterValueError(UsageError):
    """The value of a runtime parameter is missing, unknown, or of another type."""

    def __init__(self, pipeline: str, problem: str, known: Sequence[str]) -> None:
        super().__init__(pipeline, problem, known)
        self.pipeline, self.problem, self.known = pipeline, problem, known

    def __str__(self) -> str:
        known = ", ".join(self.known) or "none"
        return f"pipeline {self.pipeline!r}: {self.problem}; its runtime parameters are {known}"


class NotOnAClusterError(UsageError):
    """Something was asked for that only makes sense on one machine, or that Kubeflow Pipelines lacks."""

    def __init__(self, asked: str, remedy: str) -> None:
        super().__init__(asked, remedy)
        self.asked, self.remedy = asked, remedy

    def __str__(self) -> str:
        return f"{self.asked} does not work on a cluster: {self.remedy}"


class HostError(UsageError):
    """The address of the Kubeflow Pipelines server is missing or is not an address."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host

    def __str__(self) -> str:
        found = f"{self.host!r} is not an address" if self.host else "no address is given"
        return (
            f"Kubeflow Pipelines server: {found}; give one such as http://localhost:8888 "
            "or https://kubeflow.example.com/pipeline, or set KF_PIPELINES_ENDPOINT"
        )


class ServerUnreachableError(MlplatformError):
    """The Kubeflow Pipelines server does not answer."""

    def __init__(self, host: str, problem: str) -> None:
        super().__init__(host, problem)
        self.host, self.problem = host, problem

    def __str__(self) -> str:
        return (
            f"no answer from the Kubeflow Pipelines server at {self.host}: {self.problem}. Check the "
            "address; from outside of the cluster: kubectl port-forward -n kubeflow svc/ml-pipeline 8888:8888"
        )


class ServerRefusedError(MlplatformError):
    """The Kubeflow Pipelines server refused a request.

    Attributes:
        status: HTTP status.
        answer: The first line of its answer.
    """

    def __init__(self, host: str, asked: str, status: int, answer: str) -> None:
        super().__init__(host, asked, status, answer)
        self.host, self.asked, self.status, self.answer = host, asked, status, answer

    def __str__(self) -> str:
        remedy = ""
        if self.status in (401, 403):
            remedy = (
                ". Set KF_PIPELINES_TOKEN or KF_PIPELINES_COOKIES, or run in a pod with a projected "
                "service account token"
            )
        return (
            f"the Kubeflow Pipelines server at {self.host} refused {self.asked} ({self.status}): "
            f"{self.answer}{remedy}"
        )


class ClusterRunNotFoundError(UsageError):
    """The Kubeflow Pipelines server has no such run, recurring run or experiment, or more than one."""

    def __init__(self, host: str, what: str, name: str, near: Sequence[str]) -> None:
        super().__init__(host, what, name, near)
        self.host, self.what, self.name, self.near = host, what, name, near

    def __str__(self) -> str:
        near = f"; there is {', '.join(self.near)}" if self.near else "; there is none"
        return f"{self.host} has no {self.what} {self.name!r}, or not one alone{near}"


class ClusterRunFailedError(MlplatformError):
    """A run on the cluster ended without success.

    Attributes:
        failed: Names of the tasks that failed, each with the first line of its error.
    """

    def __init__(self, run_id: str, state: str, failed: Sequence[tuple[str, str]]) -> None:
        super().__init__(run_id, state, failed)
        self.run_id, self.state, self.failed = run_id, state, tuple(failed)

    def __str__(self) -> str:
        causes = "".join(f"\n  {task}: {why or 'no reason given'}" for task, why in self.failed)
        return f"run {self.run_id} ended {self.state}{causes}"


class ScheduleError(UsageError):
    """A schedule of a recurring run is not one."""

    def __init__(self, schedule: str) -> None:
        super().__init__(schedule)
        self.schedule = schedule

    def __str__(self) -> str:
        return (
            f"schedule {self.schedule!r}: give five fields as cron has them (minute, hour, day of month, "
            "month, day of week), such as '0 2 * * *' for two o'clock each night"
        )
