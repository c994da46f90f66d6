"""The key of a node's result: what it took, by content, and the code that it ran.

The key is the digest of its parts, and the parts are kept, so that a hit and a miss can both be explained.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlplatform.orchestration.local.code_closure import closure_of, modules_named_in
from mlplatform.orchestration.local.digests import Digests, is_local, text_digest
from mlplatform.orchestration.local.key_changes import is_digest

KEY_VERSION = "1"
# What TFX itself notes on artifacts, of the execution rather than of the content.
_OF_THE_EXECUTION = frozenset(
    {
        "__is_null__", "baseline_model_id", "baseline_model_uri", "current_model", "current_model_id",
        "is_external", "name", "pipeline_name", "producer_component", "pushed_destination", "pushed_version",
        "run_id", "state", "tfx_version",
    }
)  # fmt: skip
# ExampleGen's own account of its input, by modification times; its content is read instead.
_BY_TIME = frozenset({"input_fingerprint"})
_DATA_FOLDERS = frozenset({"input_base", "serving_logs"})


@dataclass
class KeyParts:
    """The parts of a key, and where they were read, so that they can be read again without TFX.

    Attributes:
        parts: Name to value: `input examples`, `parameter steps`, `code /a/trainer.py`, `library tfx` ...
        files: Digest per source file that the parts depend on.
        paths: Digest per file or folder of data, outside the pipeline's artifacts, that they depend on.
    """

    parts: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The key, 32 hexadecimal characters."""
        return text_digest(json.dumps(self.parts, sort_keys=True))


@dataclass(frozen=True)
class ArtifactFacts:
    """An artifact as far as it matters to who reads it."""

    type: str
    uri: str
    id: int
    properties: Mapping[str, Any]


def make_key(
    *,
    pipeline: str,
    node: str,
    component: str,
    executor: str,
    inputs: Mapping[str, Sequence[ArtifactFacts]],
    outputs: Mapping[str, Sequence[ArtifactFacts]],
    parameters: Mapping[str, Any],
    digests: Digests,
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
    """
    made = KeyParts()
    made.parts.update(
        {
            "key version": KEY_VERSION,
            "pipeline": pipeline,
            "node": node,
            "component": component,
            "executor": executor,
        }
    )
    for name, artifacts in sorted(inputs.items()):
        made.parts[f"input {name}"] = text_digest("\n".join(artifact_digest(a, digests) for a in artifacts))
    for name, artifacts in sorted(outputs.items()):
        made.parts[f"output {name}"] = ", ".join(_named(a) for a in artifacts)
    sources: list[Path] = []
    modules = [executor.rpartition(".")[0]] if executor else []
    for name, value in sorted(parameters.items()):
        _add_parameter(made, name, value, digests, sources, modules)
    code = closure_of(modules, sources)
    made.files.update(code.files)
    made.parts.update({f"code {path}": digest for path, digest in code.files.items()})
    made.parts.update({f"library {name}": version for name, version in code.libraries.items()})
    return made


def artifact_digest(artifact: ArtifactFacts, digests: Digests) -> str:
    """Return the digest of an artifact: its type, its properties and what lies at its place.

    What lies elsewhere than on this machine is told by its place and id alone.
    """
    content = digests.of(artifact.uri) if is_local(artifact.uri) else f"{artifact.uri}#{artifact.id}"
    return text_digest(json.dumps([_named(artifact), content]))


def _add_parameter(
    made: KeyParts, name: str, value: Any, digests: Digests, sources: list[Path], modules: list[str]
) -> None:
    if name in _BY_TIME and is_digest(made.parts.get("parameter input_base", "")):  # its content was read
        return
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    path = Path(text) if isinstance(value, str) and text.startswith("/") else None
    if path is not None and path.is_file():
        if path.suffix == ".py":
            sources.append(path)
            made.parts[f"parameter {name}"] = path.name
        else:
            made.parts[f"parameter {name}"] = made.paths[text] = digests.of(text)
        return
    if path is not None and name in _DATA_FOLDERS and path.is_dir():
        made.parts[f"parameter {name}"] = made.paths[text] = digests.of(text)
        return
    made.parts[f"parameter {name}"] = text
    modules.extend(modules_named_in(_parsed(text)))


def _parsed(text: str) -> object:
    if text[:1] in '{["':
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _named(artifact: ArtifactFacts) -> str:
    properties = {k: v for k, v in artifact.properties.items() if k not in _OF_THE_EXECUTION | _BY_TIME}
    return f"{artifact.type} {json.dumps(properties, sort_keys=True, default=str)}"
