"""Runs packages as a cluster does, task by task."""

import json
import os
import posixpath
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from mlplatform.storage.urls import scheme
from mlplatform.testing.kubeflow.conditions import ConditionError, evaluate
from mlplatform.testing.kubeflow.containers import Containers, Mode, Runs
from mlplatform.testing.kubeflow.driver import (
    Outputs,
    Scope,
    StoredArtifact,
    cache_key,
    stored_metadata,
    task_inputs,
    task_outputs,
)
from mlplatform.testing.kubeflow.errors import DriverError
from mlplatform.testing.kubeflow.launcher import Launched, launch
from mlplatform.testing.kubeflow.server import SubmittedPackage, dependencies, in_order, submit

SUCCEEDED, CACHED, FAILED, SKIPPED, OMITTED = "SUCCEEDED", "CACHED", "FAILED", "SKIPPED", "OMITTED"
_WELL = (SUCCEEDED, CACHED)
_IMPORTED = ("s3", "gs", "minio", "oci")
_ALL_COMPLETED = "ALL_UPSTREAM_TASKS_COMPLETED"
# What TFX's own executors import, so that each fork has it.
PRELOAD = ("tfx.v1", "tfx.components")


@dataclass
class TaskResult:
    """How a task ended.

    Attributes:
        name: The task.
        state: `SUCCEEDED`, `CACHED`, `FAILED`, `SKIPPED` (its condition did not hold) or `OMITTED`.
        why: Why it is not `SUCCEEDED`.
        attempts: How often its container ran.
        exit_status: That of the last attempt's command; None where none ran.
        log: What the last attempt printed.
        termination_message: What the pod's status says of the last attempt's end.
        executor_input: What its container was given.
        outputs: What it made.
    """

    name: str
    state: str = ""
    why: str = ""
    attempts: int = 0
    exit_status: int | None = None
    log: str = ""
    termination_message: str = ""
    executor_input: Mapping[str, Any] = field(default_factory=dict)
    outputs: Outputs = field(default_factory=Outputs)

    def uri(self, key: str) -> str:
        """Return where an output lies."""
        return self.outputs.artifacts[key].uri


@dataclass
class SimulatedRun:
    """A run.

    Attributes:
        id: Its id.
        state: `SUCCEEDED` or `FAILED`.
        tasks: Its tasks by name, also those of the DAG that an exit handler follows.
    """

    id: str
    state: str = ""
    tasks: dict[str, TaskResult] = field(default_factory=dict)

    def states(self) -> dict[str, str]:
        """Return the state of each task."""
        return {name: task.state for name, task in self.tasks.items()}

    def failures(self) -> str:
        """Return why tasks failed, with the ends of their logs: what a test's assertion prints."""
        return "\n".join(
            f"{task.name}: {task.why}\n{task.log[-6000:]}"
            for task in self.tasks.values()
            if task.state == FAILED
        )


