"""What the driver of Kubeflow Pipelines hands to a container, and when it takes earlier outputs instead.

Source: kubeflow/pipelines 2.17, backend/src/v2/driver and backend/src/v2/cacheutils; what it hands over was
compared with the inputs of a real run.
"""

import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlplatform.testing.kubeflow.errors import DriverError
from mlplatform.tfx_io.launcher_paths import local_path

LOGS = "executor-logs"
OUTPUT_FILE = "output_metadata.json"
_SESSION = json.dumps({"Provider": "s3", "Params": {"fromEnv": "true"}})


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact as the cluster's metadata has it.

    Attributes:
        name: Its id there.
        uri: Where it lies.
        metadata: Its properties.
    """

    name: str
    uri: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_input(self) -> dict[str, Any]:
        """Return what a task gets that reads it: without its type."""
        return {
            "name": self.name,
            "type": {"instanceSchema": ""},
            "uri": self.uri,
            **({"metadata": dict(self.metadata)} if self.metadata else {}),
        }


@dataclass(frozen=True)
class Outputs:
    """What a task made."""

    artifacts: Mapping[str, StoredArtifact] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scope:
    """What the tasks of a DAG can refer to.

    Attributes:
        run: The run's id.
        parameters: The parameters of the DAG.
        outputs: What its tasks have made, by task.
        states: How its tasks ended.
        errors: Why they failed.
    """

    run: str
    parameters: Mapping[str, Any]
    outputs: dict[str, Outputs] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def task_inputs(
    name: str, task: Mapping[str, Any], component: Mapping[str, Any], scope: Scope
) -> dict[str, Any]:
    """Return the inputs of a task as its executor gets them: `parameterValues`, `artifacts`.

    Raises:
        DriverError: Something that it needs is not there, or is of another type than it declares.
    """
    asked = task.get("inputs", {})
    declared = component.get("inputDefinitions", {}).get("parameters", {})
    values = {
        key: _typed(name, key, _parameter(name, given, scope), declared.get(key, {}))
        for key, given in asked.get("parameters", {}).items()
    }
    for key, about in declared.items():
        if key not in values and not about.get("isOptional") and "defaultValue" not in about:
            raise DriverError(
                name, f'neither value nor default value provided for non-optional parameter "{key}"'
            )
    artifacts = {}
    for key, given in asked.get("artifacts", {}).items():
        source = given["taskOutputArtifact"]
        made = scope.outputs.get(source["producerTask"], Outputs()).artifacts
        if source["outputArtifactKey"] not in made:
            raise DriverError(
                name,
                f'cannot find output artifact key "{source["outputArtifactKey"]}" in producer task '
                f'"{source["producerTask"]}"',
            )
        artifacts[key] = {"artifacts": [made[source["outputArtifactKey"]].as_input()]}
    return {
        **({"parameterValues": values} if values else {}),
        **({"artifacts": artifacts} if artifacts else {}),
    }


def _parameter(name: str, given: Mapping[str, Any], scope: Scope) -> Any:
    if "runtimeValue" in given:
        value = given["runtimeValue"]["constant"]
        return {"{{$.pipeline_job_uuid}}": scope.run, "{{$.pipeline_job_name}}": scope.run}.get(
            value if isinstance(value, str) else "", value
        )
    if "componentInputParameter" in given:
        asked = given["componentInputParameter"]
        if asked not in scope.parameters:
            raise DriverError(name, f"parent DAG does not have input parameter {asked}")
        return scope.parameters[asked]
    if "taskFinalStatus" in given:
        of = given["taskFinalStatus"]["producerTask"]
        status = {
            "state": scope.states.get(of, ""),
            "pipelineTaskName": of,
            "pipelineJobResourceName": scope.run,
        }
        failed = scope.errors.get(of)
        return {**status, "error": {"code": 13, "message": failed}} if failed else status
    source = given["taskOutputParameter"]
    made = scope.outputs.get(source["producerTask"], Outputs()).parameters
    if source["outputParameterKey"] not in made:
        raise DriverError(
            name,
            f'cannot find output parameter key "{source["outputParameterKey"]}" in producer task '
            f'"{source["producerTask"]}"',
        )
    return made[source["outputParameterKey"]]


def _typed(name: str, key: str, value: Any, declared: Mapping[str, Any]) -> Any:
    """Check a value, or make it the text that is declared."""
    kind = declared.get("parameterType", "STRING")
    if kind == "STRING":
        return value if isinstance(value, str) else as_text(value)
    kinds: dict[str, tuple[type, ...]] = {
        "NUMBER_INTEGER": (int, float),
        "NUMBER_DOUBLE": (int, float),
        "BOOLEAN": (bool,),
        "LIST": (list,),
        "STRUCT": (dict,),
        "TASK_FINAL_STATUS": (dict,),
    }
    if not isinstance(value, kinds.get(kind, (object,))) or (kind != "BOOLEAN" and isinstance(value, bool)):
        raise DriverError(name, f'input parameter "{key}" type mismatch: expect {kind}, got {value!r}')
    return value


def as_text(value: Any) -> str:
    """Return a value as the driver makes text of it: whole numbers have no decimal point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def task_outputs(
    component: Mapping[str, Any], place: str, *, publish_logs: bool, root: Path
) -> dict[str, Any]:
    """Return the outputs of a task as its executor gets them.

    Args:
        component: Its component.
        place: `<root>/<pipeline>/<run id>/<task>/<uuid>`.
        publish_logs: Whether the log is an output, as it is by default since 2.5.
        root: The root of the container's file system.
    """
    definitions = component.get("outputDefinitions", {})
    artifacts = {
        key: [
            {
                "name": key,
                "type": dict(about["artifactType"]),
                "uri": posixpath.join(place, key),
                **({"metadata": dict(about["metadata"])} if about.get("metadata") else {}),
            }
        ]
        for key, about in definitions.get("artifacts", {}).items()
    }
    if publish_logs:
        uri = posixpath.join(place, f"{LOGS}-0")
        artifacts[LOGS] = [{"name": LOGS, "type": {"schemaTitle": "system.Artifact"}, "uri": uri}]
    parameters = {
        key: {"outputFile": str(root / "tmp" / "kfp" / "outputs" / key)}
        for key in definitions.get("parameters", {})
    }
    return {
        **({"artifacts": {key: {"artifacts": some} for key, some in artifacts.items()}} if artifacts else {}),
        **({"parameters": parameters} if parameters else {}),
        "outputFile": str(local_path(posixpath.join(place, OUTPUT_FILE), root)),
    }


