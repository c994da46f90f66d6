"""Load a SavedModel (TF1, TF2 or Keras) or a TFLite model as a servable."""

import ctypes
import gc
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mlplatform.serving.servable import Run, Servable, Signature, TensorSpec
from mlplatform.serving.status import Code, StatusError, from_tensorflow
from mlplatform.serving.tensors import NUMPY_OF, Array
from mlplatform.serving.tflite_model import TFLITE_FILE, TFLITE_FOLDER, load_tflite, tflite_signature

SAVED_MODEL_FILE = "saved_model.pb"

# Weights become constants of each signature, which saves a fifth to two fifths of the CPU of a call. Above
# this many bytes (weights times signatures) they stay variables that all signatures share.
MAX_FROZEN_BYTES = 256 << 20

_SWITCH_INTERVAL_S = 0.0005  # while a version loads; Python's own is 0.005

# How Python's part of an error of a kernel looks.
_TRACE, _NO_TRACE = "  File ", "<stack traces unavailable>"

_WRITES = (
    "Assign",
    "ResourceApply",
    "ResourceScatter",
    "Stack",
    "Queue",
    "LookupTableInsert",
    "LookupTableImport",
)


def load(
    path: Path, model: str, version: int, *, tags: Sequence[str] = ("serve",), prefers_tflite: bool = False
) -> Servable:
    """Load one version of a model.

    Args:
        path: The version's folder: a SavedModel, or a TensorFlow Lite model named `model.tflite`.
        model: The model's name.
        version: The version's number.
        tags: Tags of the graph to load.
        prefers_tflite: Compute with TensorFlow Lite what the version carries in that form: `model.tflite`
            instead of the SavedModel, or single signatures (`assets.extra/tflite/<signature>.tflite`).

    Raises:
        StatusError: It cannot be loaded.
    """
    if (path / TFLITE_FILE).is_file() and (prefers_tflite or not (path / SAVED_MODEL_FILE).is_file()):
        return load_tflite(path, model, version)
    definitions = _signature_defs(path, tags)
    try:
        loaded = tf.saved_model.load(str(path), tags=list(tags))
        signatures = _signatures(loaded, definitions)
    except Exception as error:
        raise run_error(error) from error
    if prefers_tflite:
        for name, signature in list(signatures.items()):
            file = path / TFLITE_FOLDER / f"{name}.tflite"
            if file.is_file():
                signatures[name] = tflite_signature(file, signature)
    return Servable(model, version, path, definitions, signatures)


@contextmanager
def beside_requests() -> Iterator[None]:
    """Let other threads answer requests while this one loads: much of that is Python.

    Full collections, which stop every thread for a sixth of a second, wait; and the interpreter changes hands
    ten times as often, since a request needs it several times. Of loads at the same time, the first sets both
    and sets them back.
    """
    was_enabled, interval_s = gc.isenabled(), sys.getswitchinterval()
    is_first = interval_s > 2 * _SWITCH_INTERVAL_S
    gc.disable()
    if is_first:
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        if is_first:
            sys.setswitchinterval(interval_s)
        if was_enabled:
            gc.enable()


