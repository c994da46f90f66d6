"""One node, in a process of its own: TFX's own launcher does the work."""

import json
import logging
import os
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.local import runner_utils
from tfx.proto.orchestration import pipeline_pb2

from mlplatform.beam.job_server import require_job_server
from mlplatform.beam.runners import followed, is_one_process, runs_in_process
from mlplatform.orchestration.local.cache.cache_key import KeyedArtifact, artifact_digest
from mlplatform.orchestration.local.cache.content_cache import (
    CachingLauncher,
    Check,
    ContentCache,
    artifact_facts,
)
from mlplatform.orchestration.local.compiling import connect
from mlplatform.orchestration.local.errors import InputsNotResolvedError
from mlplatform.orchestration.local.patches import beam_in_process, tft_in_process
from mlplatform.orchestration.local.plan import NodeOutcome, NodePlan
from mlplatform.orchestration.local.records import ArtifactRecord, RunFolder
from mlplatform.orchestration.local.reference import load_module

_OUTPUT_EVENTS = (
    metadata_store_pb2.Event.OUTPUT,
    metadata_store_pb2.Event.INTERNAL_OUTPUT,
    metadata_store_pb2.Event.DECLARED_OUTPUT,
)
Artifacts = dict[str, list[KeyedArtifact]]


def run_node(
    run: str,
    node: NodePlan,
    connection: bytes,
    connection_kind: str,
    lock: str,
    memory: str,
    previous: str,
    reference: str,
) -> NodeOutcome:
    """Run one node of a compiled pipeline.

    Args:
        run: Folder of the run's records.
        node: The node.
        connection: ML Metadata, a serialized message of `connection_kind`.
        connection_kind: As in `Plan`.
        lock: As in `Plan`.
        memory: Folder of what the cache remembers.
        previous: Folder of the run to compare the node's key with; empty for none.
        reference: How the pipeline was named, to import its module; empty for a pipeline object.

    Raises:
        Exception: What the node's executor raised.
        InputsNotResolvedError: Its inputs are not there.
    """
    _log_to_stderr()
    if reference:
        load_module(reference)
    folder = RunFolder(Path(run))
    ir = pipeline_pb2.Pipeline.FromString(folder.ir.read_bytes())
    compiled = next(n.pipeline_node for n in ir.nodes if n.pipeline_node.node_info.id == node.id)
    deployment = runner_utils.extract_local_deployment_config(ir)
    _import_module_file_from_its_place(compiled)
    _let_workers_import()
    executor_spec = runner_utils.extract_executor_spec(deployment, node.id)
    beam_arguments = getattr(executor_spec, "beam_pipeline_args", ())
    require_job_server(beam_arguments)
    if not beam_arguments or runs_in_process(beam_arguments):
        beam_in_process.prepare()
    else:
        for argument in followed(beam_arguments)[len(beam_arguments) :]:
            executor_spec.beam_pipeline_args_placeholders.add().value.string_value = argument
    tft_in_process.prepare()
    cache = ContentCache(
        node=node.id,
        executor=node.executor,
        is_cached=node.is_cached,
        is_forced=node.is_forced,
        roles=node.roles,
        memory=Path(memory) / "digests",
        run=folder,
        previous=RunFolder(Path(previous)) if previous else None,
    )
    handle = connect(connection, connection_kind, lock)
    node_launcher = CachingLauncher(
        cache,
        _record_check(node.executor, [*beam_arguments]),
        pipeline_node=compiled,
        mlmd_connection=handle,
        pipeline_info=ir.pipeline_info,
        pipeline_runtime_spec=ir.runtime_spec,
        executor_spec=executor_spec,
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node.id),
    )
    try:
        info = node_launcher.launch()
    except BaseException:
        cache.finish()
        raise
    if info is None or not info.execution_id:
        return NodeOutcome("skipped", "its condition does not hold, or a node before it was skipped")
    with handle as metadata:
        [execution] = metadata.store.get_executions_by_id([info.execution_id])
    if execution.last_known_state == metadata_store_pb2.Execution.FAILED:
        if node.is_resolver:  # who needs what it did not find says so; an optional input goes without
            return NodeOutcome("skipped", f"it found nothing: {_result_message(execution)}")
        nothing = [n.id for n in folder.read().nodes if n.id in node.upstream and n.state == "skipped"]
        raise InputsNotResolvedError(node.id, _result_message(execution), nothing)
    inputs, outputs = _artifacts_of(handle, info.execution_id)
    return NodeOutcome(
        state="cached" if cache.is_hit else "done",
        why=cache.finish(),
        execution_id=info.execution_id,
        inputs=_records(inputs, cache),
        outputs=_records(outputs, cache),
        made_in=cache.made_in,
    )


