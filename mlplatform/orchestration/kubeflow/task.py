"""A task of a Kubeflow run as its container gets it: nothing here needs TFX."""

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlplatform.orchestration.kubeflow.entrypoint_errors import InvocationError
from mlplatform.storage.urls import parent

UNRESOLVED = "unresolved"  # metadata of what a resolver did not find
RESOLVED = "resolved"  # metadata of what a resolver found: all artifacts, as JSON
RUN_ID = "KFP_RUN_ID"  # the environment's name for it, which components read
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TITLE = re.compile(r"title: ([A-Za-z_][\w.]*)(\n|\Z)")
_OF_THE_SYSTEM = "system."  # types of artifacts that the launcher adds
_OF_THE_DRIVER = frozenset({"display_name", "store_session_info"})  # metadata that it adds


@dataclass(frozen=True)
class GivenArtifact:
    """An artifact that a task is to read or write.

    Attributes:
        type: Title of its type, such as `tfx.Model`.
        uri: Where it lies.
        name: Its id in Kubeflow's metadata, a text.
        metadata: Its properties.
    """

    type: str
    uri: str
    name: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def type_name(self) -> str:
        """The name of the type in TFX, such as `Model`."""
        return self.type.removeprefix("tfx.")


@dataclass(frozen=True)
class PodTask:
    """A task.

    Attributes:
        node: What the compiler says of it beside TFX: `id`, `pipeline`, `type`, `root` and so on.
        executor: Class path of its executor; empty for a resolver.
        resolver: What a resolver looks up; None for a component.
        inputs: The artifacts to read.
        outputs: The artifacts to write.
        parameters: The execution properties, as Python values.
        output_parameters: Names of the outputs whose values are wanted.
        unresolved: Inputs that a resolver before this one did not find.
        output_file: Where the launcher wants the facts of the outputs.
        run: Id of the run; empty where nothing says it.
        beam_arguments: Flags of Beam.
    """

    node: Mapping[str, Any]
    executor: str
    resolver: Mapping[str, Any] | None
    inputs: dict[str, list[GivenArtifact]]
    outputs: dict[str, list[GivenArtifact]]
    parameters: dict[str, Any]
    output_parameters: tuple[str, ...]
    unresolved: tuple[str, ...]
    output_file: str
    run: str
    beam_arguments: tuple[str, ...]

    @property
    def id(self) -> str:
        """The node's id in the TFX pipeline."""
        return str(self.node.get("id", ""))

    @property
    def place(self) -> str:
        """The URI of the folder that its outputs lie in; empty where it has none."""
        return next((parent(one.uri) for some in self.outputs.values() for one in some), "")


