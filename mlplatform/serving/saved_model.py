"""Load a SavedModel (TF1, TF2 or Keras) or a TFLite model as a servable."""

import ctypes
import gc
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mlplatform.serving.mixed_precision import BFLOAT16, asked_precision
from mlplatform.serving.servable import Choose, Run, Servable, Signature, SignatureFaultError, TensorSpec
from mlplatform.serving.session import (
    WRITES,
    FrozenGraph,
    SessionModel,
    holds_reference_variables,
    require_dense,
    run_error,
)
from mlplatform.serving.status import Code, StatusError
from mlplatform.serving.tensors import NUMPY_OF, Array
from mlplatform.serving.tflite_model import TFLITE_FILE, TFLITE_FOLDER, load_tflite, tflite_signature

log = logging.getLogger(__name__)

SAVED_MODEL_FILE = "saved_model.pb"

# Weights become constants of each signature, which saves a fifth to two fifths of the CPU of a call. Above
# this many bytes (weights times signatures) they stay variables that all signatures share.
MAX_FROZEN_BYTES = 256 << 20

_SWITCH_INTERVAL_S = 0.0005  # while a version loads; Python's own is 0.005

_INNER_SIGNATURES = "__saved_model"  # `__saved_model_init_op` and the like: nothing that is asked for


def load(
    path: Path,
    model: str,
    version: int,
    *,
    tags: Sequence[str] = ("serve",),
    prefers_tflite: bool = False,
    mixed_precision: str = "",
    choose: Choose | None = None,
) -> Servable:
    """Load one version of a model.

    Args:
        path: The version's folder: a SavedModel, or a TensorFlow Lite model named `model.tflite`.
        model: The model's name.
        version: The version's number.
        tags: Tags of the graph to load.
        prefers_tflite: Compute with TensorFlow Lite what the version carries in that form: `model.tflite`
            instead of the SavedModel, or single signatures (`assets.extra/tflite/<signature>.tflite`).
        mixed_precision: `bfloat16` lets signatures without state compute convolutions and matrix products so,
            `none` forbids it; empty: as the version asks (`assets.extra/mixed_precision`).
        choose: Picks one of a signature and its forms of other engines; None takes the first form.

    Raises:
        StatusError: It cannot be loaded.
    """
    if (path / TFLITE_FILE).is_file() and (prefers_tflite or not (path / SAVED_MODEL_FILE).is_file()):
        return load_tflite(path, model, version)
    meta_graph = _meta_graph(path, tags)
    try:
        found = _signatures(path, meta_graph, tags)
    except Exception as error:
        raise run_error(error) from error
    signatures = found.signatures
    if found.faults and not signatures:
        texts = "; ".join(f"{name}: {fault}" for name, fault in found.faults.items())
        raise StatusError(Code.FAILED_PRECONDITION, f"no signature of {path} can be computed: {texts}")
    for name, fault in found.faults.items():
        log.warning("version %d of model %s loads without its signature %s: %s", version, model, name, fault)
    in_bfloat16 = (mixed_precision or asked_precision(path)) == BFLOAT16
    for name, signature in list(signatures.items()):
        forms = []
        file = path / TFLITE_FOLDER / f"{name}.tflite"
        if prefers_tflite and file.is_file():
            forms.append(tflite_signature(file, signature))
        if in_bfloat16 and name in found.frozen:
            run = found.frozen[name].run(in_bfloat16=True)
            forms.append(replace(signature, run=run, engine="tensorflow-bfloat16"))
        if forms:
            signatures[name] = choose(signature, forms) if choose else forms[0]
    return Servable(model, version, path, dict(meta_graph.signature_def), signatures, found.faults)


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


def _meta_graph(path: Path, tags: Sequence[str]) -> meta_graph_pb2.MetaGraphDef:
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
            return meta_graph
    found = "; ".join(",".join(g.meta_info_def.tags) for g in saved_model.meta_graphs)
    raise StatusError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}; it has: {found}",
    )


@dataclass(frozen=True)
class _Found:
    """Signatures that can be computed, why the others cannot, and the graphs of those without variables."""

    signatures: dict[str, Signature]
    faults: Mapping[str, str]
    frozen: Mapping[str, FrozenGraph] = field(default_factory=dict)