def give_memory_back() -> None:
    """Collect what an unloaded model left, and return free memory to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _signature_defs(path: Path, tags: Sequence[str]) -> dict[str, meta_graph_pb2.SignatureDef]:
    file = path / SAVED_MODEL_FILE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf warns of what it cannot parse, in some versions
            saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except FileNotFoundError as error:
        text = f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}"
        raise StatusError(Code.NOT_FOUND, text) from error
    except Exception as error:
        raise StatusError(Code.DATA_LOSS, f"Can't parse {file} as binary proto") from error
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == set(tags):
            return dict(meta_graph.signature_def)
    found = "; ".join(",".join(g.meta_info_def.tags) for g in saved_model.meta_graphs)
    raise StatusError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}; it has: {found}",
    )


def _signatures(loaded: Any, definitions: Mapping[str, meta_graph_pb2.SignatureDef]) -> dict[str, Signature]:
    functions = {name: loaded.signatures[name] for name in definitions if name in loaded.signatures}
    frozen_bytes = sum(_variable_bytes(function) for function in functions.values())
    signatures = {}
    for name, function in functions.items():
        definition = definitions[name]
        is_stateless = not _writes(function)
        run = None
        if is_stateless and frozen_bytes <= MAX_FROZEN_BYTES:
            run = _frozen(function, definition)
        signatures[name] = Signature(
            name=name,
            definition=definition,
            inputs={alias: TensorSpec.of(definition.inputs[alias]) for alias in sorted(definition.inputs)},
            outputs={alias: TensorSpec.of(definition.outputs[alias]) for alias in sorted(definition.outputs)},
            run=run or _as_it_is(loaded, function),
            is_stateless=is_stateless,
        )
    return signatures


def _variable_bytes(function: Any) -> int:
    return sum(
        v.shape.num_elements() * v.dtype.size for v in function.variables if v.shape.is_fully_defined()
    )


def _writes(function: Any) -> bool:
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return any(node.op.startswith(_WRITES) for node in nodes)


def _as_it_is(loaded: Any, function: Any) -> Run:
    """Return the call of a signature with variables; it keeps the whole loaded model alive."""

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        tensors = {alias: _constant(array) for alias, array in inputs.items()}
        try:
            outputs = function(**tensors)
        except Exception as error:
            raise run_error(error) from error
        return {alias: _array(tensor) for alias, tensor in outputs.items()}

    run.__dict__["loaded"] = loaded
    return run


def _frozen(function: Any, definition: meta_graph_pb2.SignatureDef) -> Run | None:
    """Return the call of a signature whose variables have become constants, or None where that cannot be."""
    aliases, names = sorted(definition.inputs), sorted(function.structured_outputs)
    frozen = freeze(function)
    if frozen is None:
        return None

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        tensors = [_constant(inputs[alias]) for alias in aliases]
        try:
            outputs = frozen(*tensors)
        except Exception as error:
            raise run_error(error) from error
        if not isinstance(outputs, (list, tuple)):
            outputs = [outputs]
        return {name: _array(tensor) for name, tensor in zip(names, outputs, strict=True)}

    return run


def freeze(function: Any) -> Any:
    """Return a signature with its variables made constants, or None where that cannot be.

    Arguments are given by place, in the order of their names; results come in the order of theirs.
    Only functions whose captured resources are all variables, and whose flat arguments can be told apart by
    their names, are taken.
    """
    arguments = function.inputs[: len(function.inputs) - len(function.captured_inputs)]
    aliases = [tensor.op.name for tensor in arguments]
    if aliases != sorted(function.structured_input_signature[1]):
        return None
    variables = {id(v.handle) for v in function.variables}
    resources = (t for t in function.captured_inputs if t.dtype in (tf.resource, tf.variant))
    if not all(id(tensor) in variables for tensor in resources):
        return None
    try:
        frozen = convert_variables_to_constants_v2(function)
    except Exception:  # noqa: BLE001 - a graph that cannot be frozen is served as it is
        return None
    if len(frozen.inputs) != len(aliases) or len(frozen.outputs) != len(function.structured_outputs):
        return None
    return frozen


def run_error(error: Exception) -> StatusError:
    """Return the status of an error that a model raised, with the kernel's text and without Python's."""
    status = from_tensorflow(error)
    lines = status.text.split(" [Op:")[0].splitlines()
    traces = [n for n, line in enumerate(lines) if line.startswith(_TRACE) or line.endswith(_NO_TRACE)]
    if lines and lines[0].startswith("Graph execution error") and traces:
        lines = lines[traces[-1] + 1 :]
    return StatusError(status.code, "\n".join(lines).strip())


def _constant(array: Array) -> Any:
    return tf.constant(array, tf.string) if array.dtype == np.object_ else tf.constant(array)


def _array(tensor: Any) -> Array:
    value = tensor.numpy()
    return (
        value
        if isinstance(value, np.ndarray)
        else np.array(value, dtype=NUMPY_OF[tensor.dtype.as_datatype_enum])
    )
