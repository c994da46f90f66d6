"""What open-source Kubeflow Pipelines needs and TFX's compiler does otherwise: edits of a pipeline spec.

Each was found by giving packages to Kubeflow Pipelines 2.17's own server, driver and launcher.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlplatform.orchestration.kubeflow.errors import CompileError

_PRODUCERS = ("taskOutputArtifact", "taskOutputParameter", "taskFinalStatus")
PARAMETER_TYPES = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE"}


def dags(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the component that is the root, and all others that hold tasks."""
    yield spec["root"]
    for component in spec["components"].values():
        if "dag" in component:
            yield component


def task_inputs(task: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the inputs of a task: `artifacts` or `parameters`."""
    found: dict[str, Any] = task.get("inputs", {}).get(kind, {})
    return found


def repair_producers(spec: dict[str, Any]) -> None:
    """Name the tasks whose values are passed as they are named: TFX appends `_task`."""
    for component in dags(spec):
        tasks = component["dag"]["tasks"]
        for task in tasks.values():
            for given in task_inputs(task, "parameters").values():
                of = given.get("taskOutputParameter")
                if of and of["producerTask"] not in tasks:
                    of["producerTask"] = of["producerTask"].removesuffix("_task")


def repair_passed_types(spec: dict[str, Any]) -> None:
    """Give a value that another task makes the type that this task makes: TFX says STRING of all."""
    for component in dags(spec):
        tasks = component["dag"]["tasks"]
        for task in tasks.values():
            definition = spec["components"][task["componentRef"]["name"]]
            for name, given in task_inputs(task, "parameters").items():
                of = given.get("taskOutputParameter")
                if of and of["producerTask"] in tasks:
                    producer = spec["components"][tasks[of["producerTask"]]["componentRef"]["name"]]
                    made = producer["outputDefinitions"]["parameters"][of["outputParameterKey"]]
                    definition["inputDefinitions"]["parameters"][name] = {
                        "parameterType": made["parameterType"]
                    }


def declare_parameters(
    spec: dict[str, Any], kinds: Mapping[str, tuple[type, Any]], given: Mapping[str, Any]
) -> None:
    """Write the runtime parameters with their defaults, which TFX drops.

    Args:
        spec: The pipeline spec.
        kinds: Type and default of each.
        given: Values that take the defaults' places.
    """
    if not kinds:
        return
    declared: dict[str, Any] = {}
    for name, (kind, default) in kinds.items():
        declared[name] = {"parameterType": PARAMETER_TYPES[kind]}
        value = given.get(name, default)
        if value is not None:
            declared[name] |= {"defaultValue": value, "isOptional": True}
    spec["root"].setdefault("inputDefinitions", {})["parameters"] = declared


def pass_down_parameters(spec: dict[str, Any]) -> None:
    """Declare the runtime parameters of tasks within a sub-DAG as its own, and pass them down."""
    root = spec["root"]
    for task in root["dag"]["tasks"].values():
        inner = spec["components"][task["componentRef"]["name"]]
        if "dag" not in inner:
            continue
        for each in inner["dag"]["tasks"].values():
            for given in task_inputs(each, "parameters").values():
                name = given.get("componentInputParameter")
                if name:
                    kind = {"parameterType": root["inputDefinitions"]["parameters"][name]["parameterType"]}
                    inner.setdefault("inputDefinitions", {}).setdefault("parameters", {})[name] = kind
                    outer = task.setdefault("inputs", {}).setdefault("parameters", {})
                    outer[name] = {"componentInputParameter": name}


def task_name(node: str) -> str:
    """Return the name of a node's task: Argo takes letters, digits and `-`."""
    return re.sub(r"[^-A-Za-z0-9]", "-", node)


def rename_tasks(spec: dict[str, Any], pipeline: str) -> None:
    """Give tasks, components and executors names that Argo takes.

    Raises:
        CompileError: Two nodes would get the same name.
    """
    new: dict[str, str] = {}
    for node in sorted(name for component in dags(spec) for name in component["dag"]["tasks"]):
        name = task_name(node)
        other = next((key for key, value in new.items() if value == name), None)
        if other is not None:
            problem = f"the nodes {other!r} and {node!r} would both be the task {name!r}; rename one"
            raise CompileError(pipeline, problem)
        new[node] = name
    for component in list(dags(spec)):
        dag = component["dag"]
        for node, task in dag["tasks"].items():
            task["taskInfo"] = {"name": new[node]}
            task["componentRef"]["name"] = task_name(task["componentRef"]["name"])
            if "dependentTasks" in task:
                task["dependentTasks"] = [new.get(name, name) for name in task["dependentTasks"]]
            given = [*task_inputs(task, "artifacts").values(), *task_inputs(task, "parameters").values()]
            for each in given:
                for kind in _PRODUCERS:
                    if kind in each:
                        each[kind]["producerTask"] = new.get(
                            each[kind]["producerTask"], each[kind]["producerTask"]
                        )
        dag["tasks"] = {new[node]: task for node, task in dag["tasks"].items()}
    executors = spec["deploymentSpec"]["executors"]
    for component in spec["components"].values():
        label = component.get("executorLabel")
        if label:
            component["executorLabel"] = f"{task_name(label.removesuffix('_executor'))}_executor"
    spec["deploymentSpec"]["executors"] = {
        f"{task_name(label.removesuffix('_executor'))}_executor": executor
        for label, executor in executors.items()
    }
    spec["components"] = {task_name(name): component for name, component in spec["components"].items()}


def drop_nulls(spec: dict[str, Any]) -> None:
    """Drop metadata values that are null, which the launcher refuses."""
    for executor in spec["deploymentSpec"]["executors"].values():
        _without_nulls(executor.get("importer", {}))
    for component in spec["components"].values():
        for artifact in component.get("outputDefinitions", {}).get("artifacts", {}).values():
            _without_nulls(artifact)


def _without_nulls(holder: dict[str, Any]) -> None:
    if "metadata" in holder:
        holder["metadata"] = {name: value for name, value in holder["metadata"].items() if value is not None}
        if not holder["metadata"]:
            del holder["metadata"]
