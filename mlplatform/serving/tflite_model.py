"""Compute signatures with TensorFlow Lite: several times less CPU per single request."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from mlplatform.serving.servable import DEFAULT_SIGNATURE, Run, Servable, Signature, TensorSpec
from mlplatform.serving.status import Code, StatusError, from_tensorflow
from mlplatform.serving.tensors import Array

TFLITE_FILE = "model.tflite"  # a whole model in this form, as TensorFlow Serving names it
TFLITE_FOLDER = Path("assets.extra") / "tflite"  # <signature>.tflite beside a SavedModel

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

    def __init__(self, file: Path) -> None:
        self._content = file.read_bytes()
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
    not finite and empty batches, still goes to `signature` itself: the same answer, or the same error.

    Raises:
        StatusError: The file does not hold this signature.
    """
    pool = _open(file)
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
    run = _by_signature(pool, interpreter, key)
    pool.give_back(interpreter)
    return Signature(
        name=signature.name,
        definition=signature.definition,
        inputs=signature.inputs,
        outputs=signature.outputs,
        run=_with_unusual_inputs_to(signature.run, run),
        engine="tflite",
    )


def _with_unusual_inputs_to(original: Run, converted: Run) -> Run:
    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return original(inputs) if any(map(_is_unusual, inputs.values())) else converted(inputs)

    return run


def _is_unusual(array: Array) -> bool:
    return array.size == 0 or (array.dtype.kind == "f" and not np.isfinite(array).all())


def load_tflite(path: Path, model: str, version: int) -> Servable:
    """Load `model.tflite` in `path`; without signatures of its own, its tensors form `serving_default`.

    Raises:
        StatusError: It cannot be loaded.
    """
    pool = _open(path / TFLITE_FILE)
    interpreter = pool.take()
    signatures = {}
    for key in interpreter.lite.get_signature_list():
        runner = interpreter.lite.get_signature_runner(key)
        definition = _definition(runner.get_input_details(), runner.get_output_details())
        signatures[key] = _signature(key, definition, _by_signature(pool, interpreter, key))
    if not signatures:
        inputs = {_plain(d["name"]): d for d in interpreter.lite.get_input_details()}
        outputs = {_plain(d["name"]): d for d in interpreter.lite.get_output_details()}
        definition = _definition(inputs, outputs)
        signatures[DEFAULT_SIGNATURE] = _signature(
            DEFAULT_SIGNATURE, definition, _by_tensors(pool, inputs, outputs)
        )
    pool.give_back(interpreter)
    definitions = {name: signature.definition for name, signature in signatures.items()}
    return Servable(model, version, path, definitions, signatures)


def _open(file: Path) -> InterpreterPool:
    try:
        pool = InterpreterPool(file)
        pool.give_back(pool.take())
    except (OSError, ValueError, RuntimeError) as error:
        raise from_tensorflow(error) from error
    return pool


def _signature(name: str, definition: meta_graph_pb2.SignatureDef, run: Run) -> Signature:
    inputs = {alias: TensorSpec.of(definition.inputs[alias]) for alias in sorted(definition.inputs)}
    outputs = {alias: TensorSpec.of(definition.outputs[alias]) for alias in sorted(definition.outputs)}
    return Signature(name, definition, inputs, outputs, run, engine="tflite")


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


def _definition(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> meta_graph_pb2.SignatureDef:
    definition = meta_graph_pb2.SignatureDef(method_name=PREDICT_METHOD)
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
