"""The key of a node's result: what it took, by content, and the code that it ran.

The key is the digest of its parts, and the parts are kept, so that a hit and a miss can both be explained.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlplatform.fingerprints.code_closure import closure_of, modules_named_in
from mlplatform.fingerprints.digests import UNSEEN, Digests, text_digest
from mlplatform.orchestration.local.cache.key_changes import is_digest
from mlplatform.orchestration.local.cache.surroundings import is_volatile
from mlplatform.roles import FINGERPRINT, READ, Role
from mlplatform.storage.urls import is_local

KEY_VERSION = "3"
# What TFX itself notes among an artifact's custom properties, of the execution rather than of the content.
_OF_THE_EXECUTION = frozenset(
    {
        "__is_null__",
        "is_external",
        "name",
        "pipeline_name",
        "producer_component",
        "run_id",
        "state",
        "tfx_version",
    }
)
_OF_A_VERDICT = frozenset({"baseline_model_id", "baseline_model_uri", "current_model", "current_model_id"})
_OF_A_PUSH = frozenset({"pushed_destination", "pushed_version"})
_OF_TYPE = {
    # ExampleGen's own account of its input, by modification times; its content is read instead.
    "Examples": frozenset({"input_fingerprint"}),
    "ModelBlessing": _OF_A_VERDICT,
    "InfraBlessing": _OF_A_VERDICT,
    "PushedModel": _OF_A_PUSH,
}


@dataclass
class KeyParts:
    """The parts of a key, and where they were read, so that they can be read again without TFX.

    Attributes:
        parts: Name to value: `input examples`, `parameter steps`, `code /a/trainer.py`, `library tfx` ...
        files: Digest per source file that the parts depend on.
        paths: Digest per file or folder of data, outside the pipeline's artifacts, that they depend on.
        folders: Digest per further folder that a parameter names. They are no part of the key, since a node
            may write there; the result of one that does not depends on them.
        is_open: Code imports by names that it computes: what else is imported then belongs to the result.
        uncertain: Why a key does not identify the result; empty where one does.
    """

    parts: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    is_open: bool = False
    uncertain: str = ""

    @property
    def key(self) -> str:
        """The key, 32 hexadecimal characters."""
        return text_digest(json.dumps(self.parts, sort_keys=True))


@dataclass(frozen=True)
class KeyedArtifact:
    """An artifact as far as it matters to who reads it.

    Attributes:
        type: Name of its type.
        uri: Where it lies.
        id: Its id in ML Metadata.
        properties: Those that its type declares.
        custom_properties: All others.
    """

    type: str
    uri: str
    id: int
    properties: Mapping[str, Any] = field(default_factory=dict)
    custom_properties: Mapping[str, Any] = field(default_factory=dict)


def make_key(
    *,
    pipeline: str,
    node: str,
    component: str,
    executor: str,
    inputs: Mapping[str, Sequence[KeyedArtifact]],
    outputs: Mapping[str, Sequence[KeyedArtifact]],
    parameters: Mapping[str, Any],
    digests: Digests,
    roles: Mapping[str, Role] | None = None,
    command: str = "",
    written: Sequence[str] = (),
) -> KeyParts:
    """Make the key of a node's result.

    Args:
        pipeline: The pipeline's name.
        node: The node's id.
        component: Name of the component's type.
        executor: Import path of the executor's class.
        inputs: Resolved artifacts per input.
        outputs: Artifacts to be, per output; their places do not count.
        parameters: Execution properties, resolved.
        digests: Reads contents.
        roles: Declared roles of parameters. Of all others, a file that the value names is data by content,
            and a folder is noted beside the key.
        command: What runs instead of a Python class: a container's image, command and arguments.
        written: Places that the run writes to; a folder around one of them is not data.
    """
    made = KeyParts()
    made.parts.update(
        {
            "key version": KEY_VERSION,
            "pipeline": pipeline,
            "node": node,
            "component": component,
            "executor": executor or command,
        }
    )
    for name, artifacts in sorted(inputs.items()):
        made.parts[f"input {name}"] = text_digest("\n".join(artifact_digest(a, digests) for a in artifacts))
    for name, artifacts in sorted(outputs.items()):
        made.parts[f"output {name}"] = ", ".join(_named(a) for a in artifacts)
    sources: list[Path] = []
    named: list[str] = []
    written = [*written, os.path.expanduser("~")]  # noqa: PTH111 - never fails
    roles = roles or {}
    for name, value in sorted(parameters.items()):
        _add_parameter(made, name, value, roles.get(name), digests, sources, named, written)
    _leave_out_fingerprints(made, parameters, roles)
    modules = [executor.rpartition(".")[0]] if executor else []
    code = closure_of(modules, sources, named)
    made.files.update(code.files)
    made.is_open = code.is_open
    made.parts.update({f"code {path}": digest for path, digest in code.files.items()})
    made.parts.update({f"library {name}": version for name, version in code.libraries.items()})
    for name in code.variables:
        if not is_volatile(name):  # secrets are kept in variables
            made.parts[f"variable {name}"] = text_digest(os.environ[name]) if name in os.environ else ""
    if code.missing:
        made.uncertain = f"the code of {', '.join(code.missing)} is not to be found"
    elif code.edited:
        made.uncertain = f"{', '.join(code.edited)} was edited after this run had loaded it"
    if made.uncertain:  # a key that nothing else has
        made.parts["uncertain"] = f"{made.uncertain} ({secrets.token_hex(8)})"
    return made


def artifact_digest(artifact: KeyedArtifact, digests: Digests) -> str:
    """Return the digest of an artifact: its type, its properties and what lies at its place.

    What lies elsewhere than on this machine is identified by its place and id alone.
    """
    content = digests.of(artifact.uri) if is_local(artifact.uri) else f"{artifact.uri}#{artifact.id}"
    return text_digest(json.dumps([_named(artifact), content]))


def _add_parameter(
    made: KeyParts,
    name: str,
    value: Any,
    role: Role | None,
    digests: Digests,
    sources: list[Path],
    named: list[str],
    written: Sequence[str],
) -> None:
    """Add a parameter: its value, and the content of the files and folders that it names."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    part = f"parameter {name}"
    made.parts[part] = text
    parsed = _parsed(text)
    named.extend(modules_named_in(parsed))
    for place in _texts_in(parsed) if role in (None, READ) else ():
        if not is_local(place):
            if role == READ and (content := digests.of(place)) != UNSEEN:
                made.paths[place] = content  # that nothing is there yet counts, too
                if content:
                    made.parts[part if place == text else f"{part}: {place}"] = content
            continue
        path = os.path.abspath(place)  # noqa: PTH100 - as it is written, links and all
        if os.path.isfile(path):  # noqa: PTH113 - False for what cannot be a path
            if path.endswith(".py"):
                sources.append(Path(path))
                content = Path(path).name
            else:
                content = made.paths[path] = digests.of(path)
            made.parts[part if place == text else f"{part}: {place}"] = content
        elif role == READ:
            if os.path.isdir(path):  # noqa: PTH112
                content = made.paths[path] = digests.of(path)
                made.parts[part if place == text else f"{part}: {place}"] = content
            else:
                made.paths[path] = ""  # that nothing is there yet counts, too
        elif (
            (place == text or "/" in place)  # `train` alone is rather the name of a split
            and place.strip("./")
            and os.path.isdir(path)  # noqa: PTH112
            and not _is_around(path, written)
        ):
            made.folders[path] = digests.of(path)