class Simulator:
    """A cluster; it remembers artifacts and the outputs of earlier runs, as long as it lives.

    Args:
        root: The pipeline root, a URL of the object store: `s3://` or `gs://`, as on a cluster.
        folder: An empty folder for the disks of pods; kept, but for artifacts, so that logs can be read.
        mode: `subprocess`: every container is a process of its own. `fork`: quicker, see `Containers`.
            `pod`: each is a pod on a real Kubernetes, see `Pods`.
        environment: Further variables of all containers.
        publish_logs: Whether tasks have their log as an output, as by default.
        preload: What is imported once where containers are forks.

    Raises:
        DriverError: The root is of a kind that no cluster takes.
    """

    def __init__(
        self,
        root: str,
        folder: str | os.PathLike[str],
        *,
        mode: Mode = "subprocess",
        environment: Mapping[str, str] | None = None,
        publish_logs: bool = True,
        preload: Sequence[str] = PRELOAD,
    ) -> None:
        if scheme(root) not in ("s3", "gs", "minio"):
            raise DriverError("root", f"parse bucket config failed: unsupported Cloud bucket: {root!r}")
        self._root, self._folder = root.rstrip("/"), Path(folder)
        self._publish_logs = publish_logs
        self._containers: Runs
        if mode == "pod":
            from mlplatform.testing.kubeflow.pods import Pods

            self._containers = Pods(environment or {})
        else:
            self._containers = Containers(mode, self._folder, environment or {}, preload)
        self._cache: dict[tuple[str, str], Outputs] = {}
        self._imported: dict[str, StoredArtifact] = {}
        self._artifacts = 0

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process that containers are forked from, or close the connection to the cluster."""
        self._containers.close()

    def run(
        self,
        package: str | os.PathLike[str],
        parameters: Mapping[str, Any] | Callable[[str], Mapping[str, Any]] | None = None,
    ) -> SimulatedRun:
        """Submit a package, and run it to its end.

        Args:
            package: The package's text, or its file.
            parameters: The run's parameters, or what makes them of the run's id.

        Raises:
            RefusedError: The server refuses it.
        """
        text = package if isinstance(package, str) and "\n" in package else Path(package).read_text("utf-8")
        run = SimulatedRun(str(uuid.uuid4()))
        parameters = parameters(run.id) if callable(parameters) else parameters
        submitted = submit(text, parameters)
        declared = submitted.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        values = {name: about["defaultValue"] for name, about in declared.items() if "defaultValue" in about}
        scope = Scope(run.id, {**values, **(parameters or {})})
        run.state = self._run_dag(submitted, run, submitted.spec["root"]["dag"], scope)
        return run

    def _run_dag(
        self, package: SubmittedPackage, run: SimulatedRun, dag: Mapping[str, Any], scope: Scope
    ) -> str:
        for name in in_order(dag["tasks"]):
            task = dag["tasks"][name]
            result = TaskResult(name)
            needed = {each: scope.states[each] for each in dependencies(task)}
            is_always = task.get("triggerPolicy", {}).get("strategy") == _ALL_COMPLETED
            if not is_always and (held := [each for each, state in needed.items() if state not in _WELL]):
                result.state, result.why = OMITTED, f"{held[0]} is {needed[held[0]]}"
            else:
                try:
                    self._run_task(package, run, task, scope, result)
                except (DriverError, ConditionError) as error:
                    result.state, result.why = FAILED, str(error)
            scope.states[name], scope.outputs[name] = result.state, result.outputs
            if result.state == FAILED:
                scope.errors[name] = result.why
            run.tasks[name] = result
        return FAILED if FAILED in scope.states.values() else SUCCEEDED

    def _run_task(
        self,
        package: SubmittedPackage,
        run: SimulatedRun,
        task: Mapping[str, Any],
        scope: Scope,
        result: TaskResult,
    ) -> None:
        component = package.spec["components"][task["componentRef"]["name"]]
        inputs = task_inputs(result.name, task, component, scope)
        if "dag" in component:
            inner = Scope(run.id, inputs.get("parameterValues", {}))
            result.state = self._run_dag(package, run, component["dag"], inner)
            result.why = "; ".join(f"{name}: {why}" for name, why in inner.errors.items())
            return
        executor = package.spec["deploymentSpec"]["executors"][component["executorLabel"]]
        if "importer" in executor:
            result.outputs = self._import(result.name, executor["importer"], component, inputs)
            result.state = SUCCEEDED
            return
        condition = task.get("triggerPolicy", {}).get("condition")
        if condition and not evaluate(condition, {"inputs": inputs}):
            result.state, result.why = SKIPPED, f"{condition} does not hold"
            return
        key = (package.name, cache_key(inputs, component, executor["container"]))
        is_cached = task.get("cachingOptions", {}).get("enableCache", False)
        if is_cached and key in self._cache:
            result.state, result.outputs = CACHED, self._cache[key]
            return
        self._run_container(package, run, task, component, executor["container"], inputs, result)
        if is_cached and result.state == SUCCEEDED:
            self._cache[key] = result.outputs

    def _run_container(
        self,
        package: SubmittedPackage,
        run: SimulatedRun,
        task: Mapping[str, Any],
        component: Mapping[str, Any],
        container: Mapping[str, Any],
        inputs: Mapping[str, Any],
        result: TaskResult,
    ) -> None:
        run_root = posixpath.join(self._root, package.name, run.id)
        place = posixpath.join(run_root, task["taskInfo"]["name"], str(uuid.uuid4()))
        retries = int(task.get("retryPolicy", {}).get("maxRetryCount", 0))
        for attempt in range(retries + 1):
            disk = self._folder / run.id / result.name / str(attempt)
            outputs = task_outputs(component, place, publish_logs=self._publish_logs, root=disk)
            result.executor_input = {"inputs": dict(inputs), "outputs": outputs}
            platform = package.platform.get(component["executorLabel"], {})
            done = launch(
                result.name, container, result.executor_input, run_root, disk, self._containers, platform
            )
            result.attempts, result.exit_status = attempt + 1, done.status
            result.log, result.termination_message = done.log, done.termination_message
            if not done.status and not done.error:
                result.outputs = self._record(done)
                result.state = SUCCEEDED
                return
            result.why = done.error or done.termination_message or f"exit status {done.status}"
        result.state = FAILED

    def _record(self, done: Launched) -> Outputs:
        artifacts = {
            key: self._stored(key, uri, metadata)
            for key, (uri, metadata) in sorted((done.artifacts or {}).items())
        }
        return Outputs(artifacts, dict(done.parameters or {}))

    def _stored(self, key: str, uri: str, metadata: Mapping[str, Any]) -> StoredArtifact:
        self._artifacts += 1
        return StoredArtifact(str(self._artifacts), uri, stored_metadata(key, metadata))

    def _import(
        self, name: str, importer: Mapping[str, Any], component: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> Outputs:
        """Do what the importer does, which is no container: it only writes down where an artifact lies."""
        given = importer["artifactUri"]
        uri = given.get("constant")
        if uri is None:
            uri = inputs.get("parameterValues", {})[given.get("runtimeParameter", "artifact_uri")]
        uri = uri["stringValue"] if isinstance(uri, dict) else uri
        if scheme(uri) not in _IMPORTED:
            raise DriverError(name, f"no Provider found for uri: {uri}")
        (key,) = component["outputDefinitions"]["artifacts"]
        metadata = importer.get("metadata", {})
        of = json.dumps([uri, key, metadata], sort_keys=True)
        if importer.get("reimport") or of not in self._imported:
            self._imported[of] = self._stored(key, uri, metadata)
        return Outputs({key: self._imported[of]})
