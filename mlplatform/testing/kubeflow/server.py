"""What the API server of Kubeflow Pipelines refuses, in its own order and words.

Sources: kubeflow/pipelines 2.17, backend/src/apiserver/template/v2_template.go and
backend/src/v2/compiler/argocompiler; Argo Workflows 4.0, workflow/validate. What they take though it is wrong
(a broken condition, an empty image, an output that does not exist) passes here, too, and fails when it runs.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from mlplatform.errors import MissingExtraError
from mlplatform.testing.kubeflow.errors import RefusedError
from mlplatform.testing.kubeflow.platform_fields import problem_of

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time, where PyYAML has libyaml
UPLOAD, COMPILE, ARGO = "upload", "compile", "argo validation"
_NAME = re.compile("[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TASK_NAME = re.compile("[a-zA-Z0-9][-a-zA-Z0-9]*")
_MAX_TASK_NAME = 128
_DRIVER = "-driver"  # what the server appends for the task of the driver
_NUMBERS = ("NUMBER_DOUBLE", "NUMBER_INTEGER")
_KINDS: dict[str, tuple[type, str]] = {
    "STRING": (str, "string"),
    "BOOLEAN": (bool, "bool"),
    "LIST": (list, "list"),
    "STRUCT": (dict, "struct"),
}


class SubmittedPackage:
    """A package that was uploaded.

    Attributes:
        spec: The pipeline spec.
        platform: The entries of the platform document, by executor label.
    """

    def __init__(self, spec: dict[str, Any], platform: dict[str, Any]) -> None:
        self.spec, self.platform = spec, platform

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.spec["pipelineInfo"]["name"])


def submit(text: str, parameters: Mapping[str, Any] | None = None) -> SubmittedPackage:
    """Do what the server does with a package and the parameters of a run; return what is to run.

    Args:
        text: The package: YAML documents.
        parameters: The run's parameters.

    Raises:
        RefusedError: The server refuses it.
        MissingExtraError: kfp-pipeline-spec is not installed.
    """
    package = upload(text)
    _check_parameters(package.spec, parameters or {})
    _check_components(package)
    for name, component in _dags(package.spec):
        _check_workflow(name, component["dag"])
    return package


def upload(text: str) -> SubmittedPackage:
    """Return the package that an upload takes.

    Raises:
        RefusedError: It is not one. (The server itself never answers to what is no YAML.)
    """
    try:
        documents = [each for each in yaml.load_all(text, _Loader) if each is not None]
    except yaml.YAMLError as error:
        raise RefusedError(UPLOAD, f"unable to decode yaml document: {error}") from error
    specs = [each for each in documents if isinstance(each, dict) and "pipelineInfo" in each]
    if not specs or not isinstance(documents[0], dict):
        raise _invalid("unknown template format")
    if len(specs) > 1:
        raise _invalid("multiple pipeline specs provided")
    spec = specs[0]
    _parse_strictly(spec)
    if (found := spec.get("schemaVersion", "")) != "2.1.0":
        raise _invalid(f"KFP only supports schema version 2.1.0, but the pipeline spec has version {found}")
    name = spec["pipelineInfo"].get("name", "")
    if not name:
        raise _invalid("invalid v2 pipeline spec: name is empty")
    if not _NAME.search(name):
        raise _invalid(
            "invalid v2 pipeline spec: name should consist of lower case alphanumeric characters, '-' or "
            "'.', and must start and end with an alphanumeric character"
        )
    if "root" not in spec:
        raise _invalid("invalid v2 pipeline spec: root component is empty")
    platforms: dict[str, Any] = {}
    for document in documents:
        kubernetes = document.get("platforms", {}).get("kubernetes") if isinstance(document, dict) else None
        if kubernetes is not None:
            platforms = kubernetes.get("deploymentSpec", {}).get("executors", {})
    return SubmittedPackage(spec, platforms)


def _parse_strictly(spec: Mapping[str, Any]) -> None:
    try:
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2
    except ImportError as error:
        raise MissingExtraError("kfp-pipeline-spec", "kubeflow", "checking packages") from error
    try:
        json_format.ParseDict(dict(spec), pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise _invalid("unknown template format") from error


def _invalid(problem: str) -> RefusedError:
    return RefusedError(UPLOAD, f"InvalidInputError: {problem}: pipeline spec is invalid")


def _check_parameters(spec: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})

    def refused(problem: str) -> RefusedError:
        return RefusedError(COMPILE, f"invalid pipeline job inputs: Invalid input error: {problem}")

    for name, about in declared.items():
        if name not in given:
            if not about.get("isOptional") and "defaultValue" not in about:
                raise refused(
                    f"parameter {name} is not optional, yet has neither default value nor user provided value"
                )
            continue
        kind, value = about.get("parameterType"), given[name]
        if kind is None:
            raise refused(f"input parameter {name} has unspecified type")
        if kind in _NUMBERS and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise refused(
                f"input parameter {name} requires type double or integer, but the parameter value is not of "
                "number value type"
            )
        if kind in _KINDS and not isinstance(value, _KINDS[kind][0]):
            wanted = _KINDS[kind][1]
            raise refused(
                f"input parameter {name} requires type {wanted}, but the input parameter is not of {wanted} "
                "value type"
            )
    unknown = sorted(given.keys() - declared.keys())
    if unknown:
        raise refused(f"parameter {unknown[0]} provided is not required by pipeline")


def _dags(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "root", spec["root"]
    for name, component in spec.get("components", {}).items():
        if "dag" in component:
            yield name, component


def _check_components(package: SubmittedPackage) -> None:
    """Do what the compiler to Argo does: every reference is followed."""
    spec = package.spec
    components, executors = spec.get("components", {}), spec.get("deploymentSpec", {}).get("executors", {})

    def refused(problem: str) -> RefusedError:
        return RefusedError(COMPILE, f"Failed to compile job: {problem}")

    for name, component in _dags(spec):
        for task in component["dag"]["tasks"].values():
            if (ref := task["componentRef"]["name"]) not in components:
                raise refused(
                    f'error processing component name="{name}": cannot find component ref name="{ref}"'
                )
    for name, component in components.items():
        label = component.get("executorLabel")
        if label is None:
            continue
        where = f'error processing component name="{name}": executor(label="{label}")'
        if label not in executors:
            raise refused(f"{where} not found in deployment config")
        if not {"container", "importer"} & executors[label].keys():
            raise refused(f"{where}: non-container and non-importer executor not implemented")
    for name, component in _dags(spec):
        tasks = component["dag"]["tasks"]
        for task_name, task in sorted(tasks.items()):
            for producer in _producers(task):
                if producer not in tasks:
                    raise refused(
                        f'compiling DAG "{name}": failed to add implicit deps: unknown producer task '
                        f'"{producer}" in DAG'
                    )
            label = components[task["componentRef"]["name"]].get("executorLabel")
            if problem := problem_of(package.platform.get(label, {})):
                raise refused(
                    f'compiling DAG "{name}": compiling task "{task_name}": error creating executor for '
                    f'"{task_name}": failed to unmarshal kubernetes config: proto: {problem}'
                )


def _producers(task: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("artifacts", "parameters"):
        for given in task.get("inputs", {}).get(kind, {}).values():
            for source in ("taskOutputArtifact", "taskOutputParameter", "taskFinalStatus"):
                if source in given:
                    yield given[source]["producerTask"]


def dependencies(task: Mapping[str, Any]) -> set[str]:
    """Return the tasks that a task waits for."""
    return {*task.get("dependentTasks", ()), *_producers(task)}


def in_order(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of tasks so that each comes after those that it waits for.

    Raises:
        ValueError: They wait for each other, or for what is not there; its text is Argo's.
    """
    order: list[str] = []
    done: set[str] = set()
    while len(order) < len(tasks):
        ready = []
        for name, task in sorted(tasks.items()):
            for needed in sorted(dependencies(task)):
                # Argo reads names of tasks out of an expression, and so up to the first other character.
                read = found[0] if (found := _TASK_NAME.match(needed)) else needed
                if read not in tasks:
                    raise ValueError(f"invalid dependency {read}")
            if name not in done and dependencies(task) <= done:
                ready.append(name)
        if not ready:
            raise ValueError("graph with cycle")
        order += ready
        done.update(ready)
    return order


def _check_workflow(name: str, dag: Mapping[str, Any]) -> None:
    """Do what Argo's validation does with the tasks of a template."""
    where = f"templates.{name}" if name != "root" else "templates.entrypoint.tasks.root templates.root"
    try:
        order = in_order(dag["tasks"])
    except ValueError as error:
        raise RefusedError(ARGO, f"{where} sorting failed: {error}") from error
    for place, task in enumerate(order):
        problem = ""
        if len(task + _DRIVER) > _MAX_TASK_NAME:
            problem = f"must be no more than {_MAX_TASK_NAME} characters"
        elif not _TASK_NAME.fullmatch(task):
            problem = (
                "name must consist of alpha-numeric characters or '-', and must start with an alpha-numeric "
                "character"
            )
        if problem:
            raise RefusedError(
                ARGO, f"{where}.tasks[{2 * place}].name: '{task}{_DRIVER}' is invalid: {problem}"
            )
    for task in order:
        if task[0].isdigit():
            raise RefusedError(
                ARGO,
                f"{where}.tasks.{task}{_DRIVER} name cannot begin with a digit when using either 'depends' "
                "or 'dependencies'",
            )
