"""What TFX's own compiler makes of a pipeline, and what it does not say of the nodes.

TFX compiles for Vertex AI. Its builder reads six things of a pipeline; it is given a view of it without the
resolvers, which only Vertex AI has, so each of them becomes one task of ours here. The pipeline object stays
as it is: nothing is packed into wheels, and no name is changed.

Source: `tfx/orchestration/kubeflow/v2/{pipeline_builder,step_builder}.py`, the same in TFX 1.16 and 1.21.
"""

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from tfx import version
from tfx.dsl.component.experimental import executor_specs
from tfx.dsl.component.experimental.decorators import BaseFunctionalComponent
from tfx.dsl.components.base import base_component, base_driver, executor_spec
from tfx.dsl.components.common import resolver
from tfx.dsl.experimental.conditionals import conditional
from tfx.dsl.placeholder import placeholder
from tfx.orchestration import data_types
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.types.channel import ChannelWrappedPlaceholder
from tfx.utils import name_utils

from mlplatform.errors import MissingExtraError
from mlplatform.orchestration.kubeflow.errors import CompileError
from mlplatform.orchestration.kubeflow.resolver import STRATEGIES

try:
    from tfx.orchestration.kubeflow.v2 import compiler_utils, pipeline_builder
except ImportError as error:  # kfp-pipeline-spec
    raise MissingExtraError("kfp-pipeline-spec", "kubeflow", "compiling for Kubeflow Pipelines") from error

EXIT_DAG = "tfx-dag"  # TFX's name of the part that an exit handler follows
IMAGE = "image"  # stands for each task's image until its options are known


