"""The cache by content, put where TFX's launcher asks its own cache.

What a result depends on beyond its key, and how its outputs were, is kept with the execution that made it, in
one custom property: it is published with the execution in one step, and is there as long as the execution is.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.portable import launcher, outputs_utils
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.orchestration.portable.mlmd import context_lib, execution_lib
from tfx.proto.orchestration import execution_result_pb2, pipeline_pb2
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import PushedModel

from mlplatform.fingerprints.digests import Digests, digest_or_empty
from mlplatform.fingerprints.imported import imported_files, is_edited
from mlplatform.fingerprints.libraries import is_ours
from mlplatform.orchestration.local.cache.cache_key import KeyedArtifact, KeyParts, make_key
from mlplatform.orchestration.local.cache.key_changes import changes_between, describe_changes
from mlplatform.orchestration.local.cache.pushed import versions_digest
from mlplatform.orchestration.local.cache.writes import Writes
from mlplatform.orchestration.local.records import NodeDetails, RunFolder
from mlplatform.roles import Role
from mlplatform.storage.urls import parent

RESULT_PROPERTY = "mlplatform_result"
Check = Callable[[ExecutionInfo, execution_result_pb2.ExecutorOutput], None]  # raises


@dataclass(frozen=True)
class Result:
    """What is known of a result besides its key.

    Attributes:
        run: The run that made it.
        outputs: Digest of the content at each output's place.
        pushed: Digest of what was pushed, at the place that it was pushed to.
        beside: Digest of the versions in the folder around that place.
        folders: Digest of each folder that a parameter names and that the node itself did not change.
        code: Digest of the user's files that were imported though no import statement said so.
        doubts: What changed while it was made; it is never taken.
    """

    run: str
    outputs: dict[str, str] = field(default_factory=dict)
    pushed: dict[str, str] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


class CachingLauncher(launcher.Launcher):
    """TFX's launcher, whose cache is ours; what an executor left is checked before it is published."""

    def __init__(self, cache: "ContentCache", check: Check | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._cache, self._check = cache, check
        launcher.cache_utils = cache

    def _run_executor(self, execution_info: ExecutionInfo) -> execution_result_pb2.ExecutorOutput:
        output = super()._run_executor(execution_info)
        if self._check is None:
            return output
        try:
            self._check(execution_info, output)
        except BaseException:
            outputs_utils.remove_output_dirs(execution_info.output_dict)
            raise
        return output

    def _publish_successful_execution(
        self,
        execution_id: int,
        contexts: list[metadata_store_pb2.Context],
        output_dict: Mapping[str, Sequence[Any]],
        executor_output: execution_result_pb2.ExecutorOutput,
    ) -> None:
        made = self._cache.result_of(output_dict, executor_output)
        executor_output.execution_properties[RESULT_PROPERTY].string_value = json.dumps(asdict(made))
        super()._publish_successful_execution(execution_id, contexts, output_dict, executor_output)


@dataclass
class ContentCache:
    """Stands in for `tfx.orchestration.portable.cache_utils` in a node's process.

    Attributes:
        node: The node's id.
        executor: Import path of its executor's class.
        is_cached: Earlier results may be taken.
        is_forced: The caller wants it to run.
        roles: The declared roles of its parameters.
        memory: Folder of digests, `<root>/cache/nodes/digests`.
        run: The run's records.
        previous: The run whose record of this node is compared, None where there is none.
    """

    node: str
    executor: str
    is_cached: bool
    is_forced: bool
    roles: Mapping[str, Role]
    memory: Path
    run: RunFolder
    previous: RunFolder | None

    def __post_init__(self) -> None:
        self.digests = Digests(self.memory)
        self.is_hit = False
        self._made: KeyParts | None = None
        self._compiled: pipeline_pb2.PipelineNode | None = None
        self._result: Result | None = None
        self._inputs: dict[str, str] = {}
        self._refused = ""
        self._writes = Writes(())
        self._imported_before = imported_files().keys()

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
        inputs, outputs = _all_facts(input_artifacts), _all_facts(output_artifacts)
        with metadata_handle.released():
            self._inputs = self._contents(a.uri for found in inputs.values() for a in found)
            self._made = make_key(
                pipeline=pipeline_info.id,
                node=self.node,
                component=pipeline_node.node_info.type.name,
                executor=self.executor,
                inputs=inputs,
                outputs=outputs,
                parameters=parameters or {},
                roles=self.roles,
                digests=self.digests,
                command="" if self.executor else " ".join(str(executor_spec).split()),
                written=[str(self.run.path), *(a.uri for found in outputs.values() for a in found)],
            )
        self._compiled, self._writes = pipeline_node, Writes(self._made.folders)
        return context_lib.register_context_if_not_exists(
            metadata_handle=metadata_handle,
            context_type_name=context_lib.CONTEXT_TYPE_EXECUTION_CACHE,
            context_name=self._made.key,
        )

    def get_cached_outputs(
        self, metadata_handle: Any, cache_context: metadata_store_pb2.Context
    ) -> dict[str, list[Any]] | None:
        """Return the outputs of the newest earlier execution that everything is still as it was for."""
        store = metadata_handle.store
        found = [e for e in store.get_executions_by_context(cache_context.id) if _is_successful(e)]
        if found and self._pushes() and not self._is_newest_of_node(store, {e.id for e in found}):
            self._refused = "something else was pushed, or tried, since it pushed this"
            return None
        for execution in execution_lib.sort_executions_newest_to_oldest(found):
            result = _read_result(execution)
            if result is None or execution.last_known_state != metadata_store_pb2.Execution.COMPLETE:
                continue
            outputs = _outputs_of(store, execution.id)
            with metadata_handle.released():
                refused = self._refusal(result) if outputs is not None else "its earlier outputs are gone"
            # Looked at without the lock, they may be collected meanwhile (`mlplatform gc`); from here to the
            # execution that has them the lock is held.
            if not refused and (_outputs_of(store, execution.id) or {}).keys() != (outputs or {}).keys():
                refused = "its earlier outputs are gone"
            if not refused:
                self.is_hit, self._result = True, result
                return dict(outputs or {})
            self._refused = self._refused or refused
        return None

    def result_of(
        self, outputs: Mapping[str, Sequence[Any]], given: execution_result_pb2.ExecutorOutput
    ) -> Result:
        """Return what must still be so when the result of the executor, which just ended, is taken later."""
        made = self._made or KeyParts()
        facts = [fact for found in _all_facts(outputs).values() for fact in found]
        for found in given.output_artifacts.values():
            facts += [artifact_facts(artifact, "") for artifact in found.artifacts]
        pushed = {place for fact in facts if (place := fact.custom_properties.get("pushed_destination"))}
        self._result = Result(
            run=self.run.path.name,
            outputs=self._contents(fact.uri for fact in facts),
            pushed=self._contents(pushed),
            beside={folder: versions_digest(folder) for folder in sorted(map(parent, pushed))},
            folders={
                folder: digest
                for folder, digest in made.folders.items()
                if folder not in self._writes.heard or self.digests.of(folder) == digest
            },
            code={
                file: digest
                for file, digest in imported_files().items()
                if file not in made.files
                and (file not in self._imported_before or (made.is_open and not is_ours(file)))
            },
            doubts=[
                *(
                    file
                    for file, digest in made.files.items()
                    if is_edited(file, digest) or digest_or_empty(file) != digest
                ),
                *(
                    path
                    for path, digest in {**self._inputs, **made.paths, **made.folders}.items()
                    if path not in self._writes.heard and self.digests.of(path) != digest
                ),
            ],
        )
        return self._result

    @property
    def made_in(self) -> str:
        """The run whose result was taken; empty where none was."""
        return self._result.run if self.is_hit and self._result is not None else ""

    def finish(self) -> str:
        """Write down the decision, and what the result depends on; return the reason in one line."""
        details = self._details()
        result = self._result
        if result is not None:
            details.files = {**result.code, **details.files}
            details.paths = {**result.folders, **result.pushed, **details.paths}
            details.folders = result.beside
            if result.doubts and not self.is_hit:
                details.why += f"; not for later runs: {', '.join(result.doubts)} changed while it ran"
                details.doubts = result.doubts
        self.run.write_details(details)
        return details.why

    def _pushes(self) -> bool:
        outputs = self._compiled.outputs.outputs.values() if self._compiled is not None else ()
        return any(output.artifact_spec.type.name == PushedModel.TYPE_NAME for output in outputs)

    def _is_newest_of_node(self, store: Any, executions: set[int]) -> bool:
        """Say whether the newest execution of this node, before this one, is among some."""
        assert self._compiled is not None
        [name] = [
            context.name.field_value.string_value
            for context in self._compiled.contexts.contexts
            if context.type.name == "node"
        ]
        context = store.get_context_by_type_and_name("node", name)
        running = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)
        ended = [
            e.id for e in store.get_executions_by_context(context.id) if e.last_known_state not in running
        ]
        return bool(ended) and max(ended) in executions

    def _refusal(self, result: Result) -> str:
        """Say why a result cannot be taken; empty where it can."""
        if result.doubts:
            return f"{', '.join(result.doubts)} changed while run {result.run} made it"
        code = {file: digest_or_empty(file) for file in result.code}
        if code != result.code:
            return describe_changes(changes_between(_as_parts(result.code), _as_parts(code)))
        for folder, digest in result.folders.items():
            if self.digests.of(folder) != digest:
                return f"folder {folder}, which a parameter names, has other content"
        if self._contents(result.pushed) != result.pushed:
            return "what it pushed is gone or was changed"
        if any(versions_digest(folder) != digest for folder, digest in result.beside.items()):
            return "something else was pushed there since, or taken away"
        if self._contents(result.outputs) != result.outputs:
            return "its earlier outputs are gone or were changed"
        return ""

    def _contents(self, places: Iterable[str]) -> dict[str, str]:
        return {place: self.digests.of(place) for place in sorted(set(places)) if place}

    def _details(self) -> NodeDetails:
        if self._made is None:
            return NodeDetails(self.node)
        made = self._made
        details = NodeDetails(self.node, key=made.key, parts=made.parts, files=made.files, paths=made.paths)
        earlier = self.previous.read_details(self.node) if self.previous else None
        if earlier is not None and self.previous is not None:
            details.compared_with = self.previous.path.name
            details.changes = changes_between(earlier.parts, details.parts)
        if self.is_hit and self._result is not None:
            details.decision = "hit"
            details.why = f"same inputs, code and libraries as in run {self._result.run}"
        elif self.is_forced:
            details.decision, details.why = "forced", "forced"
        elif not self.is_cached:
            details.decision, details.why = "off", "the pipeline does not cache it"
        elif made.uncertain:
            details.decision, details.why = "uncertain", f"not cached: {made.uncertain}"
        elif self._refused:
            details.decision, details.why = "gone", self._refused
        elif earlier is None:
            details.decision, details.why = "first", "first run of this node"
        elif details.changes:
            details.decision, details.why = "changed", describe_changes(details.changes)
        else:
            details.decision, details.why = "gone", f"it did not finish in run {details.compared_with}"
        return details


