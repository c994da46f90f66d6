"""Compute signatures with TensorFlow Lite: less CPU per single request."""

import itertools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from flatbuffers import flexbuffers
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from mlplatform.serving.servable import (
    DEFAULT_SIGNATURE,
    Run,
    Servable,
    Signature,
    SignatureFaultError,
    TensorSpec,
)
from mlplatform.serving.status import Code, StatusError, from_tensorflow, invalid_argument
from mlplatform.serving.tensors import Array, DataType

TFLITE_FILE = "model.tflite"  # a whole model in this form, as TensorFlow Serving names it
TFLITE_FOLDER = Path("assets.extra") / "tflite"  # <signature>.tflite beside a SavedModel

# A file that takes one row computes several one by one, at no more CPU each than TensorFlow needs for them in
# a batch. Past this many, the calls alone may cost more than a small network: the SavedModel computes them.
MAX_ROWS = 32

# Rows that a file of one row computes one by one where nothing else can compute them.
MAX_RESIZED_ROWS = 4096

SIGNATURE_DEFS_METADATA = b"signature_defs_metadata"
PREDICT_METHOD = "tensorflow/serving/predict"


class SizedInterpreter:
    """An interpreter that keeps its tensors' shapes until a call brings others.

    TensorFlow Lite's own signature runners lay out their memory anew for each call, which costs more than a
    small network does.
    """

    def __init__(self, content: bytes) -> None:
        self.lite = tf.lite.Interpreter(model_content=content, num_threads=1)
        self.shapes: dict[int, tuple[int, ...]] = {}

    def run(self, inputs: Mapping[int, Array], outputs: Mapping[str, int]) -> dict[str, Array]:
        """Compute the tensors of these numbers; after an error the interpreter is of no more use."""
        shapes = shapes_of(inputs)
        if shapes != self.shapes:
            for index, shape in shapes.items():
                self.lite.resize_tensor_input(index, shape)
            self.lite.allocate_tensors()
            self.shapes = shapes
        for index, array in inputs.items():
            self.lite.set_tensor(index, array)
        self.lite.invoke()
        return {alias: self.lite.get_tensor(index) for alias, index in outputs.items()}


def shapes_of(inputs: Mapping[int, Array]) -> dict[int, tuple[int, ...]]:
    """Return the shape of each array."""
    return {index: array.shape for index, array in inputs.items()}


class InterpreterPool:
    """Interpreters of one TensorFlow Lite file: each is used by one thread at a time.

    Their weights are mapped from the same bytes; only the working memory is their own.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._free: list[SizedInterpreter] = []
        self._lock = threading.Lock()

    def take(self, inputs: Mapping[int, Array] | None = None) -> SizedInterpreter:
        """Return an interpreter that no other thread uses, of the inputs' shapes if one is; give it back."""
        shapes = shapes_of(inputs or {})
        with self._lock:
            if self._free:
                fitting = (n for n, one in enumerate(self._free) if one.shapes == shapes)
                return self._free.pop(next(fitting, -1))
        return SizedInterpreter(self._content)

    def give_back(self, interpreter: SizedInterpreter) -> None:
        """Return an interpreter for the next call."""
        with self._lock:
            self._free.append(interpreter)


def tflite_signature(file: Path, signature: Signature) -> Signature:
    """Return `signature` computed by the TensorFlow Lite model in `file`.

    The conversion leaves out what a graph asserts of its inputs. So what a graph may refuse, numbers that are
    not finite, empty batches and inputs of unequal rows, still goes to `signature` itself: the same answer,
    or the same error. So do more than `MAX_ROWS` rows where the file takes one.

    Raises:
        StatusError: The file does not hold this signature.
    """
    run, takes_one_row = tflite_run(file, signature)

    def run_usual(inputs: Mapping[str, Array]) -> dict[str, Array]:
        is_unusual = any(map(_is_unusual, inputs.values())) or (takes_one_row and not _is_for_rows(inputs))
        return signature.run(inputs) if is_unusual else run(inputs)

    return Signature(
        name=signature.name,
        definition=signature.definition,
        inputs=signature.inputs,
        outputs=signature.outputs,
        run=run_usual,
        engine="tflite",
        runs_row_by_row=takes_one_row,
    )