def _leave_out_fingerprints(made: KeyParts, parameters: Mapping[str, Any], roles: Mapping[str, Role]) -> None:
    """Leave the fingerprints out where the content of all that the parameters name was read itself."""
    read = [f"parameter {name}" for name, value in parameters.items() if value and roles.get(name) == READ]
    if read and all(is_digest(made.parts[part]) for part in read):
        for name in parameters:
            if roles.get(name) == FINGERPRINT:
                made.parts.pop(f"parameter {name}")


def _texts_in(value: object) -> Iterator[str]:
    """Yield the strings within a parsed JSON value that may be paths."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _texts_in(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts_in(entry)


def _is_around(folder: str, places: Sequence[str]) -> bool:
    real = Path(folder).resolve()
    return any(Path(place).resolve().is_relative_to(real) for place in places)


def _parsed(text: str) -> object:
    if text[:1] in '{["':
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _named(artifact: KeyedArtifact) -> str:
    left_out = _OF_TYPE.get(artifact.type, frozenset())
    own = {k: v for k, v in artifact.properties.items() if k not in left_out}
    custom = {k: v for k, v in artifact.custom_properties.items() if k not in left_out | _OF_THE_EXECUTION}
    return f"{artifact.type} {json.dumps([own, custom], sort_keys=True, default=str)}"