def _signatures(path: Path, meta_graph: meta_graph_pb2.MetaGraphDef, tags: Sequence[str]) -> _Found:
    """Find which signatures can be computed, and why the others cannot.

    What TF2's loader does not take, TF1's does: reference variables, for instance, or a graph of which only
    single signatures are broken.
    """
    definitions = {
        name: definition
        for name, definition in sorted(meta_graph.signature_def.items())
        if not name.startswith(_INNER_SIGNATURES)
    }
    if holds_reference_variables(meta_graph):
        return _in_session(SessionModel(path, tags), definitions)
    try:
        loaded = tf.saved_model.load(str(path), tags=list(tags))
    except Exception as error:  # noqa: BLE001 - raised again where the other loader fails too
        try:
            session_model = SessionModel(path, tags)
        except Exception:  # noqa: BLE001 - the first error is the one that its author knows
            raise error from None
        return _in_session(session_model, definitions)
    return _in_functions(loaded, definitions)


def _in_session(model: SessionModel, definitions: Mapping[str, meta_graph_pb2.SignatureDef]) -> _Found:
    signatures, faults = {}, {}
    for name, definition in definitions.items():
        try:
            run, is_stateless = model.run(definition)
        except SignatureFaultError as fault:
            faults[name] = str(fault)
        else:
            signatures[name] = _signature(name, definition, run, is_stateless=is_stateless)
    return _Found(signatures, faults)


def _in_functions(loaded: Any, definitions: Mapping[str, meta_graph_pb2.SignatureDef]) -> _Found:
    functions = {name: loaded.signatures[name] for name in definitions if name in loaded.signatures}
    faults = dict.fromkeys(definitions.keys() - functions.keys(), "the model has no function for it")
    frozen_bytes = sum(_variable_bytes(function) for function in functions.values())
    signatures, frozen = {}, {}
    for name, function in functions.items():
        is_stateless = not _writes(function)
        try:
            for alias, tensor in function.structured_outputs.items():
                require_dense(alias, tensor.dtype)
        except SignatureFaultError as fault:
            faults[name] = str(fault)
            continue
        graph = None
        if is_stateless and frozen_bytes <= MAX_FROZEN_BYTES:
            graph = frozen_graph(function)
        if graph is not None:
            frozen[name] = graph
        run = graph.run() if graph else _as_it_is(loaded, function)
        signatures[name] = _signature(name, definitions[name], run, is_stateless=is_stateless)
    return _Found(signatures, faults, frozen)


def _signature(
    name: str, definition: meta_graph_pb2.SignatureDef, run: Run, *, is_stateless: bool
) -> Signature:
    return Signature(
        name=name,
        definition=definition,
        inputs={alias: TensorSpec.of(definition.inputs[alias]) for alias in sorted(definition.inputs)},
        outputs={alias: TensorSpec.of(definition.outputs[alias]) for alias in sorted(definition.outputs)},
        run=run,
        is_stateless=is_stateless,
    )


def _variable_bytes(function: Any) -> int:
    return sum(
        v.shape.num_elements() * v.dtype.size for v in function.variables if v.shape.is_fully_defined()
    )


def _writes(function: Any) -> bool:
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return any(node.op.startswith(WRITES) for node in nodes)


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


def frozen_graph(function: Any) -> FrozenGraph | None:
    """Return a signature's graph, its variables made constants, or None where that cannot be."""
    frozen = freeze(function)
    if frozen is None:
        return None
    aliases, names = sorted(function.structured_input_signature[1]), sorted(function.structured_outputs)
    return FrozenGraph(
        frozen.graph.as_graph_def(),
        dict(zip(aliases, (tensor.name for tensor in frozen.inputs), strict=True)),
        dict(zip(names, (tensor.name for tensor in frozen.outputs), strict=True)),
    )


def freeze(function: Any) -> Any:
    """Return a signature with its variables made constants, or None where that cannot be.

    Arguments are given by place, in the order of their names; results come in the order of theirs.
    Only functions whose captured resources are all variables, and whose flat arguments are distinguished by
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


def _constant(array: Array) -> Any:
    return tf.constant(array, tf.string) if array.dtype == np.object_ else tf.constant(array)


def _array(tensor: Any) -> Array:
    value = tensor.numpy()
    return (
        value
        if isinstance(value, np.ndarray)
        else np.array(value, dtype=NUMPY_OF[tensor.dtype.as_datatype_enum])
    )