def _record_check(executor: str, beam_arguments: list[str]) -> Check | None:
    """Return what checks that a stock component lost no record; None where Beam works in one process."""
    if not beam_arguments or is_one_process(beam_arguments):
        return None
    from mlplatform.orchestration.local.stock_accounting import check_records

    return lambda execution, output: check_records(executor, execution, output, beam_arguments)


def _import_module_file_from_its_place(node: pipeline_pb2.PipelineNode) -> None:
    """Let a `module_file` find its neighbours; TFX would pack all of them into a wheel and install it."""
    parameters = node.parameters.parameters
    module_file = parameters["module_file"].field_value.string_value if "module_file" in parameters else ""
    if module_file.endswith(".py"):
        sys.path.append(str(Path(module_file).resolve().parent))


def _let_workers_import() -> None:
    """Let workers that Beam starts as processes find the user's modules where this process finds them."""
    paths = sysconfig.get_paths()
    library = tuple(
        str(Path(paths[name]).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    )
    folders = [str(Path(entry).resolve()) for entry in sys.path]
    own = [folder for folder in folders if Path(folder).is_dir() and not folder.startswith(library)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(own))


def _artifacts_of(handle: Any, execution_id: int) -> tuple[Artifacts, Artifacts]:
    """Return what an execution took and what it gave, in the order of ML Metadata."""
    inputs: Artifacts = {}
    outputs: Artifacts = {}
    with handle as metadata:
        events = metadata.store.get_events_by_execution_ids([execution_id])
        artifacts = {a.id: a for a in metadata.store.get_artifacts_by_id([e.artifact_id for e in events])}
    for event in events:
        side = outputs if event.type in _OUTPUT_EVENTS else inputs
        artifact = artifacts[event.artifact_id]
        key = event.path.steps[0].key if event.path.steps else ""
        side.setdefault(key, []).append(artifact_facts(artifact, artifact.type))
    return inputs, outputs


def _records(artifacts: Artifacts, cache: ContentCache) -> dict[str, list[ArtifactRecord]]:
    return {
        key: [
            ArtifactRecord(a.id, a.type, a.uri, artifact_digest(a, cache.digests), _properties(a))
            for a in found
        ]
        for key, found in artifacts.items()
    }


def _properties(artifact: KeyedArtifact) -> dict[str, Any]:
    every = {**artifact.properties, **artifact.custom_properties}
    return {name: value for name, value in every.items() if isinstance(value, (str, int, float))}


def _result_message(execution: metadata_store_pb2.Execution) -> str:
    text = execution.custom_properties["__execution_result__"].string_value
    message = str(json.loads(text or "{}").get("resultMessage", ""))
    if "more than one input dict" in message:
        return "it is within a ForEach over more than one artifact, which TFX does not do on one machine"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return "ML Metadata holds no reason"
    plain = re.sub(r"^[\w.]+: ", "", lines[-1])  # without the class of TFX's exception
    return re.sub(r"<[\w.]*?(\w+) object at 0x[0-9a-f]+>", r"\1", plain)[:1000]


def _log_to_stderr() -> None:
    """Send what TFX and the libraries log to the node's log, which stderr is here."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        force=True,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("absl").setLevel(logging.INFO)
    logging.captureWarnings(True)