def artifact_facts(artifact: metadata_store_pb2.Artifact, type_name: str) -> KeyedArtifact:
    """Return an ML Metadata artifact as facts."""
    return KeyedArtifact(
        type_name,
        artifact.uri,
        artifact.id,
        _values(artifact.properties),
        _values(artifact.custom_properties),
    )


def _values(properties: Mapping[str, metadata_store_pb2.Value]) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("value") or "string_value")
        for name, value in properties.items()
    }


def _all_facts(artifacts: Mapping[str, Sequence[Any]] | None) -> dict[str, list[KeyedArtifact]]:
    return {
        name: [artifact_facts(artifact.mlmd_artifact, artifact.type_name) for artifact in found]
        for name, found in (artifacts or {}).items()
    }


def _outputs_of(store: Any, execution: int) -> dict[str, list[Any]] | None:
    """Return the outputs of an execution, None where one of them is deleted.

    TFX's own `cache_utils` pairs events and artifacts by their places in two lists, of which ML Metadata
    orders one by artifact; an execution that gives artifacts of another on may have published them in
    another order.
    """
    events = [e for e in store.get_events_by_execution_ids([execution]) if e.type == e.OUTPUT]
    artifacts = {a.id: a for a in store.get_artifacts_by_id([event.artifact_id for event in events])}
    types = {t.id: t for t in store.get_artifact_types_by_id([a.type_id for a in artifacts.values()])}
    outputs: dict[str, list[Any]] = {}
    for event in events:
        artifact = artifacts.get(event.artifact_id)
        if artifact is None or artifact.state != metadata_store_pb2.Artifact.LIVE:
            return None
        found = artifact_utils.deserialize_artifact(types[artifact.type_id], artifact)
        outputs.setdefault(event.path.steps[0].key, []).append(found)
    return outputs


def _is_successful(execution: metadata_store_pb2.Execution) -> bool:
    return bool(execution_lib.is_execution_successful(execution))


def _read_result(execution: metadata_store_pb2.Execution) -> Result | None:
    """Return what is known of an execution's result; None where it is not ours, or of another version."""
    text = execution.custom_properties[RESULT_PROPERTY].string_value
    try:
        return Result(**json.loads(text)) if text else None
    except (ValueError, TypeError):
        return None


def _as_parts(code: Mapping[str, str]) -> dict[str, str]:
    return {f"code {file}": digest for file, digest in code.items()}
