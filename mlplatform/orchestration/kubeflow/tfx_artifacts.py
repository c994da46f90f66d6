"""Artifacts of a task as TFX's objects, and back: what TFX's own entry point does, without its imports.

That one takes the type from each artifact, where open-source Kubeflow leaves it empty, and imports the
Evaluator, and with it TensorFlow, for every executor. Source: `kubeflow_v2_entrypoint_utils.py`, TFX 1.16 and
1.21.
"""

import hashlib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from tfx.types import artifact as artifact_types
from tfx.types import standard_artifacts

from mlplatform.orchestration.kubeflow.entrypoint_errors import UnknownArtifactTypeError
from mlplatform.orchestration.kubeflow.light_tfx import absent
from mlplatform.orchestration.kubeflow.task import GivenArtifact
from mlplatform.tfx_io.launcher_paths import LocalCopies

_CUSTOM = artifact_types.CUSTOM_PROPERTIES_PREFIX
_KINDS = artifact_types.PropertyType
_IDS = 1 << 63
Artifacts = dict[str, list[Any]]


def artifact_class(title: str) -> type:
    """Return the class of an artifact type by its title: `tfx.Model`, or the import path `module.Class`.

    Raises:
        UnknownArtifactTypeError: It cannot be imported here.
    """
    module, _, name = title.rpartition(".")
    try:
        if module != "tfx":
            return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
        if hasattr(standard_artifacts, name):
            return getattr(standard_artifacts, name)  # type: ignore[no-any-return]
        simple = importlib.import_module("tfx.types.experimental.simple_artifacts")
        return getattr(simple, name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownArtifactTypeError(title, str(error)) from error


def tfx_artifacts(given: Mapping[str, Iterable[GivenArtifact]], uris: Mapping[str, str]) -> Artifacts:
    """Return artifacts as TFX has them.

    Args:
        given: The artifacts by key.
        uris: The local path of each URI that has one.
    """
    with absent("setuptools"):  # each artifact imports it, only to know whether all of TFX is installed
        return {
            key: [_tfx_artifact(one, uris.get(one.uri, one.uri)) for one in some]
            for key, some in given.items()
        }


def artifact_id(name: str) -> int:
    """Return the number that stands for Kubeflow's name of an artifact in TFX."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % _IDS


def facts_of(artifact: Any, copies: LocalCopies, names: Mapping[int, str]) -> dict[str, Any]:
    """Return the URI and the metadata of an artifact as Kubeflow takes them.

    Args:
        artifact: The artifact.
        copies: Where local paths come from.
        names: Kubeflow's names of the artifacts that were given, by `artifact_id`: metadata has them instead.
    """
    message = artifact.mlmd_artifact
    declared = artifact.artifact_type.properties
    metadata = {name: _value(value) for name, value in message.properties.items()}
    for name, value in message.custom_properties.items():
        found = _value(value)
        metadata[_CUSTOM + name if name in declared else name] = (
            names.get(found, found) if isinstance(found, int) else found
        )
    return {"uri": copies.uri_of(artifact.uri), "metadata": copies.with_uris(metadata)}


def _tfx_artifact(given: GivenArtifact, uri: str) -> Any:
    artifact = artifact_class(given.type)()
    artifact.uri = uri
    if given.name:
        artifact.id = artifact_id(given.name)
    declared = type(artifact).PROPERTIES or {}
    for name, value in given.metadata.items():
        kind = declared[name].type if name in declared else None
        if kind is _KINDS.INT and isinstance(value, (int, float)):
            setattr(artifact, name, int(value))
        elif kind is _KINDS.FLOAT and isinstance(value, (int, float)):
            setattr(artifact, name, float(value))
        elif (kind is _KINDS.STRING and isinstance(value, str)) or kind is _KINDS.JSON_VALUE:
            setattr(artifact, name, value)
        else:
            own = name.removeprefix(_CUSTOM)
            is_number = isinstance(value, int) and not isinstance(value, bool)
            artifact.set_json_value_custom_property(
                own if own in declared else name, float(value) if is_number else value
            )
    _ = artifact.mlmd_artifact  # which takes over the properties that were set
    return artifact


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "struct_value":
        from google.protobuf import json_format

        found = json_format.MessageToDict(value.struct_value)
        return found.get("__value__", found)
    return getattr(value, kind)
