"""From a TFX pipeline to a package that open-source Kubeflow Pipelines runs."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform import __version__
from mlplatform.home import Home
from mlplatform.orchestration.kubeflow import repairs
from mlplatform.orchestration.kubeflow.checks import check_package
from mlplatform.orchestration.kubeflow.errors import CompileError, ParameterValueError
from mlplatform.orchestration.kubeflow.options import (
    KubernetesOptions,
    NodeOptions,
    check_nodes,
    options_of,
    parse_options,
)
from mlplatform.orchestration.kubeflow.platform_document import kubernetes_entry, set_container, set_task
from mlplatform.orchestration.kubeflow.source import is_lone, packed
from mlplatform.orchestration.local.cache.parameter_roles import roles_of
from mlplatform.roles import READ
from mlplatform.storage import open_storage
from mlplatform.storage.urls import absolute, is_local, name, parent

if TYPE_CHECKING:
    from mlplatform.orchestration.kubeflow.tfx_spec import NodeFacts

ENTRY_POINT = ("python", "-m", "mlplatform.orchestration.kubeflow.entrypoint")
DEFAULT_IMAGE = f"mlplatform:{__version__}"


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        pipeline: The pipeline's own name.
        root: The root that its components write to.
        spec: The pipeline spec, of plain JSON values.
        platform: The platform document for Kubernetes, likewise.
        service_account: Whose rights the pods of a run have; empty for the cluster's default.
        read_paths: Task name to the places outside of the pipeline that it reads: constants, or the names of
            runtime parameters as `{name}`.
        nodes: Task name to the node's id in the pipeline.
        types: Task name to the name of the component's class.
        warnings: What may be meant and is seldom right.
    """

    pipeline: str
    root: str
    spec: Mapping[str, Any]
    platform: Mapping[str, Any]
    service_account: str = ""
    read_paths: Mapping[str, Sequence[str]] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The package as a file: two YAML documents; the same pipeline gives the same bytes."""
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        documents = [self.spec, self.platform] if self.platform else [self.spec]
        return str(yaml.dump_all(documents, Dumper=dumper, sort_keys=True, width=120, allow_unicode=True))

    def write(self, file: str | os.PathLike[str]) -> None:
        """Write the package, in one step, to a path of this machine or a URL."""
        place = absolute(file)
        open_storage(parent(place)).put(name(place), self.text.encode())

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """The runtime parameters: name to `parameterType` and, where there is one, `defaultValue`."""
        found: dict[str, dict[str, Any]] = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return found


def compile_pipeline(
    pipeline: Any,
    *,
    root: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | KubernetesOptions | None = None,
    exit_handler: Any = None,
    parameters: Mapping[str, Any] | None = None,
) -> Package:
    """Compile a pipeline for Kubeflow Pipelines 2.5 and newer.

    Nothing is written, no server is asked, and the pipeline object stays as it is. `_` in the pipeline's name
    and in node ids becomes `-`; the `.py` files beside a `module_file` travel with the package.

    Args:
        pipeline: A TFX pipeline, of any components.
        root: Root of ledger, reports and logs, as for `Home.at`; on a cluster it should be a URL.
        options: Options of the nodes; None: those that `with_options` kept with the pipeline.
        exit_handler: A component that runs when all others have ended; None likewise.
        parameters: Values that take the place of the runtime parameters' defaults.

    Raises:
        CompileError: The pipeline holds something that Kubeflow Pipelines has nothing for.
        ConfigError: The options do not fit the pipeline.
        ParameterValueError: A runtime parameter is unknown, or has a value of another type.
        PackageError: A server would refuse what was made, or no run of it could end well.
    """
    attached = options_of(pipeline)
    chosen = attached.options if options is None else parse_options(options)

    from mlplatform.orchestration.kubeflow.tfx_spec import tfx_spec

    home = Home.at(root)
    compiled = tfx_spec(pipeline, exit_handler if exit_handler is not None else attached.exit_handler)
    check_nodes(chosen, [node.id for node in compiled.nodes])
    kinds = {parameter: kind for parameter, (kind, _) in compiled.parameters.items()}
    given = typed_parameters(compiled.name, kinds, parameters or {})
    spec = compiled.spec
    repairs.repair_producers(spec)
    repairs.repair_passed_types(spec)
    repairs.declare_parameters(spec, compiled.parameters, given)
    repairs.pass_down_parameters(spec)
    repairs.drop_nulls(spec)
    tasks = {id_: task for dag in repairs.dags(spec) for id_, task in dag["dag"]["tasks"].items()}
    entries, read_paths, warnings = {}, {}, _root_warning(home.root, chosen)
    for node in compiled.nodes:
        own, task = chosen.of(node.id), tasks[node.id]
        reads = _set_node(spec, compiled.name, home.root, node, task, own)
        if reads:
            read_paths[repairs.task_name(node.id)] = reads
        entries[f"{repairs.task_name(node.id)}_executor"] = kubernetes_entry(own)
        warnings += _unmounted(node.id, task, own)
    repairs.rename_tasks(spec, compiled.name)
    executors = spec["deploymentSpec"]["executors"]
    entries = {label: entry for label, entry in entries.items() if entry and "container" in executors[label]}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": entries}}}} if entries else {}
    plain = json.loads(json.dumps(spec))
    check_package(plain, platform)
    return Package(
        pipeline=compiled.name,
        root=home.root,
        spec=plain,
        platform=platform,
        service_account=chosen.service_account or "",
        read_paths=read_paths,
        nodes={repairs.task_name(node.id): node.id for node in compiled.nodes},
        types={repairs.task_name(node.id): node.type.rpartition(".")[2] for node in compiled.nodes},
        warnings=tuple(warnings),
    )


def typed_parameters(
    pipeline: str, kinds: Mapping[str, type], given: Mapping[str, Any]
) -> dict[str, str | int | float]:
    """Return values of runtime parameters as the parameters' types; a text is read as its type.

    Args:
        pipeline: The pipeline's name, for errors.
        kinds: Type of each parameter: `str`, `int` or `float`.
        given: The values.

    Raises:
        ParameterValueError: One is unknown, or not of its type.
    """
    unknown = sorted(given.keys() - kinds.keys())
    if unknown:
        raise ParameterValueError(pipeline, f"no runtime parameter {', '.join(unknown)}", sorted(kinds))
    typed: dict[str, str | int | float] = {}
    for name_, value in given.items():
        kind = kinds[name_]
        is_read = isinstance(value, str) or (kind is float and type(value) is int)
        try:
            typed[name_] = kind(value) if is_read else value
        except ValueError:
            typed[name_] = value
        if type(typed[name_]) is not kind:
            problem = f"{name_} is {value!r}, not {kind.__name__}"
            raise ParameterValueError(pipeline, problem, sorted(kinds))
    return typed


def parameter_kinds(package: Package) -> dict[str, type]:
    """Return the type of each runtime parameter of a package."""
    kinds = {kind: type_ for type_, kind in repairs.PARAMETER_TYPES.items()}
    return {parameter: kinds[about["parameterType"]] for parameter, about in package.parameters.items()}


def _set_node(
    spec: dict[str, Any], pipeline: str, root: str, node: "NodeFacts", task: dict[str, Any], own: NodeOptions
) -> list[str]:
    """Complete a node's task and container; return the places that it reads if its cache is to know them."""
    component = spec["components"][task["componentRef"]["name"]]
    executor = spec["deploymentSpec"]["executors"][component["executorLabel"]]
    pipeline_caches = task.pop("cachingOptions", None) is not None
    is_cached = pipeline_caches if own.cache is None else own.cache
    container = executor.get("container")
    if container is None:  # an importer; without the cache it imports again
        return []
    container.pop("lifecycle", None)  # a driver that is never called; our entry point calls it
    set_container(container, own)
    set_task(task, own)
    if node.is_entry_point:
        code = _code(pipeline, node, task)
        facts = {
            "id": node.id, "pipeline": pipeline, "root": root, "type": node.type, "driver": node.driver,
            "upstream": list(node.upstream), "json": list(node.json), "booleans": list(node.booleans),
            "is_function": node.is_function, "code": code,
        }  # fmt: skip
        container["command"] = list(ENTRY_POINT)
        container["args"] = _arguments(container, component, node, {k: v for k, v in facts.items() if v})
        container["image"] = own.image or DEFAULT_IMAGE
    elif own.image:
        container["image"] = own.image
    if node.resolver is not None or not is_cached:
        return []
    reads = _read_paths(node.type, task)
    if own.cache or not (reads or node.driver):
        task["cachingOptions"] = {"enableCache": True}
    return reads