def parse_task(arguments: Sequence[str]) -> PodTask:
    """Return the task that a container's arguments describe.

    Raises:
        InvocationError: They are not what the compiler writes.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False, add_help=False)
    parser.add_argument("--executor_class_path", default="")
    parser.add_argument("--resolver", type=json.loads)
    parser.add_argument("--json_serialized_invocation_args", type=json.loads, required=True)
    parser.add_argument("--json_serialized_inputs_spec_args", type=json.loads, default={})
    parser.add_argument("--node", type=json.loads, default={})
    parser.add_argument("--data_fingerprint")  # makes another key of Kubeflow's cache, and no more
    try:
        known, beam_arguments = parser.parse_known_args(list(arguments))
    except (argparse.ArgumentError, SystemExit) as error:
        raise InvocationError(f"its arguments cannot be read: {error}") from error
    if not known.executor_class_path and known.resolver is None:
        raise InvocationError("its arguments name neither an executor nor a resolver")
    given = known.json_serialized_invocation_args
    inputs_of, outputs_of = given.get("inputs", {}), given.get("outputs", {})
    specification = known.json_serialized_inputs_spec_args
    types = {
        key: title_of(about.get("artifactType", {}))
        for key, about in specification.get("artifacts", {}).items()
    }
    inputs, unresolved = _inputs(inputs_of.get("artifacts", {}), types)
    outputs = {
        key: [_given(each, title_of(each.get("type", {}))) for each in some.get("artifacts", [])]
        for key, some in outputs_of.get("artifacts", {}).items()
    }
    logs = {key for key, some in outputs.items() if any(a.type.startswith(_OF_THE_SYSTEM) for a in some)}
    uris = [one.uri for some in outputs.values() for one in some]
    return PodTask(
        node=known.node,
        executor=known.executor_class_path,
        resolver=known.resolver,
        inputs=inputs,
        outputs={key: some for key, some in outputs.items() if key not in logs},
        parameters=_parameters(inputs_of.get("parameterValues", {}), specification, known.node),
        output_parameters=tuple(outputs_of.get("parameters", {})),
        unresolved=unresolved,
        output_file=outputs_of.get("outputFile", ""),
        run=_run_of(uris, known.node) or os.environ.get(RUN_ID, ""),
        beam_arguments=tuple(beam_arguments),
    )


def title_of(kind: Mapping[str, Any]) -> str:
    """Return the title of a type as specifications hold it; empty where it has none."""
    if schema := kind.get("instanceSchema"):
        if (plain := _TITLE.match(schema)) is not None:  # as TFX writes it
            return plain[1]
        import yaml

        return str((yaml.safe_load(schema) or {}).get("title", ""))
    return str(kind.get("schemaTitle", ""))


def output_uris(arguments: Sequence[str]) -> list[str]:
    """Return the URIs of all outputs, those that the launcher adds included; none where there is no input."""
    words = list(arguments)
    try:
        given = json.loads(words[words.index("--json_serialized_invocation_args") + 1])
    except (ValueError, IndexError):
        return []
    artifacts = given.get("outputs", {}).get("artifacts", {})
    return [each["uri"] for some in artifacts.values() for each in some.get("artifacts", [])]


def _inputs(
    artifacts: Mapping[str, Any], types: Mapping[str, str]
) -> tuple[dict[str, list[GivenArtifact]], tuple[str, ...]]:
    """Return the inputs with the types that the driver leaves out, and what resolvers did not find."""
    found: dict[str, list[GivenArtifact]] = {}
    unresolved = []
    for key, some in artifacts.items():
        given = [_given(each, types.get(key) or title_of(each.get("type", {}))) for each in some["artifacts"]]
        if any(one.metadata.get(UNRESOLVED) for one in given):
            unresolved.append(key)
        elif not key.startswith("_"):  # those are there for a condition alone
            found[key] = [one for each in given for one in _expanded(each)]
    return found, tuple(unresolved)


def _given(artifact: Mapping[str, Any], title: str) -> GivenArtifact:
    metadata = {k: v for k, v in artifact.get("metadata", {}).items() if k not in _OF_THE_DRIVER}
    return GivenArtifact(title, artifact.get("uri", ""), artifact.get("name", ""), metadata)


def _expanded(artifact: GivenArtifact) -> list[GivenArtifact]:
    """Return what a resolver found, which its own output only stands for; other artifacts as they are."""
    every = artifact.metadata.get(RESOLVED)
    if not every:
        return [artifact]
    return [
        GivenArtifact(artifact.type, each["uri"], each.get("name", ""), dict(each["metadata"]))
        for each in json.loads(every)
    ]


def _parameters(
    values: Mapping[str, Any], specification: Mapping[str, Any], node: Mapping[str, Any]
) -> dict[str, Any]:
    declared = specification.get("parameters", {})
    as_json = set(node.get("json", ())) if node.get("is_function") else set()
    booleans = set(node.get("booleans", ()))
    found: dict[str, Any] = {}
    for key, value in values.items():
        kind = declared.get(key, {}).get("parameterType", "")
        if key in booleans:
            found[key] = bool(value)
        elif key in as_json:
            found[key] = json.loads(value) if isinstance(value, str) else value
        elif isinstance(value, (dict, list)):  # such as the final status, which components take as text
            found[key] = json.dumps(value)
        elif kind == "NUMBER_INTEGER" and isinstance(value, float):
            found[key] = int(value)
        elif kind == "NUMBER_DOUBLE" and isinstance(value, int):
            found[key] = float(value)
        else:
            found[key] = value
    return found


def _run_of(uris: Sequence[str], node: Mapping[str, Any]) -> str:
    """Return the run's id out of URIs `<root>/<pipeline>/<run id>/<task>/[<uuid>/]<key>`, or nothing."""
    pipeline = str(node.get("pipeline", ""))
    for uri in uris:
        parts = uri.split("/")[:-1]
        above = parts[:-1] if parts and _UUID.fullmatch(parts[-1]) else parts
        if above[-3:-2] in ([pipeline], [pipeline.replace("_", "-")]):
            return above[-2]
    return ""
