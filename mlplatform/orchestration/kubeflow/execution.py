"""Runs the executor of a task with TFX's own objects, and a driver before it where one is needed."""

import base64
import importlib
import io
import logging
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mlplatform.orchestration.kubeflow import light_tfx
from mlplatform.orchestration.kubeflow.task import GivenArtifact, PodTask
from mlplatform.storage.urls import is_local, join, name
from mlplatform.tfx_io.launcher_paths import LocalCopies

_OURS = "mlplatform."  # executors that read and write URLs themselves
_EXAMPLE_GEN = "tfx.components.example_gen.driver"  # of drivers that find span and fingerprint
_BEAM = "tfx.dsl.components.base.base_beam_executor"

log = logging.getLogger(__name__)


def run_executor(task: PodTask, root: Path | None) -> dict[str, Any]:
    """Run the executor of a task, and return what its launcher wants to know: `artifacts`, `parameterValues`.

    Args:
        task: The task.
        root: The folder that the launcher's folders lie in, where it made some.

    Raises:
        Exception: What the executor raised.
    """
    light_tfx.prepare()
    with ExitStack() as stack:
        tmp = Path(stack.enter_context(_temporary_folder()))
        properties = {**task.parameters, **_with_code(task, tmp / "code")}
        executor_class = _imported(task.executor)
        from mlplatform.orchestration.kubeflow import tfx_artifacts
        from mlplatform.tfx_io import file_systems  # noqa: F401 - lets TFX's files be at a URL

        is_beam = _BEAM in sys.modules and issubclass(executor_class, sys.modules[_BEAM].BaseBeamExecutor)
        in_process = not is_beam or _runs_in_process(task.beam_arguments)
        is_ours = task.executor.startswith(_OURS)
        copies = LocalCopies(root if in_process and not is_ours else None)
        paths = {one.uri: copies.localize(one.uri, must_exist=False) for one in _each(task.outputs)}
        for one in _each(task.inputs):
            paths[one.uri] = copies.localize(one.uri, must_exist=True)
            if copies.root is not None and not is_local(paths[one.uri]):
                from mlplatform.tfx_io.artifacts import fetched

                paths[one.uri] = str(stack.enter_context(fetched(one.uri)))
        inputs = tfx_artifacts.tfx_artifacts(task.inputs, paths)
        outputs = tfx_artifacts.tfx_artifacts(task.outputs, paths)
        light_tfx.complete()
        if task.node.get("driver"):
            _drive(str(task.node["driver"]), inputs, outputs, properties)
        place = str(tmp) if in_process else join(task.place, ".temp")
        executor = _made(executor_class, task, place, is_beam=is_beam, in_process=in_process)
        log.info("%s: %s starts", task.id, task.executor)
        executor.Do(inputs, outputs, properties)
        names = {tfx_artifacts.artifact_id(one.name): one.name for one in _each(task.inputs) if one.name}
        from tfx import version

        for artifact in (one for some in outputs.values() for one in some):
            artifact.set_string_custom_property("tfx_version", version.__version__)
        values = {key: outputs[key][0].read() for key in task.output_parameters}
        return {
            "artifacts": {
                key: {"artifacts": [tfx_artifacts.facts_of(one, copies, names) for one in some]}
                for key, some in outputs.items()
            },
            "parameterValues": values,
        }


def _each(artifacts: Mapping[str, Sequence[GivenArtifact]]) -> Iterator[GivenArtifact]:
    for some in artifacts.values():
        yield from some


def _with_code(task: PodTask, folder: Path) -> dict[str, str]:
    """Put the user's modules, which travel in the arguments, where they are imported from."""
    code = task.node.get("code")
    if not code:
        return {}
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(code))) as files:
        files.extractall(folder)
    sys.path.insert(0, str(folder))
    module_file = task.parameters.get("module_file")
    return {"module_file": str(folder / module_file)} if module_file else {}


def _imported(class_path: str) -> Any:
    module, _, attribute = class_path.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _runs_in_process(beam_arguments: Sequence[str]) -> bool:
    from mlplatform.beam.runners import runs_in_process

    return runs_in_process(beam_arguments)


def _made(executor_class: Any, task: PodTask, tmp: str, *, is_beam: bool, in_process: bool) -> Any:
    """Return the executor, in the context that TFX's launcher gives it."""
    from tfx.proto.orchestration import pipeline_pb2

    node = pipeline_pb2.PipelineNode()
    node.node_info.id = task.id
    node.node_info.type.name = str(task.node.get("type", ""))
    info = pipeline_pb2.PipelineInfo(id=str(task.node.get("pipeline", "")))
    context: dict[str, Any] = {
        "tmp_dir": tmp,
        "unique_id": name(task.place) or "0",
        "pipeline_node": node,
        "pipeline_info": info,
        "pipeline_run_id": task.run or None,
    }
    flags = list(task.beam_arguments)
    if not is_beam:
        return executor_class(executor_class.Context(extra_flags=flags, **context))
    if not in_process:
        return executor_class(executor_class.Context(beam_pipeline_args=flags, **context))
    # TFX would package itself for the workers, which takes seconds and a writable copy of it; these workers
    # are in this process.
    executor = executor_class(executor_class.Context(beam_pipeline_args=[], **context))
    executor._context.beam_pipeline_args = executor._beam_pipeline_args = flags
    return executor


def _drive(driver_path: str, inputs: Any, outputs: Any, properties: dict[str, Any]) -> None:
    """Run a driver of an ExampleGen, which Kubeflow does not: it finds the span and the fingerprint.

    Other drivers of ours serve the local runner's cache alone; executors do their work where none ran.
    """
    driver_class = _imported(driver_path)
    light_tfx.complete()
    from tfx.orchestration import data_types_utils
    from tfx.orchestration.portable import data_types

    if not any(base.__module__ == _EXAMPLE_GEN for base in driver_class.__mro__):
        return
    info = data_types.ExecutionInfo(input_dict=inputs, output_dict=outputs, exec_properties=dict(properties))
    driven = driver_class(None).run(info)
    properties |= {
        key: data_types_utils.get_metadata_value(value) for key, value in driven.exec_properties.items()
    }
    for key, some in driven.output_artifacts.items():
        for artifact, found in zip(outputs[key], some.artifacts, strict=False):
            for kind in ("properties", "custom_properties"):
                for each, value in getattr(found, kind).items():
                    getattr(artifact.mlmd_artifact, kind)[each].CopyFrom(value)


@contextmanager
def _temporary_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mlplatform-", ignore_cleanup_errors=True) as folder:
        yield folder