def tflite_run(file: Path, signature: Signature) -> tuple[Run, bool]:
    """Return the call of the TensorFlow Lite model in `file`, which holds `signature`, and nothing else.

    Returns:
        The call, for any number of rows but none; and whether the file takes one row, so that several are
        computed one by one.

    Raises:
        StatusError: The file does not hold this signature.
    """
    content = _read(file)
    texts: dict[str, Array] = {}
    pool = _pool(content)  # a broken file ends here
    if any(spec.dtype == DataType.STRING for spec in signature.outputs.values()):
        content, texts = texts_apart(content)
        pool = _pool(content)
    interpreter = pool.take()
    held = interpreter.lite.get_signature_list()
    key = signature.name if signature.name in held else next(iter(held), None)
    if (
        key is None
        or set(held[key]["inputs"]) != set(signature.inputs)
        or set(held[key]["outputs"]) != set(signature.outputs)
    ):
        raise StatusError(
            Code.FAILED_PRECONDITION, f"{file} does not hold signature {signature.name}; it holds {held}"
        )
    run = _with_texts(_by_signature(pool, interpreter, key), texts)
    details = interpreter.lite.get_signature_runner(key).get_input_details()
    takes_one_row = bool(details) and all(
        spec.is_batched and list(details[alias]["shape_signature"][:1]) == [1]
        for alias, spec in signature.inputs.items()
    )
    pool.give_back(interpreter)
    return (_row_by_row(run) if takes_one_row else run), takes_one_row


def _is_unusual(array: Array) -> bool:
    return array.size == 0 or (array.dtype.kind == "f" and not np.isfinite(array).all())


def _is_for_rows(inputs: Mapping[str, Array]) -> bool:
    counts = {len(array) for array in inputs.values()}
    return len(counts) == 1 and max(counts) <= MAX_ROWS


def _row_by_row(run: Run) -> Run:
    def run_rows(inputs: Mapping[str, Array]) -> dict[str, Array]:
        count = len(next(iter(inputs.values())))
        if count == 1:
            return run(inputs)
        found = [run({alias: array[n : n + 1] for alias, array in inputs.items()}) for n in range(count)]
        return {alias: np.concatenate([row[alias] for row in found]) for alias in found[0]}

    return run_rows


