"""From a pipeline object to the compiled form that the runner schedules.

TFX is imported where this module is: in the fork server and in its children, or in the caller's own process.
"""

import hashlib
import json
import runpy
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tfx.dsl.compiler import compiler, constants
from tfx.dsl.components.base import base_component
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import partial_run_utils, runtime_parameter_utils, tfx_runner
from tfx.orchestration.portable.mlmd import execution_lib
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2

from mlplatform.beam.runners import runs_in_process
from mlplatform.files import write_privately
from mlplatform.fingerprints.imported import importing, record_imports
from mlplatform.fingerprints.libraries import read_distributions
from mlplatform.orchestration.engine import Engine, use_engine
from mlplatform.orchestration.local.cache.parameter_roles import roles_of
from mlplatform.orchestration.local.cache.sources import (
    Sources,
    pause_recording,
    start_recording,
    stop_recording,
)
from mlplatform.orchestration.local.errors import (
    NodeNameError,
    NothingToReuseError,
    RuntimeParameterError,
    UnsupportedPipelineError,
)
from mlplatform.orchestration.local.mlmd.lineage import RUN_CONTEXT
from mlplatform.orchestration.local.mlmd.metadata import LockedMetadata
from mlplatform.orchestration.local.plan import LocalOptions, NodePlan, Plan
from mlplatform.orchestration.local.reference import find_function, make_pipeline

_PARAMETER_TYPES = {
    pipeline_pb2.RuntimeParameter.INT: int,
    pipeline_pb2.RuntimeParameter.DOUBLE: float,
    pipeline_pb2.RuntimeParameter.STRING: str,
}
_OPTIONS = "mlplatform.orchestration.kubeflow.options"
RESOLVER = "tfx.dsl.components.common.resolver.Resolver"
# Operations on inputs that `ForEach` is compiled to; others may ask ML Metadata for more.
_WITHIN_A_RUN = frozenset({"tfx.internal.Unnest"})


def load(reference: str) -> None:
    """Import everything that a pipeline and its nodes need, in the fork server."""
    import mlplatform.orchestration.local.node  # noqa: F401 - for the children

    read_distributions()
    record_imports()
    start_recording()
    find_function(reference)
    pause_recording()


def compile_reference(
    reference: str,
    data: str | None,
    root: str,
    overrides: Mapping[str, Any],
    engine: Engine | None = None,
    **options: Any,
) -> Plan:
    """Make the pipeline that a reference names, and compile it.

    It is made twice, to know whether a clock or chance is in it.

    Args:
        reference: The pipeline, as `reference.make_pipeline` takes it.
        data: As there.
        root: As there.
        overrides: As there.
        engine: The engine of Beam; it takes precedence over the pipeline's own.
        **options: As for `plan_of`.
    """
    start_recording()
    pipeline, again = (make_pipeline(reference, data, root, overrides) for _ in range(2))
    first, second = (_compiled(each, engine) for each in (pipeline, again))
    sources = stop_recording()
    is_reproducible = _canonical(first) == _canonical(second)
    plan = plan_of(first, **options, node_options=_local_options(pipeline))
    return replace(plan, sources=sources, is_reproducible=is_reproducible)


def compile_pipeline(pipeline: Any, **options: Any) -> Plan:
    """Compile a pipeline object."""
    return plan_of(_compiled(pipeline), **options, node_options=_local_options(pipeline))


def _local_options(pipeline: Any) -> dict[str, LocalOptions]:
    """Return what of the options of a pipeline's nodes holds on this machine; nothing for default ones."""
    if _OPTIONS not in sys.modules:  # so nobody gave it any
        return {}
    from mlplatform.orchestration.kubeflow.options import options_of, quantity

    options = options_of(pipeline).options
    if not options.model_fields_set:
        return {}
    found = {}
    for component in pipeline.components:
        own = options.of(component.id)
        taken = {
            name: getattr(own, name) for name in LocalOptions.__dataclass_fields__ if name != "memory_mb"
        }
        memory_mb = quantity(own.memory) / 2**20 if own.memory is not None else None
        found[component.id] = LocalOptions(**taken, memory_mb=memory_mb)
    return found


