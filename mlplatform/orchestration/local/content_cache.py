"""The cache by content, put where TFX's launcher asks its own cache."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.portable import cache_utils
from tfx.orchestration.portable.mlmd import context_lib

from mlplatform.orchestration.local.cache_key import (
    ArtifactFacts,
    KeyParts,
    artifact_digest,
    make_key,
)
from mlplatform.orchestration.local.digests import Digests
from mlplatform.orchestration.local.key_changes import changes_between, describe_changes
from mlplatform.orchestration.local.records import NodeDetails, RunFolder, write_json


@dataclass
class ContentCache:
    """Stands in for `tfx.orchestration.portable.cache_utils` in a node's process.

    Attributes:
        node: The node's id.
        executor: Import path of its executor's class.
        is_cached: Earlier results may be taken.
        is_forced: The caller wants it to run.
        memory: Folder of digests and results, `<root>/cache/nodes`.
        run: The run's records.
        previous: The run whose record of this node is compared, None where there is none.
    """

    node: str
    executor: str
    is_cached: bool
    is_forced: bool
    memory: Path
    run: RunFolder
    previous: RunFolder | None

    def __post_init__(self) -> None:
        self.digests = Digests(self.memory / "digests")
        self._made: KeyParts | None = None
        self._is_changed = False
        self._hit = False

    def get_cache_context(
        self,
        metadata_handle: Any,
        pipeline_node: Any,
        pipeline_info: Any,
        executor_spec: Any = None,
        input_artifacts: Mapping[str, Sequence[Any]] | None = None,
        output_artifacts: Mapping[str, Sequence[Any]] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> metadata_store_pb2.Context:
        """Register the context whose name is our key, as TFX does with its own key."""
        self._made = make_key(
            pipeline=pipeline_info.id,
            node=self.node,
            component=pipeline_node.node_info.type.name,
            executor=self.executor,
            inputs=_all_facts(input_artifacts),
            outputs=_all_facts(output_artifacts),
            parameters=parameters or {},
            digests=self.digests,
        )
        return context_lib.register_context_if_not_exists(
            metadata_handle=metadata_handle,
            context_type_name=context_lib.CONTEXT_TYPE_EXECUTION_CACHE,
            context_name=self._made.key,
        )

    def get_cached_outputs(
        self, metadata_handle: Any, cache_context: metadata_store_pb2.Context
    ) -> dict[str, list[Any]] | None:
        """Return the outputs of the newest earlier execution that are still there, as they were."""
        found = cache_utils.get_cached_outputs(metadata_handle=metadata_handle, cache_context=cache_context)
        result = self._result(cache_context.name)
        if found is None:
            self._is_changed = bool(result)
            return None
        for name, artifacts in found.items():
            digests = [
                artifact_digest(artifact_facts(a.mlmd_artifact, a.type_name), self.digests) for a in artifacts
            ]
            if result and result["outputs"].get(name, digests) != digests:
                self._is_changed = True
                return None
        self._hit = True
        return dict(found)

    def finish(self, outputs: Mapping[str, Sequence[ArtifactFacts]] | None) -> str:
        """Write down the decision and, of a node that ran, the result; return the reason in one line.

        Args:
            outputs: What the node gave; None where it failed.
        """
        details = self._details()
        self.run.write_details(details)
        if outputs is not None and details.key and not self._hit:
            digests = {
                name: [artifact_digest(a, self.digests) for a in found] for name, found in outputs.items()
            }
            note = self.memory / "results" / f"{details.key}.json"
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {"run": self.run.path.name, "node": self.node, "outputs": digests})
        return details.why

    def _details(self) -> NodeDetails:
        if self._made is None:
            return NodeDetails(self.node)
        made = self._made
        details = NodeDetails(self.node, key=made.key, parts=made.parts, files=made.files, paths=made.paths)
        earlier = self.previous.read_details(self.node) if self.previous else None
        if earlier is not None and self.previous is not None:
            details.compared_with = self.previous.path.name
            details.changes = changes_between(earlier.parts, details.parts)
        if self._hit:
            details.decision = "hit"
            details.why = (
                f"same inputs, code and libraries as in run {self._result(details.key).get('run', '?')}"
            )
        elif self.is_forced:
            details.decision, details.why = "forced", "forced"
        elif not self.is_cached:
            details.decision, details.why = "off", "the pipeline does not cache it"
        elif self._is_changed:
            details.decision, details.why = "gone", "its earlier outputs are gone or were changed"
        elif earlier is None:
            details.decision, details.why = "first", "first run of this node"
        elif details.changes:
            details.decision, details.why = "changed", describe_changes(details.changes)
        else:
            details.decision, details.why = "gone", f"it did not finish in run {details.compared_with}"
        return details

    def _result(self, key: str) -> dict[str, Any]:
        try:
            result: dict[str, Any] = json.loads((self.memory / "results" / f"{key}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return result


def artifact_facts(artifact: metadata_store_pb2.Artifact, type_name: str) -> ArtifactFacts:
    """Return an ML Metadata artifact as facts."""
    properties = {**artifact.properties, **artifact.custom_properties}
    values = {
        name: getattr(value, value.WhichOneof("value") or "string_value")
        for name, value in properties.items()
    }
    return ArtifactFacts(type_name, artifact.uri, artifact.id, values)


def _all_facts(artifacts: Mapping[str, Sequence[Any]] | None) -> dict[str, list[ArtifactFacts]]:
    return {
        name: [artifact_facts(artifact.mlmd_artifact, artifact.type_name) for artifact in found]
        for name, found in (artifacts or {}).items()
    }