@dataclass(frozen=True)
class NodeFacts:
    """What TFX's compiled form does not say of a node.

    Attributes:
        id: The node's id in the pipeline.
        type: Class path of the component.
        upstream: Ids of the nodes that it waits for, sorted.
        driver: Class path of a driver of its own; empty for none.
        json: Names of the execution properties that travel as JSON.
        booleans: Names of those that travel as 0 or 1.
        is_function: Whether it was made of a Python function.
        is_entry_point: Whether our entry point runs it, rather than a container's own command.
        module_file: Its `module_file` on this machine; empty for none.
        executor: Class path of the executor; empty where a container has its own command.
        source: File that defines the executor; empty where that is not known.
        resolver: What a resolver looks for; None for other nodes.
    """

    id: str
    type: str
    upstream: tuple[str, ...] = ()
    driver: str = ""
    json: tuple[str, ...] = ()
    booleans: tuple[str, ...] = ()
    is_function: bool = False
    is_entry_point: bool = True
    module_file: str = ""
    executor: str = ""
    source: str = ""
    resolver: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TfxSpec:
    """A pipeline as TFX compiles it, resolvers added.

    Attributes:
        name: The pipeline's own name.
        spec: The pipeline spec; task names are node ids.
        nodes: Facts of the nodes, in topological order.
        parameters: Runtime parameters: name to type and default (None for none).
    """

    name: str
    spec: dict[str, Any]
    nodes: Sequence[NodeFacts]
    parameters: Mapping[str, tuple[type, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class _View:
    """What TFX's builder reads of a pipeline."""

    pipeline_info: Any
    components: Sequence[Any]
    dsl_context_registry: Any
    beam_pipeline_args: Sequence[str]
    enable_cache: bool

    def finalize(self) -> None:
        """Do nothing: the pipeline is finalized."""


def tfx_spec(pipeline: Any, exit_handler: Any = None) -> TfxSpec:
    """Compile a pipeline with TFX's builder.

    Raises:
        CompileError: It holds something that Kubeflow Pipelines has nothing for.
    """
    name = pipeline.pipeline_info.pipeline_name
    resolvers = [node for node in pipeline.components if isinstance(node, resolver.Resolver)]
    components = [node for node in pipeline.components if not isinstance(node, resolver.Resolver)]
    every = [*pipeline.components, *([exit_handler] if exit_handler is not None else [])]
    _check(name, every)
    pipeline.finalize()
    registry = copy.copy(pipeline.dsl_context_registry)
    registry._all_nodes = list(registry._all_nodes)  # the exit handler is put there
    info = copy.copy(pipeline.pipeline_info)
    info.pipeline_name = name.replace("_", "-")
    view = _View(info, components, registry, pipeline.beam_pipeline_args, pipeline.enable_cache)
    try:
        _forget_keys(components, registry)
        nodes = [_facts(name, node) for node in every]
        built = pipeline_builder.PipelineBuilder(
            view, default_image=IMAGE, default_commands=[], exit_handler=exit_handler,
            use_pipeline_spec_2_1=True,
        ).build()  # fmt: skip
        built.schema_version, built.sdk_version = "2.1.0", f"tfx-{version.__version__}"
        spec: dict[str, Any] = json_format.MessageToDict(built)
        for node in resolvers:
            _add_resolver(spec, node, has_exit_handler=exit_handler is not None)
    except CompileError:
        raise
    except (NotImplementedError, TypeError, ValueError, KeyError, AssertionError) as error:
        raise CompileError(name, f"TFX's compiler says: {_first_line(error)}") from error
    return TfxSpec(name, spec, nodes, _parameters(name, every))


def _forget_keys(components: Sequence[Any], registry: Any) -> None:
    """Have the predicates of conditions name a node's inputs as the node does.

    A new predicate calls an input by a name of its own, also one that the node takes anyway and calls
    otherwise. Whoever compiles it first, this builder or that of a local runner, makes it forget that.
    """
    for component in components:
        for predicate in conditional.get_predicates(component, registry):
            for part in predicate.traverse():
                if isinstance(part, ChannelWrappedPlaceholder):
                    part.set_key(None)


def _check(pipeline: str, nodes: Sequence[Any]) -> None:
    for node in nodes:
        if isinstance(node, tfx_pipeline.Pipeline):
            raise CompileError(
                pipeline, f"{node.id} is a pipeline within the pipeline; put its components into one"
            )
        if node.id == EXIT_DAG:
            raise CompileError(pipeline, f"a node is called {EXIT_DAG!r}; rename it with with_id")
        if getattr(node, "platform_config", None) is not None:
            raise CompileError(
                pipeline,
                f"{node.id} has a platform_config, with which no local runner works; give its resources "
                "as options, kubernetes.nodes",
            )
        for name, value in node.exec_properties.items():
            if isinstance(value, str) and "\0" in value:
                raise CompileError(pipeline, f"{node.id}.{name} holds a zero byte, which no argument can")


def _facts(pipeline: str, node: Any) -> NodeFacts:
    kind, upstream = name_utils.get_full_name(type(node), strict_check=False), _upstream(node)
    if isinstance(node, resolver.Resolver):
        return NodeFacts(node.id, kind, upstream, resolver=_resolver(pipeline, node))
    properties = node.exec_properties
    is_function = isinstance(node, BaseFunctionalComponent)
    executor, path, source = node.executor_spec, "", ""
    is_entry_point = isinstance(executor, executor_spec.ExecutorClassSpec)
    if is_entry_point:
        module = executor.executor_class.__module__
        if module == "__main__":
            raise CompileError(
                pipeline,
                f"{node.id} is defined in the script that runs; move it into a module that the image has, "
                "or into a file beside the pipeline's",
            )
        path = name_utils.get_full_name(executor.executor_class, strict_check=False)
        source = _source_of(executor.executor_class)
    elif isinstance(node, base_component.BaseComponent) and not isinstance(
        executor, executor_specs.TemplatedExecutorContainerSpec
    ):
        raise CompileError(pipeline, f"{node.id} has a {type(executor).__name__}, which has no class to run")
    driver = node.driver_class
    has_driver = is_entry_point and driver not in (None, base_driver.BaseDriver)
    module_file = properties.get("module_file")
    return NodeFacts(
        id=node.id,
        type=kind,
        upstream=upstream,
        driver=name_utils.get_full_name(driver) if has_driver else "",
        json=tuple(sorted(name for name, value in properties.items() if _is_json(value))),
        booleans=tuple(sorted(name for name, value in properties.items() if isinstance(value, bool))),
        is_function=is_function,
        is_entry_point=is_entry_point,
        module_file=module_file if isinstance(module_file, str) else "",
        executor=path,
        source=source,
    )


def _is_json(value: Any) -> bool:
    plain = (str, int, float, Message, data_types.RuntimeParameter, placeholder.Placeholder)
    return value is not None and not isinstance(value, plain)


def _source_of(executor: type) -> str:
    return str(getattr(sys.modules.get(executor.__module__), "__file__", "") or "")


def _upstream(node: Any) -> tuple[str, ...]:
    return tuple(sorted({each.id for each in node.upstream_nodes}))


def _resolver(pipeline: str, node: Any) -> dict[str, Any]:
    """Return what a resolver looks for, as JSON has it."""
    strategy = node.exec_properties.get(resolver.RESOLVER_STRATEGY_CLASS)
    if strategy is None:
        raise CompileError(pipeline, f"{node.id} resolves by a function; give it a strategy_class")
    path = name_utils.get_full_name(strategy, strict_check=False)
    if path not in STRATEGIES:
        known = ", ".join(sorted(each.rpartition(".")[2] for each in STRATEGIES))
        raise CompileError(
            pipeline, f"{node.id} resolves by {path}, which no ledger can answer; it can {known}"
        )
    config = dict(node.exec_properties.get(resolver.RESOLVER_CONFIG) or {})
    config = {
        name: json_format.MessageToDict(value, preserving_proto_field_name=True)
        if isinstance(value, Message)
        else value
        for name, value in config.items()
    }
    producers = {
        key: {"node": channel.producer_component_id, "key": channel.output_key or ""}
        for key, channel in node.raw_inputs.items()
        if getattr(channel, "producer_component_id", None)
    }
    found = {
        "strategy": path,
        "config": config,
        "outputs": {key: channel.type.TYPE_NAME for key, channel in node.outputs.items()},
        "producers": producers,
    }
    for key, channel in node.outputs.items():
        title = compiler_utils.get_artifact_title(channel.type)
        if title != "tfx.Artifact":
            found["outputs"][key] = title
    return found


def _add_resolver(spec: dict[str, Any], node: Any, *, has_exit_handler: bool) -> None:
    """Add a task for a resolver; the nodes after it already name it as their producer."""
    label = f"{node.id}_executor"
    outputs = {
        key: json_format.MessageToDict(compiler_utils.build_output_artifact_spec(channel))
        for key, channel in node.outputs.items()
    }
    component: dict[str, Any] = {"executorLabel": label, "outputDefinitions": {"artifacts": outputs}}
    task: dict[str, Any] = {"taskInfo": {"name": node.id}, "componentRef": {"name": node.id}}
    upstream, inputs, taken = _upstream(node), {}, {}
    for key, channel in node.raw_inputs.items():
        if getattr(channel, "producer_component_id", None) in upstream:
            of = {"producerTask": channel.producer_component_id, "outputArtifactKey": channel.output_key}
            inputs[key] = json_format.MessageToDict(compiler_utils.build_input_artifact_spec(channel))
            taken[key] = {"taskOutputArtifact": of}
    if upstream:
        task["dependentTasks"] = list(upstream)
    if taken:
        component["inputDefinitions"], task["inputs"] = {"artifacts": inputs}, {"artifacts": taken}
    spec["components"][node.id] = component
    # A look-up does nothing, so it needs no condition of its own: what follows it has one.
    dag = spec["components"][EXIT_DAG] if has_exit_handler else spec["root"]
    dag["dag"]["tasks"][node.id] = task
    executors = spec["deploymentSpec"].setdefault("executors", {})
    executors[label] = {"container": {"image": IMAGE}}


def _parameters(pipeline: str, nodes: Sequence[Any]) -> dict[str, tuple[type, Any]]:
    found: dict[str, tuple[type, Any]] = {}
    for node in nodes:
        for value in node.exec_properties.values():
            if not isinstance(value, data_types.RuntimeParameter):
                continue
            parameter = (value.ptype, value.default)
            if found.setdefault(value.name, parameter) != parameter:
                raise CompileError(
                    pipeline,
                    f"the runtime parameter {value.name!r} has more than one type or default; give them one",
                )
    return found


def _first_line(error: BaseException) -> str:
    return f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