def _compiled(pipeline: Any, engine: Engine | None = None) -> pipeline_pb2.Pipeline:
    """Compile; user modules that can be imported are not packed into wheels, the nodes import them."""
    if engine is not None:
        use_engine(pipeline.components, engine)
    for component in pipeline.components:
        if isinstance(component, base_component.BaseComponent) and not runs_in_process(
            getattr(component.executor_spec, "beam_pipeline_args", ()) or pipeline.beam_pipeline_args
        ):
            component._resolve_pip_dependencies(pipeline.pipeline_info.pipeline_root)
    return compiler.Compiler().compile(pipeline)


def plan_of(
    ir: pipeline_pb2.Pipeline,
    *,
    run_id: str,
    ir_path: str,
    from_nodes: Sequence[str] = (),
    to_nodes: Sequence[str] = (),
    force: Sequence[str] = (),
    partial_run: pipeline_pb2.PartialRun | None = None,
    parameters: Mapping[str, Any] | None = None,
    node_options: Mapping[str, LocalOptions] | None = None,
) -> Plan:
    """Make a compiled pipeline ready to run once, and write it to `ir_path`.

    Args:
        ir: The compiled pipeline; is not changed.
        run_id: The run's id.
        ir_path: File for the nodes' processes to read.
        from_nodes: Run these nodes and those after them.
        to_nodes: Run these nodes and those before them.
        force: Nodes whose earlier results are not taken.
        partial_run: TFX's own form of `from_nodes` and `to_nodes`.
        parameters: Values of the pipeline's runtime parameters; a text is read as the parameter's type.
        node_options: Options of nodes; of those that are not in it, the default ones.

    Raises:
        NodeNameError: A node that was named is not there.
        RuntimeParameterError: A runtime parameter is unknown, has no value, or has one of another type.
        UnsupportedPipelineError: It holds something that TFX has no local execution for.
    """
    given, ir = ir, pipeline_pb2.Pipeline()
    ir.CopyFrom(given)
    name = ir.pipeline_info.id
    if any(node.WhichOneof("node") == "sub_pipeline" for node in ir.nodes):
        raise UnsupportedPipelineError(name, "it holds a sub-pipeline, which TFX runs on a cluster only")
    ids = [node.pipeline_node.node_info.id for node in ir.nodes]
    unknown = [node for node in (*from_nodes, *to_nodes, *force) if node not in ids]
    if unknown:
        raise NodeNameError(name, unknown, ids)
    bindings = bind_parameters(ir, parameters or {})
    options = node_options or {}
    optional = {"options": {node: asdict(each) for node, each in options.items()}} if options else {}
    values = json.dumps({**bindings, **optional}, sort_keys=True).encode()
    digest = hashlib.sha256(b"\n".join([values, _canonical(given)])).hexdigest()
    bindings[constants.PIPELINE_RUN_ID_PARAMETER_NAME] = run_id
    runtime_parameter_utils.substitute_runtime_parameter(ir, bindings)
    deployment = runner_utils.extract_local_deployment_config(ir)
    connections = deployment.metadata_connection_config
    kind = connections.WhichOneof("connection_config")
    if kind is None:
        raise UnsupportedPipelineError(name, "it names no metadata_connection_config")
    if partial_run is None and (from_nodes or to_nodes):
        partial_run = pipeline_pb2.PartialRun(from_nodes=from_nodes, to_nodes=to_nodes)
        partial_run.snapshot_settings.latest_pipeline_run_strategy.SetInParent()
    if partial_run is not None:
        partial_run_utils.mark_pipeline(
            ir,
            from_nodes=partial_run.from_nodes or None,
            to_nodes=partial_run.to_nodes or None,
            snapshot_settings=partial_run.snapshot_settings,
        )
    for node in ir.nodes:
        caching = node.pipeline_node.execution_options.caching_options
        chosen = options.get(node.pipeline_node.node_info.id, LocalOptions()).cache
        if chosen is not None:
            caching.enable_cache = chosen
    nodes = [
        replace(each, options=options.get(each.id, LocalOptions()))
        for each in (_plan_node(ir, place, deployment, set(force)) for place in range(len(ir.nodes)))
    ]
    for node in ir.nodes:
        if node.pipeline_node.node_info.id in force:
            node.pipeline_node.execution_options.caching_options.enable_cache = False
    write_privately(Path(ir_path), ir.SerializeToString(deterministic=True))
    connection = getattr(connections, kind)
    return Plan(
        pipeline=name,
        pipeline_root=ir.runtime_spec.pipeline_root.field_value.string_value,
        connection=connection.SerializeToString(),
        connection_kind=type(connection).__name__,
        database=_describe(connection),
        sqlite=connection.sqlite.filename_uri if hasattr(connection, "sqlite") else "",
        nodes=tuple(nodes),
        needs_snapshot=any(node.pipeline_node.execution_options.run.perform_snapshot for node in ir.nodes),
        main_path=_main_path() if any(node.executor.startswith("__main__.") for node in nodes) else "",
        sources=Sources(),
        is_reproducible=True,  # as far as this compiled form goes
        digest=digest,
    )