def _arguments(
    container: Mapping[str, Any], component: Mapping[str, Any], node: "NodeFacts", facts: Mapping[str, Any]
) -> list[str]:
    """Return the arguments of our entry point, with what Beam takes at their end."""
    inputs = _json(component.get("inputDefinitions", {}))
    common = ["--json_serialized_invocation_args", "{{$}}", "--json_serialized_inputs_spec_args", inputs]
    common += ["--node", _json(facts)]
    if node.resolver is not None:
        return ["--resolver", _json(node.resolver), *common]
    made = container["args"]  # by TFX: the class, the invocation, the inputs, and what Beam takes
    return [*made[:2], *common, *made[6:]]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _code(pipeline: str, node: "NodeFacts", task: Mapping[str, Any]) -> str:
    """Return the code that travels with a node; empty for none."""
    if node.module_file:
        file = Path(node.module_file)
        if not file.is_file():
            problem = f"{node.id}.module_file is {node.module_file!r}: there is no such file"
            raise CompileError(pipeline, problem)
        task["inputs"]["parameters"]["module_file"] = {"runtimeValue": {"constant": file.name}}
        return packed(file.parent)
    is_made_here = node.is_function and is_lone(node.source, node.executor.rpartition(".")[0])
    return packed(Path(node.source).parent) if is_made_here else ""