def stored_metadata(key: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an artifact with what the cluster adds when it records it."""
    return {**metadata, "display_name": key, "store_session_info": _SESSION}


def cache_key(inputs: Mapping[str, Any], component: Mapping[str, Any], container: Mapping[str, Any]) -> str:
    """Return what executions have in common that may take each other's outputs."""
    definitions = component.get("outputDefinitions", {})
    key = {
        "inputs": {
            name: [each["name"] for each in some["artifacts"]]
            for name, some in inputs.get("artifacts", {}).items()
        },
        "parameters": inputs.get("parameterValues", {}),
        "outputs": definitions,
        "image": container.get("image", ""),
        "command": [*container.get("command", ()), *container.get("args", ())],
        "env": container.get("env", []),
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def with_placeholders(words: Sequence[str], executor_input: Mapping[str, Any], root: Path) -> list[str]:
    """Return a command with its placeholders filled in."""
    found = {"{{$}}": json.dumps(executor_input)}
    for side in ("inputs", "outputs"):
        for key, some in executor_input[side].get("artifacts", {}).items():
            uri = some["artifacts"][0]["uri"]
            found[f"{{{{$.{side}.artifacts['{key}'].uri}}}}"] = uri
            found[f"{{{{$.{side}.artifacts['{key}'].path}}}}"] = str(local_path(uri, root) or uri)
    for key, value in executor_input["inputs"].get("parameterValues", {}).items():
        found[f"{{{{$.inputs.parameters['{key}']}}}}"] = as_text(value)
    for key, about in executor_input["outputs"].get("parameters", {}).items():
        found[f"{{{{$.outputs.parameters['{key}'].output_file}}}}"] = about["outputFile"]
    filled = []
    for word in words:
        for placeholder, value in found.items():
            word = word.replace(placeholder, value)
        filled.append(word)
    return filled