def bind_parameters(ir: pipeline_pb2.Pipeline, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as the types of the pipeline's runtime parameters.

    Raises:
        RuntimeParameterError: A runtime parameter is unknown, has no value, or has one of another type.
    """
    known = {parameter.name: parameter for parameter in _runtime_parameters(ir)}
    known.pop(constants.PIPELINE_RUN_ID_PARAMETER_NAME, None)
    name = ir.pipeline_info.id
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise RuntimeParameterError(name, f"no runtime parameter {', '.join(unknown)}", sorted(known))
    missing = sorted(k for k, p in known.items() if k not in values and not p.HasField("default_value"))
    if missing:
        raise RuntimeParameterError(name, f"no value is given for {', '.join(missing)}", sorted(known))
    bound = {}
    for each, value in values.items():
        kind = _PARAMETER_TYPES[known[each].type]
        is_read = isinstance(value, str) or (kind is float and type(value) is int)
        try:
            bound[each] = kind(value) if is_read else value
        except ValueError:
            bound[each] = value
        if type(bound[each]) is not kind:
            raise RuntimeParameterError(name, f"{each} is {value!r}, not {kind.__name__}", sorted(known))
    return bound


def _runtime_parameters(message: Any) -> Iterator[pipeline_pb2.RuntimeParameter]:
    """Yield the runtime parameters anywhere within a message."""
    if isinstance(message, pipeline_pb2.RuntimeParameter):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if hasattr(value, "ListFields"):
            yield from _runtime_parameters(value)
        elif hasattr(value, "items"):
            for entry in value.values():
                if hasattr(entry, "ListFields"):
                    yield from _runtime_parameters(entry)
        else:
            for entry in value:
                yield from _runtime_parameters(entry)


def partial_run_of(run_options: Any) -> pipeline_pb2.PartialRun:
    """Return TFX's `RunOptions` in their compiled form."""
    return tfx_runner._run_opts_to_proto(run_options).partial_run


def adopt_main(path: str, arguments: list[str]) -> None:
    """Make the caller's script importable as `__main__`, with its arguments, as `multiprocessing` does it."""
    sys.argv = arguments
    module = types.ModuleType("__mp_main__")
    with importing(path):
        module.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def snapshot(ir_path: str, connection: bytes, connection_kind: str, lock: str) -> None:
    """Give a partial run the results of the nodes that it leaves out."""
    ir = pipeline_pb2.Pipeline.FromString(Path(ir_path).read_bytes())
    is_base_given = ir.runtime_spec.snapshot_settings.HasField("base_pipeline_run_strategy")
    with connect(connection, connection_kind, lock) as handle:
        base = None if is_base_given else _newest_run_to_reuse(handle.store, ir)
        partial_run_utils.snapshot(handle, ir, base_run_id=base)


def _newest_run_to_reuse(store: Any, ir: pipeline_pb2.Pipeline) -> str | None:
    """Return the newest run that finished all nodes whose results are needed; None where none is needed.

    TFX would take the newest run, also one that failed before these nodes, or that never began.

    Raises:
        NothingToReuseError: There is no such run.
    """
    skips = {n.pipeline_node.node_info.id: n.pipeline_node.execution_options.skip for n in ir.nodes}
    modes = pipeline_pb2.NodeExecutionOptions.Skip
    needed = [node for node, skip in skips.items() if skip.reuse_artifacts_mode == modes.REQUIRED]
    pipeline = store.get_context_by_type_and_name("pipeline", ir.pipeline_info.id)
    runs = store.get_children_contexts_by_context(pipeline.id) if needed and pipeline is not None else []
    best = needed
    for run in sorted(runs, key=lambda run: run.create_time_since_epoch, reverse=True):
        if run.type != RUN_CONTEXT or run.name == ir.runtime_spec.pipeline_run_id.field_value.string_value:
            continue
        finished = {
            context.name.removeprefix(f"{ir.pipeline_info.id}.")
            for execution in store.get_executions_by_context(run.id)
            if execution_lib.is_execution_successful(execution)
            for context in store.get_contexts_by_execution(execution.id)
            if context.type == constants.NODE_CONTEXT_TYPE_NAME
        }
        missing = [node for node in needed if node not in finished]
        if not missing:
            return str(run.name)
        best = min(best, missing, key=len)
    if needed:
        raise NothingToReuseError(ir.pipeline_info.id, best)
    return None


def connect(connection: bytes, kind: str, lock: str) -> LockedMetadata:
    """Return TFX's handle of the ML Metadata that a plan names."""
    from ml_metadata.proto import metadata_store_pb2

    config = getattr(metadata_store_pb2, kind).FromString(connection)
    return LockedMetadata(config, Path(lock) if lock else None)


def _plan_node(ir: pipeline_pb2.Pipeline, place: int, deployment: Any, force: set[str]) -> NodePlan:
    node = ir.nodes[place].pipeline_node
    upstream = list(node.upstream_nodes)
    looks_back = _looks_back(node)
    if looks_back:  # it looks at what exists, so it looks when the stock runner would
        upstream = [earlier.pipeline_node.node_info.id for earlier in ir.nodes[:place]]
    spec = runner_utils.extract_executor_spec(deployment, node.node_info.id)
    return NodePlan(
        id=node.node_info.id,
        type=node.node_info.type.name.rpartition(".")[2],
        upstream=tuple(upstream),
        executor=_class_path(spec),
        is_left_out=node.execution_options.HasField("skip"),
        is_cached=node.execution_options.caching_options.enable_cache or not spec,
        is_forced=node.node_info.id in force,
        looks_back=looks_back,
        is_resolver=node.node_info.type.name == RESOLVER,
        roles=roles_of(node.node_info.type.name) if spec else {},
    )


def _looks_back(node: pipeline_pb2.PipelineNode) -> bool:
    """Say whether a node takes artifacts of other runs: it asks beyond its own, or computes its inputs."""
    channels = [channel for given in node.inputs.inputs.values() for channel in given.channels]
    return (
        node.node_info.type.name == RESOLVER
        or any(all(q.type.name != RUN_CONTEXT for q in channel.context_queries) for channel in channels)
        or any(
            operation.op_node.op_type not in _WITHIN_A_RUN
            for graph in node.inputs.input_graphs.values()
            for operation in graph.nodes.values()
            if operation.HasField("op_node")
        )
    )


def _class_path(spec: Any) -> str:
    if isinstance(spec, executable_spec_pb2.BeamExecutableSpec):
        return str(spec.python_executor_spec.class_path)
    if isinstance(spec, executable_spec_pb2.PythonClassExecutableSpec):
        return str(spec.class_path)
    return ""


def _describe(connection: Any) -> str:
    if isinstance(connection, metadata.ConnectionConfigType.__args__[1]):
        return f"grpc {connection.host}:{connection.port}"
    kind = connection.WhichOneof("config")
    config = getattr(connection, kind)
    if kind == "sqlite":
        return str(config.filename_uri)
    if kind in ("mysql", "postgresql"):
        return f"{kind}://{config.host}:{config.port}/{getattr(config, 'database', '') or config.dbname}"
    return str(kind)


def _canonical(ir: pipeline_pb2.Pipeline) -> bytes:
    """Return a compiled pipeline as bytes that equal ones have in common: no map in them has an order."""
    plain, deployment = pipeline_pb2.Pipeline(), pipeline_pb2.IntermediateDeploymentConfig()
    plain.CopyFrom(ir)
    plain.deployment_config.Unpack(deployment)
    plain.ClearField("deployment_config")
    return bytes(
        plain.SerializeToString(deterministic=True) + deployment.SerializeToString(deterministic=True)
    )


def _main_path() -> str:
    return str(getattr(sys.modules["__main__"], "__file__", "") or "")
