"""The engine block of a pipeline: what Beam runs on, of all nodes and of single ones.

    engine: flink
    engine: {name: flink, parallelism: 4, nodes: {DataValidator: direct}}

The keys beside `name` and `nodes` are options of the engine (`mlplatform.beam.engines`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlplatform.config_file import ConfigError
from mlplatform.orchestration.choices import ENGINES

Block = str | Mapping[str, Any]


@dataclass(frozen=True)
class Engine:
    """What Beam runs on.

    Attributes:
        arguments: Beam's arguments of all nodes that work on Beam.
        nodes: Those of single nodes, by the node's id, instead.
    """

    arguments: tuple[str, ...] = ()
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, node: str) -> tuple[str, ...]:
        """Return Beam's arguments of a node; none where the pipeline's own stand."""
        return self.nodes.get(node, self.arguments)


def parse_engine(block: Block | None) -> Engine | None:
    """Return an engine from its block; None for none.

    Args:
        block: A name, or a mapping with `name`, options of that engine, and `nodes`: blocks of single nodes.

    Raises:
        UnknownChoiceError: There is no such engine.
        ConfigError: The block has no name, or an option does not fit.
    """
    if block is None:
        return None
    given = {"name": block} if isinstance(block, str) else dict(block)
    nodes = given.pop("nodes", None) or {}
    if not isinstance(nodes, Mapping):
        raise ConfigError("engine", [f"nodes is {nodes!r}: it must be a mapping from node to engine"])
    arguments = _arguments(given) if "name" in given or not nodes else ()
    return Engine(arguments, {str(node): _arguments(of) for node, of in nodes.items()})


def _arguments(block: Block) -> tuple[str, ...]:
    given = {"name": block} if isinstance(block, str) else dict(block)
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError("engine", [f"name is {name!r}: name one of {', '.join(ENGINES.names())}"])
    return tuple(ENGINES.load(name)(**given))


def use_engine(components: Iterable[Any], engine: Engine | None) -> None:
    """Let components work on an engine; its arguments take precedence over their own.

    A component with a Beam executor takes them as its Beam arguments. One that gives them to Beam by a
    parameter declares that parameter as `ENGINE_PARAMETER` of its spec class: a JSON list, or null for an
    engine that is the node's own process.

    Args:
        components: TFX components of one pipeline.
        engine: The engine; None changes nothing.

    Raises:
        ConfigError: The engine names a node that is not there.
    """
    if engine is None:
        return
    from tfx.dsl.components.base import executor_spec

    found = {component.id: component for component in components}
    if unknown := [node for node in engine.nodes if node not in found]:
        problem = f"nodes names {', '.join(unknown)}; the pipeline's nodes are {', '.join(found)}"
        raise ConfigError("engine", [problem])
    for node, component in found.items():
        arguments = engine.of(node)
        if not arguments:
            continue
        spec = getattr(component, "executor_spec", None)
        if isinstance(spec, executor_spec.BeamExecutorSpec):
            spec.beam_pipeline_args = [*spec.beam_pipeline_args, *arguments]
        parameter = getattr(getattr(component, "spec", None), "ENGINE_PARAMETER", None)
        if parameter is not None:
            component.spec.exec_properties[parameter] = _parameter(arguments)


def _parameter(arguments: Sequence[str]) -> str:
    from mlplatform.beam.runners import is_one_process  # Beam is loaded only where a pipeline is composed

    return json.dumps(None if is_one_process(arguments) else list(arguments))