def _with_texts(run: Run, texts: Mapping[str, Array]) -> Run:
    if not texts:
        return run

    def run_with_texts(inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = run(inputs)
        for alias, table in texts.items():
            places = outputs[alias]
            if places.size and (places.min() < 0 or places.max() >= len(table)):
                raise StatusError(
                    Code.INVALID_ARGUMENT, f"output {alias} is at a place outside its {len(table)} texts"
                )
            outputs[alias] = table[places]
        return outputs

    return run_with_texts


def texts_apart(content: bytes) -> tuple[bytes, dict[str, Array]]:
    """Return the model with outputs of places instead of texts, and the texts of each such output by alias.

    A tensor of texts has no size that is known beforehand, and with TensorFlow 2.16 one of them keeps the
    optimised kernels (XNNPACK) away from the whole network. So what picks class names at the end of a
    classifier is left out of the model. Files of several signatures stay as they are.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    texts: dict[str, Array] = {}
    if len(model.subgraphs) != 1 or len(model.signatureDefs or ()) != 1:
        return content, texts
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    found = {output.tensorIndex: _picks_a_text(model, output.tensorIndex) for output in signature.outputs}
    picking = {tensor: operator for tensor, operator in found.items() if operator is not None}
    for output in signature.outputs:
        if output.tensorIndex in picking:
            table, places = picking[output.tensorIndex].inputs
            texts[output.name.decode()] = _texts(model.buffers[graph.tensors[table].buffer].data)
            output.tensorIndex = places
    graph.operators = [operator for operator in graph.operators if operator not in picking.values()]
    graph.outputs = [picking[tensor].inputs[1] if tensor in picking else tensor for tensor in graph.outputs]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)), texts


def _picks_a_text(model: Any, output: int) -> Any:
    """Return the operator behind this tensor, where it picks constant texts and no other reads them."""
    (graph,) = model.subgraphs
    operators = [operator for operator in graph.operators if output in operator.outputs]
    if graph.tensors[output].type != schema.TensorType.STRING or len(operators) != 1:
        return None
    (operator,) = operators
    table = graph.tensors[operator.inputs[0]]
    options = operator.builtinOptions or schema.GatherOptionsT()
    is_picking = (
        flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) == "GATHER"
        and options.axis == options.batchDims == 0
        and len(table.shape) == 1
        and model.buffers[table.buffer].data is not None
    )
    is_read = any(output in other.inputs for other in graph.operators)
    return operator if is_picking and not is_read else None


def _texts(data: Array) -> Array:
    """Decode a buffer of texts: their number, where each begins, where the last ends, the bytes of all."""
    content = bytes(data)
    count = int.from_bytes(content[:4], "little")
    offsets = np.frombuffer(content, "<i4", count + 1, offset=4)
    texts = np.empty(count, np.object_)
    texts[:] = [content[start:stop] for start, stop in itertools.pairwise(offsets)]
    return texts


def load_tflite(path: Path, model: str, version: int) -> Servable:
    """Load `model.tflite` in `path`.

    Its signatures are those of the file, and the SignatureDefs in its metadata, which take precedence; a
    single SignatureDef is `serving_default` too, as in TensorFlow Serving. Without either, its tensors form
    `serving_default`.

    Raises:
        StatusError: It cannot be loaded.
    """
    content = _read(path / TFLITE_FILE)
    pool = _pool(content)
    interpreter = pool.take()
    signatures, faults = {}, {}
    for key in interpreter.lite.get_signature_list():
        runner = interpreter.lite.get_signature_runner(key)
        definition = _definition(runner.get_input_details(), runner.get_output_details())
        signatures[key] = _signature(key, definition, _by_signature(pool, interpreter, key))
    inputs = {_plain(d["name"]): d for d in interpreter.lite.get_input_details()}
    outputs = {_plain(d["name"]): d for d in interpreter.lite.get_output_details()}
    described = signature_defs(content, path / TFLITE_FILE)
    if len(described) == 1:
        described.setdefault(DEFAULT_SIGNATURE, next(iter(described.values())))
    for key, given in described.items():
        try:
            named = _named(given.inputs, inputs), _named(given.outputs, outputs)
            if missing := inputs.keys() - {_plain(info.name) for info in given.inputs.values()}:
                raise SignatureFaultError(f"its SignatureDef has no input for {', '.join(sorted(missing))}")
        except SignatureFaultError as fault:
            faults[key] = str(fault)
            signatures.pop(key, None)
            continue
        definition = _definition(*named, given.method_name or PREDICT_METHOD)
        signatures[key] = _signature(key, definition, _by_tensors(pool, *named))
    if not signatures and not faults:
        definition = _definition(inputs, outputs)
        run = _by_tensors(pool, inputs, outputs)
        signatures[DEFAULT_SIGNATURE] = _signature(DEFAULT_SIGNATURE, definition, run)
    pool.give_back(interpreter)
    definitions = {name: signature.definition for name, signature in signatures.items()}
    return Servable(model, version, path, definitions, signatures, faults)


def signature_defs(content: bytes, file: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    """Return the SignatureDefs that a TensorFlow Lite model carries in its metadata, by name.

    Raises:
        StatusError: They are damaged.
    """
    model = schema.Model.GetRootAs(content)
    for place in range(model.MetadataLength()):
        entry = model.Metadata(place)
        if entry.Name() != SIGNATURE_DEFS_METADATA:
            continue
        try:
            buffer = bytes(model.Buffers(entry.Buffer()).DataAsNumpy())
            serialized = flexbuffers.GetRoot(buffer).AsMap.Value
            return {name: meta_graph_pb2.SignatureDef.FromString(value) for name, value in serialized.items()}
        except Exception as error:
            text = f"the SignatureDefs in the metadata of {file} cannot be read: {error}"
            raise StatusError(Code.DATA_LOSS, text) from error
    return {}


def _named(infos: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the details of the tensors that a SignatureDef names, by alias."""
    found = {}
    for alias, info in infos.items():
        if _plain(info.name) not in details:
            has = ", ".join(sorted(details))
            raise SignatureFaultError(f"its SignatureDef names {info.name!r} as {alias}, the file has {has}")
        found[alias] = details[_plain(info.name)]
    return found


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise from_tensorflow(error) from error


def _pool(content: bytes) -> InterpreterPool:
    pool = InterpreterPool(content)
    try:
        pool.give_back(pool.take())
    except (ValueError, RuntimeError) as error:
        raise from_tensorflow(error) from error
    return pool


def _signature(name: str, definition: meta_graph_pb2.SignatureDef, run: Run) -> Signature:
    inputs = {alias: TensorSpec.of(definition.inputs[alias]) for alias in sorted(definition.inputs)}
    outputs = {alias: TensorSpec.of(definition.outputs[alias]) for alias in sorted(definition.outputs)}
    is_fixed = bool(inputs) and all(spec.shape and None not in spec.shape for spec in inputs.values())
    if is_fixed:
        takes_one_row = all((spec.shape or ())[:1] == (1,) for spec in (*inputs.values(), *outputs.values()))
        run = _resizing(run, inputs, _row_by_row(run) if takes_one_row else run)
    return Signature(name, definition, inputs, outputs, run, engine="tflite", resizes=is_fixed)


def _resizing(run: Run, specs: Mapping[str, TensorSpec], run_rows: Run) -> Run:
    """Return a call that gives tensors of fixed sizes to `run`, and other numbers of rows to `run_rows`."""

    def run_resized(inputs: Mapping[str, Array]) -> dict[str, Array]:
        arrays = {}
        for alias, spec in specs.items():
            sizes: Any = (spec.rows_in(inputs[alias].shape), *(spec.shape or ())[1:])
            arrays[alias] = inputs[alias].reshape(sizes)
        if all(arrays[alias].shape == spec.shape for alias, spec in specs.items()):
            return run(arrays)
        counts = {len(array) for array in arrays.values()}
        if len(counts) > 1 or max(counts) > MAX_RESIZED_ROWS:
            found = ", ".join(f"{alias} has {len(array)}" for alias, array in arrays.items())
            raise invalid_argument(f"inputs need rows of one number, at most {MAX_RESIZED_ROWS}: {found}")
        return run_rows(arrays)

    return run_resized


def _by_signature(pool: InterpreterPool, interpreter: SizedInterpreter, key: str) -> Run:
    if len(interpreter.lite.get_signature_list()) == 1:  # then its tensors are those of the whole file
        runner = interpreter.lite.get_signature_runner(key)
        return _by_tensors(pool, runner.get_input_details(), runner.get_output_details())

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        interpreter = pool.take()
        try:
            outputs = interpreter.lite.get_signature_runner(key)(**inputs)
        except (ValueError, RuntimeError) as error:
            raise StatusError(Code.INVALID_ARGUMENT, str(error)) from error
        pool.give_back(interpreter)
        return {alias: np.asarray(value) for alias, value in outputs.items()}

    return run


def _by_tensors(
    pool: InterpreterPool, input_details: Mapping[str, Any], output_details: Mapping[str, Any]
) -> Run:
    indices = {alias: int(detail["index"]) for alias, detail in input_details.items()}
    outputs = {alias: int(detail["index"]) for alias, detail in output_details.items()}

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        by_index = {index: inputs[alias] for alias, index in indices.items()}
        interpreter = pool.take(by_index)
        try:
            found = interpreter.run(by_index, outputs)
        except (ValueError, RuntimeError) as error:
            raise StatusError(Code.INVALID_ARGUMENT, str(error)) from error
        pool.give_back(interpreter)
        return found

    return run


def _definition(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any], method_name: str = PREDICT_METHOD
) -> meta_graph_pb2.SignatureDef:
    definition = meta_graph_pb2.SignatureDef(method_name=method_name)
    for infos, details in ((definition.inputs, inputs), (definition.outputs, outputs)):
        for alias, detail in details.items():
            info = infos[alias]
            info.name = detail["name"]
            info.dtype = tf.as_dtype(detail["dtype"]).as_datatype_enum
            for size in detail["shape_signature"]:
                info.tensor_shape.dim.add().size = int(size)
    return definition


def _plain(tensor_name: str) -> str:
    return tensor_name.removesuffix(":0")
