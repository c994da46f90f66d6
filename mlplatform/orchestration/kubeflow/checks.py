"""What Kubeflow Pipelines would refuse of a package, and what it takes although no run could end well.

Found with the code of Kubeflow Pipelines 2.17's own server and of Argo: a package that passes here passes
there. What only we refuse are broken conditions, outputs that do not exist, images without a name, unknown
fields within executors, platform entries of no executor, and packages that are too large.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlplatform.orchestration.kubeflow.cel import inputs_of
from mlplatform.orchestration.kubeflow.errors import PackageError
from mlplatform.orchestration.kubeflow.kubernetes_fields import FIELDS, problems_in
from mlplatform.orchestration.kubeflow.options import LAUNCHER_FOLDERS

SCHEMA_VERSION = "2.1.0"
LONGEST_NAME = 128  # of a pipeline: TFX's and Kubernetes' limit
LONGEST_TASK = 121  # Argo takes 128, and Kubeflow Pipelines appends `-driver`
LARGEST_ARGUMENT = 128 * 1024 - 1  # Linux: MAX_ARG_STRLEN, with the zero byte at its end
ROOM_FOR_ARTIFACTS = 16 * 1024  # what is added to a task's values in the argument that holds its inputs
LARGEST_WORKFLOW = 1 << 20  # etcd takes no larger object
WORKFLOW_PER_TASK = 2 * 1024  # what the compiled workflow holds beside the package, per task
ARTIFACT_SCHEMES = ("s3", "gs", "minio", "oci")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_TASK = re.compile(r"[A-Za-z][-A-Za-z0-9]*")
_KINDS: dict[str, tuple[type, ...]] = {
    "STRING": (str,), "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": (bool,),
    "LIST": (list,), "STRUCT": (dict,),
}  # fmt: skip


def check_package(spec: Any, platform: Any = None) -> None:
    """Check a pipeline spec and its platform document.

    Args:
        spec: The spec, as parsed from YAML or JSON.
        platform: The platform document; None for none.

    Raises:
        PackageError: Something is wrong; all of it is named.
    """
    name = _name_of(spec)
    try:
        problems = _form(spec)
        if not problems:  # else nothing can be said of the rest
            problems = [*_head(spec), *_numbers(spec), *_tasks(spec), *_executors(spec)]
            problems += [*_platform(spec, platform or {}), *_size(spec, platform or {})]
    except (AttributeError, TypeError) as error:  # protobuf takes an empty list for a message
        problems = [f"it is not a pipeline spec: a part of it has another form ({error})"]
    if problems:
        raise PackageError(name, list(dict.fromkeys(problems)))


def _name_of(spec: Any) -> str:
    info = spec.get("pipelineInfo") if isinstance(spec, Mapping) else None
    return str(info.get("name", "")) if isinstance(info, Mapping) else ""


def _form(spec: Any) -> list[str]:
    """See that the document is a pipeline spec, field by field."""
    if not isinstance(spec, Mapping):
        return [f"it is a {type(spec).__name__}, not a pipeline spec"]
    if "pipelineSpec" in spec:
        return ["it is a job of Vertex AI, whose pipelineSpec alone is a package; use `mlplatform compile`"]
    from google.protobuf.json_format import ParseDict, ParseError
    from kfp.pipeline_spec import pipeline_spec_pb2 as messages

    try:
        ParseDict(dict(spec), messages.PipelineSpec())
        ParseDict(spec.get("deploymentSpec", {}), messages.PipelineDeploymentConfig())
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return [f"it is not a pipeline spec: {text.replace('Message type ', '')[:300]}"]
    if not spec.get("root", {}).get("dag", {}).get("tasks"):
        return ["it has no task"]
    return []


def _head(spec: Mapping[str, Any]) -> Iterator[str]:
    version = spec.get("schemaVersion")
    if version != SCHEMA_VERSION:
        yield f"schemaVersion is {version!r}; Kubeflow Pipelines takes {SCHEMA_VERSION} alone"
    name = _name_of(spec)
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        yield (
            f"the pipeline's name {name[:140]!r} is not of lower case letters, digits, '-' and '.', "
            f"beginning and ending with a letter or digit, {LONGEST_NAME} at most; rename the pipeline"
        )
    root = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for parameter, about in root.items():
        kind = about.get("parameterType")
        if "defaultValue" in about and not _is_of(about["defaultValue"], kind):
            yield f"the default of parameter {parameter!r} is {about['defaultValue']!r}, not a {kind}"
        if about.get("isOptional") and "defaultValue" not in about:
            yield f"parameter {parameter!r} is optional and has no default; give it one"


def _numbers(spec: Any, place: str = "") -> Iterator[str]:
    if isinstance(spec, float) and not math.isfinite(spec):
        yield f"{place} is {spec}, which JSON does not have"
    elif isinstance(spec, Mapping):
        for name, value in spec.items():
            yield from _numbers(value, f"{place}.{name}" if place else str(name))
    elif isinstance(spec, list):
        for at, value in enumerate(spec):
            yield from _numbers(value, f"{place}[{at}]")


def _dags(spec: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "root", spec["root"]
    for name, component in spec.get("components", {}).items():
        if "dag" in component:
            yield name, component


def _tasks(spec: Mapping[str, Any]) -> Iterator[str]:
    for _, component in _dags(spec):
        tasks = component["dag"].get("tasks", {})
        taken = component.get("inputDefinitions", {}).get("parameters", {})
        for name, task in tasks.items():
            yield from _task_name(name, task)
            yield from _task_of(spec, name, task)
            yield from _dependencies(spec, name, task, tasks, taken)
            yield from _policies(name, task)
        if (cycle := _cycle(tasks)) is not None:
            yield f"the tasks {' -> '.join(cycle)} wait for each other"


def _task_name(name: str, task: Mapping[str, Any]) -> Iterator[str]:
    if len(name) > LONGEST_TASK:
        yield (
            f"the task {name[:40]}... has a name of {len(name)} characters; Argo takes {LONGEST_TASK}. "
            "Shorten the node's id with with_id"
        )
    elif not _TASK.fullmatch(name):
        yield (
            f"the task {name!r} needs a name of letters, digits and '-' that begins with a letter; change "
            "the node's id with with_id"
        )
    if task.get("taskInfo", {}).get("name", name) != name:
        yield f"the task {name!r} calls itself {task['taskInfo']['name']!r}; older servers look for that name"


def _task_of(spec: Mapping[str, Any], name: str, task: Mapping[str, Any]) -> Iterator[str]:
    reference = task.get("componentRef", {}).get("name", "")
    component = spec.get("components", {}).get(reference)
    if component is None:
        yield f"the task {name!r} names the component {reference!r}, which is not there"
        return
    if "dag" not in component:
        label = component.get("executorLabel", "")
        if label not in spec.get("deploymentSpec", {}).get("executors", {}):
            yield f"the component {reference!r} names the executor {label!r}, which is not there"
    if "artifactIterator" in task:
        yield f"the task {name!r} iterates over artifacts, which Kubeflow Pipelines has not implemented"
    declared = component.get("inputDefinitions", {})
    for kind in ("artifacts", "parameters"):
        given = task.get("inputs", {}).get(kind, {})
        known = declared.get(kind, {})
        for each in given:
            if each not in known:
                yield f"the task {name!r} is given {each!r}, which its component does not take"
        for each, about in known.items():
            if each not in given and not about.get("isOptional") and "defaultValue" not in about:
                yield f"the task {name!r} is not given {each!r}, which its component needs"
    for each, about in task.get("inputs", {}).get("parameters", {}).items():
        kind = declared.get("parameters", {}).get(each, {}).get("parameterType")
        value = about.get("runtimeValue", {})
        if "constant" in value and kind and not _is_of(value["constant"], kind):
            yield f"{name}.{each} is {str(value['constant'])[:80]!r}, not a {kind}"


def _is_of(value: Any, kind: str | None) -> bool:
    kinds = _KINDS.get(kind or "")
    if kinds is None:
        return True
    if isinstance(value, bool) and kind != "BOOLEAN":
        return False
    if kind == "NUMBER_INTEGER" and isinstance(value, float) and not value.is_integer():
        return False
    return isinstance(value, kinds)


def _dependencies(
    spec: Mapping[str, Any],
    name: str,
    task: Mapping[str, Any],
    tasks: Mapping[str, Any],
    taken: Mapping[str, Any],
) -> Iterator[str]:
    for other in task.get("dependentTasks", []):
        if other not in tasks:
            yield f"the task {name!r} waits for {other!r}, which is not there"
    inputs = task.get("inputs", {})
    given = [*inputs.get("artifacts", {}).items(), *inputs.get("parameters", {}).items()]
    for each, source in given:
        for kind, key, side in (
            ("taskOutputArtifact", "outputArtifactKey", "artifacts"),
            ("taskOutputParameter", "outputParameterKey", "parameters"),
            ("taskFinalStatus", "", ""),
        ):
            if kind not in source:
                continue
            producer = source[kind].get("producerTask", "")
            if producer not in tasks:
                yield f"{name}.{each} comes from the task {producer!r}, which is not there"
                continue
            made = spec.get("components", {}).get(tasks[producer].get("componentRef", {}).get("name"), {})
            known = made.get("outputDefinitions", {}).get(side, {})
            if key and source[kind].get(key) not in known:
                yield (
                    f"{name}.{each} is the output {source[kind].get(key)!r} of {producer!r}, "
                    f"which gives {', '.join(known) or 'none'}"
                )
            if kind == "taskFinalStatus" and producer not in task.get("dependentTasks", []):
                yield f"{name}.{each} is the end of {producer!r}, which the task does not wait for"
        parameter = source.get("componentInputParameter")
        if parameter is not None and parameter not in taken:
            yield f"{name}.{each} is the parameter {parameter!r}, which is not declared around the task"


def _policies(name: str, task: Mapping[str, Any]) -> Iterator[str]:
    trigger = task.get("triggerPolicy", {})
    condition = trigger.get("condition")
    if condition:
        try:
            read = inputs_of(condition)
        except ValueError as error:
            yield f"the condition of {name!r} cannot be evaluated: {error}: {condition[:120]}"
        else:
            given = task.get("inputs", {})
            known = {("artifacts", each) for each in given.get("artifacts", {})}
            known |= {("parameterValues", each) for each in given.get("parameters", {})}
            for kind, each in sorted(read - known):
                yield f"the condition of {name!r} reads inputs.{kind}[{each!r}], which the task is not given"
    strategy = trigger.get("strategy")
    if strategy == "ALL_UPSTREAM_TASKS_COMPLETED" and not task.get("dependentTasks"):
        yield f"the task {name!r} follows when others have ended, and waits for none"
    retry = task.get("retryPolicy", {})
    if not isinstance(retry.get("maxRetryCount", 0), int) or not 0 <= retry.get("maxRetryCount", 0) <= 100:
        yield f"the task {name!r} would try {retry['maxRetryCount']!r} times more; 0 to 100 are possible"


def _cycle(tasks: Mapping[str, Any]) -> list[str] | None:
    """Return tasks that wait for each other; None where there are none."""
    waits: dict[str, list[str]] = {}
    for name, task in tasks.items():
        waits[name] = [other for other in task.get("dependentTasks", []) if other in tasks]
        inputs = task.get("inputs", {})
        for source in (*inputs.get("artifacts", {}).values(), *inputs.get("parameters", {}).values()):
            for about in source.values():
                producer = about.get("producerTask") if isinstance(about, Mapping) else None
                if isinstance(producer, str) and producer in tasks:
                    waits[name].append(producer)
    done: set[str] = set()
    for first in waits:
        path = [(first, iter(waits[first]))] if first not in done else []
        while path:
            name, others = path[-1]
            other = next((each for each in others if each not in done), None)
            names = [each for each, _ in path]
            if other is None:
                done.add(name)
                path.pop()
            elif other in names:
                return [*names[names.index(other) :], other]
            else:
                path.append((other, iter(waits[other])))
    return None


def _executors(spec: Mapping[str, Any]) -> Iterator[str]:
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    tasks = _tasks_by_executor(spec)
    for label, executor in executors.items():
        if "container" in executor:
            yield from _container(label, executor["container"])
        elif "importer" in executor:
            yield from _importer(label, executor["importer"], tasks.get(label, []))
        else:
            yield (
                f"the executor {label!r} is neither a container nor an importer, "
                "and others are not implemented"
            )
    for task in (task for tasks_of in tasks.values() for task in tasks_of):
        values = task.get("inputs", {}).get("parameters", {})
        size = len(
            json.dumps({n: v.get("runtimeValue", {}).get("constant") for n, v in values.items()}).encode()
        )
        if size > LARGEST_ARGUMENT - ROOM_FOR_ARTIFACTS:
            name = task.get("taskInfo", {}).get("name", "?")
            yield (
                f"the values given to {name!r} are {size:,} bytes together, and an argument of a container "
                f"is at most {LARGEST_ARGUMENT:,}; put the largest into a file"
            )


def _tasks_by_executor(spec: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for _, component in _dags(spec):
        for task in component["dag"].get("tasks", {}).values():
            of = spec.get("components", {}).get(task.get("componentRef", {}).get("name"), {})
            found.setdefault(of.get("executorLabel", ""), []).append(task)
    return found


def _container(label: str, container: Mapping[str, Any]) -> Iterator[str]:
    image = container.get("image", "")
    if not image.strip() or image != image.strip() or " " in image:
        yield f"the executor {label!r} has the image {image!r}; give it the name of one"
    if not container.get("command") and not container.get("args"):
        yield f"the executor {label!r} has no command"
    for argument in (*container.get("command", []), *container.get("args", [])):
        size = len(argument.encode("utf-8", "surrogatepass"))
        if size > LARGEST_ARGUMENT:
            yield (
                f"an argument of the executor {label!r} is {size:,} bytes, and one of a container is at most "
                f"{LARGEST_ARGUMENT:,}; it begins with {argument[:40]!r}. Put code into the image, and large "
                "values into files"
            )
    names = [each.get("name", "") for each in container.get("env", [])]
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield f"the executor {label!r} sets the variable {name!r}, which is not the name of one"
        elif names.count(name) > 1:
            yield f"the executor {label!r} sets the variable {name!r} more than once"
    for name, value in container.get("resources", {}).items():
        if name in ("cpuLimit", "memoryLimit", "cpuRequest", "memoryRequest") and not (
            isinstance(value, (int, float)) and value > 0
        ):
            yield f"the executor {label!r} has the {name} {value!r}, which is not above 0"
    if "lifecycle" in container:
        yield f"the executor {label!r} has a lifecycle, which Kubeflow Pipelines never calls"


def _importer(label: str, importer: Mapping[str, Any], tasks: list[Mapping[str, Any]]) -> Iterator[str]:
    uri = importer.get("artifactUri", {}).get("constant")
    if uri is not None:
        scheme = str(uri).partition("://")[0] if "://" in str(uri) else ""
        if scheme not in ARTIFACT_SCHEMES:
            yield (
                f"the importer {label!r} imports {str(uri)[:200]!r}; "
                f"it can from {', '.join(f'{each}://' for each in ARTIFACT_SCHEMES)}"
            )
    for name, value in importer.get("metadata", {}).items():
        if value is None:
            yield f"the importer {label!r} gives {name!r} no value, which the launcher refuses"
    for task in tasks:
        if task.get("triggerPolicy", {}).get("condition"):
            name = task.get("taskInfo", {}).get("name", "?")
            yield f"the importer {name!r} has a condition, which is not implemented; move it out of the Cond"


def _platform(spec: Mapping[str, Any], platform: Any) -> Iterator[str]:
    found = problems_in(
        platform, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {}}}}}, "platform document"
    )
    if found:
        yield from found
        return
    entries = (
        platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    )
    known = spec.get("deploymentSpec", {}).get("executors", {})
    for label, entry in entries.items():
        if label not in known:
            yield (
                f"the platform document has the executor {label!r}, which the pipeline has not; "
                f"it has {', '.join(known)}"
            )
        wrong = problems_in(entry, FIELDS, f"platform document, {label}")
        yield from wrong
        if not wrong:
            yield from _mounts(label, entry)


def _mounts(label: str, entry: Mapping[str, Any]) -> Iterator[str]:
    paths = [
        str(part.get("mountPath", ""))
        for parts in entry.values()
        if isinstance(parts, list)
        for part in parts
        if "mountPath" in part
    ]
    for path in paths:
        if not path.startswith("/"):
            yield f"platform document, {label}: something is mounted at {path!r}, not an absolute path"
        elif path.rstrip("/") in LAUNCHER_FOLDERS:
            yield f"platform document, {label}: {path} is the launcher's own; mount at another path"
        elif paths.count(path) > 1:
            yield f"platform document, {label}: more than one thing is mounted at {path}"


def _size(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> Iterator[str]:
    size = sum(len(json.dumps(part, separators=(",", ":")).encode()) for part in (spec, platform))
    size += WORKFLOW_PER_TASK * sum(len(component["dag"].get("tasks", {})) for _, component in _dags(spec))
    if size > LARGEST_WORKFLOW:
        yield (
            f"the workflow would be about {size:,} bytes, and Kubernetes takes {LARGEST_WORKFLOW:,}; divide "
            "the pipeline, or put code into the image and large values into files"
        )