def _read_paths(component: str, task: Mapping[str, Any]) -> list[str]:
    """Return the places outside of the pipeline that a component reads, as far as it declares them."""
    found = []
    for parameter, role in sorted(roles_of(component).items()):
        given = repairs.task_inputs(task, "parameters").get(parameter, {})
        constant = given.get("runtimeValue", {}).get("constant")
        if role == READ and given.get("componentInputParameter"):
            found.append(f"{{{given['componentInputParameter']}}}")
        elif role == READ and isinstance(constant, str) and constant:
            found.append(constant)
    return found


def _root_warning(root: str, options: KubernetesOptions) -> list[str]:
    if not is_local(root) or _is_mounted(root, options):
        return []
    return [
        f"the root {root} is a folder of this machine, which no pod sees; give a URL, or mount a volume "
        "there (kubernetes.volumes)"
    ]


def _unmounted(node: str, task: Mapping[str, Any], options: NodeOptions) -> list[str]:
    """Return warnings of data to read or to push that lie in the pod itself."""
    found = []
    for parameter in ("input_base", "push_destination"):
        given = repairs.task_inputs(task, "parameters").get(parameter, {})
        constant = given.get("runtimeValue", {}).get("constant")
        if not isinstance(constant, str):
            continue
        place = _base_directory(constant) if parameter == "push_destination" else constant
        if place and is_local(place) and not _is_mounted(place, options):
            found.append(
                f"{node}.{parameter} is {place}, where nothing is mounted; mount a volume there "
                f"(kubernetes.nodes.{node}.volumes), or have it in the image"
            )
    return found


def _base_directory(destination: str) -> str:
    try:
        return str(json.loads(destination)["filesystem"]["base_directory"])
    except (ValueError, LookupError, TypeError):
        return ""


def _is_mounted(place: str, options: NodeOptions) -> bool:
    return any(Path(place).is_relative_to(path) for path in options.volumes.values())
