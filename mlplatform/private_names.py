"""The private names of Beam, TFX and TensorFlow that a node or a Beam worker replaces, in one table.

A release may rename or change any of them without a word. Before a name is replaced, it is compared with the
table; where it is missing or takes other parameters, the library works unpatched, and one warning says so.
"""

import importlib
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

_BEAM = "Beam 2.70.0"
_TFX = "TFX 1.16.0 and 1.21.0"
_TENSORFLOW = "TensorFlow 2.16.2 and 2.21.0"


@dataclass(frozen=True)
class PrivateName:
    """A name that is replaced, or that a replacement relies on.

    Attributes:
        tested: The versions that the replacement was tested with.
        parameters: Names of its parameters; None for what is not a Python function.
    """

    tested: str
    parameters: tuple[str, ...] | None = None


TABLE = {
    "apache_beam.runners.direct.direct_runner:SwitchingDirectRunner._is_interactive": PrivateName(_BEAM),
    "apache_beam.transforms.core:get_function_args_defaults": PrivateName(_BEAM, ("f",)),
    "apache_beam.options.pipeline_options:PipelineOptions.view_as": PrivateName(_BEAM, ("self", "cls")),
    "apache_beam.runners.worker.statecache:objsize.traverse._iter_modules_globals": PrivateName(_BEAM, ()),
    "apache_beam.runners.worker.statesampler:StateSampler.__init__": PrivateName(
        _BEAM, ("self", "prefix", "counter_factory", "sampling_period_ms")
    ),
    "apache_beam.runners.portability.fn_api_runner.execution"
    ":BundleContextManager._build_process_bundle_descriptor": PrivateName(_BEAM, ("self",)),
    "apache_beam.runners.portability.fn_api_runner.fn_runner:FnApiRunner._execute_bundle": PrivateName(
        _BEAM, ("self", "runner_execution_context", "bundle_context_manager", "bundle_input")
    ),
    "apache_beam.runners.portability.fn_api_runner.fn_runner:FnApiRunner.run_stages": PrivateName(
        _BEAM, ("self", "stage_context", "stages")
    ),
    "apache_beam.runners.portability.fn_api_runner.fn_runner:ProgressRequester.__init__": PrivateName(
        _BEAM, ("self", "worker_handler", "instruction_id", "frequency", "callback")
    ),
    "apache_beam.runners.portability.fn_api_runner.fn_runner:ProgressRequester.run": PrivateName(
        _BEAM, ("self",)
    ),
    "apache_beam.runners.worker.bundle_processor:BundleProcessor.create_execution_tree": PrivateName(
        _BEAM, ("self", "descriptor")
    ),
    "apache_beam.runners.worker.data_plane:GrpcClientDataChannelFactory.create_data_channel": PrivateName(
        _BEAM, ("self", "remote_grpc_port")
    ),
    "tfx.dsl.components.base.base_beam_executor:dependency_utils.make_beam_dependency_flags": PrivateName(
        _TFX, ("beam_pipeline_args",)
    ),
    "tensorflow_transform:TransformFeaturesLayer.__call__": PrivateName(_TFX),
    "tensorflow.python.lib.io.file_io:_pywrap_file_io": PrivateName(_TENSORFLOW),
}


@dataclass(frozen=True)
class Patch:
    """One replacement.

    Attributes:
        apply: Replaces the names.
        names: The keys of `TABLE` that it needs.
    """

    apply: Callable[[], None]
    names: tuple[str, ...]


def apply_patches(patches: Sequence[Patch]) -> None:
    """Apply those whose names all are as the table says; of the others, one warning tells."""
    problems: list[str] = []
    for patch in patches:
        found = [problem for name in patch.names if (problem := problem_of(name))]
        if not found:
            patch.apply()
        problems += found
    if problems:
        log.warning("the libraries are used unpatched where they changed: %s", "; ".join(problems))


def problem_of(name: str) -> str:
    """Return in what a name differs from the table; empty where it does not."""
    expected = TABLE[name]
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return f"{name} is not there (tested with {expected.tested})"
    if expected.parameters is None:
        return ""
    try:
        parameters = tuple(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return f"{name} is not a function (tested with {expected.tested})"
    if parameters == expected.parameters:
        return ""
    return f"{name} takes {', '.join(parameters) or 'nothing'} (tested with {expected.tested})"
