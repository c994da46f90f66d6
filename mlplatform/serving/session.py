"""Signatures computed by TensorFlow's sessions: TF1 SavedModels, and graphs without variables.

A session runs a graph without Python's part of a function call, and in the thread of the request.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2

from mlplatform.serving.servable import Run, SignatureFaultError
from mlplatform.serving.status import StatusError, from_tensorflow
from mlplatform.serving.tensors import NUMPY_OF, Array

# Reference variables, TF1's own: functions cannot hold them, or keep one copy each.
_REFERENCE_VARIABLES = frozenset({"Variable", "VariableV2", "TemporaryVariable"})

# How Python's part of an error of a kernel looks.
_TRACE, _NO_TRACE = "  File ", "<stack traces unavailable>"

# Where ops have one thread each, a call stays in its caller's: changing threads for each request costs up to
# a tenth of a small network's CPU.
_CALLERS_THREAD = -1

WRITES = (
    "Assign",
    "ResourceApply",
    "ResourceScatter",
    "Stack",
    "Queue",
    "LookupTableInsert",
    "LookupTableImport",
)


def holds_reference_variables(meta_graph: meta_graph_pb2.MetaGraphDef) -> bool:
    """Say whether a model keeps state in reference variables, which only a session computes right."""
    return any(node.op in _REFERENCE_VARIABLES for node in meta_graph.graph_def.node)


def session_of(graph: tf.Graph, *, in_bfloat16: bool = False) -> Any:
    """Return a session on `graph` with the threads that TensorFlow has been given.

    Args:
        graph: What it computes.
        in_bfloat16: Let oneDNN compute convolutions and matrix products in bfloat16.
    """
    config = config_pb2.ConfigProto(
        intra_op_parallelism_threads=tf.config.threading.get_intra_op_parallelism_threads(),
        inter_op_parallelism_threads=tf.config.threading.get_inter_op_parallelism_threads(),
    )
    if in_bfloat16:
        rewriting = config.graph_options.rewrite_options
        rewriting.auto_mixed_precision_onednn_bfloat16 = rewriter_config_pb2.RewriterConfig.ON
    return tf.compat.v1.Session(graph=graph, config=config)


@dataclass(frozen=True)
class FrozenGraph:
    """A graph without variables.

    Attributes:
        graph_def: The graph.
        feeds: Names of its input tensors by alias.
        fetches: Names of its output tensors by alias.
    """

    graph_def: Any
    feeds: Mapping[str, str]
    fetches: Mapping[str, str]

    def run(self, *, in_bfloat16: bool = False) -> Run:
        """Return its call; `in_bfloat16` as in `session_of`."""
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(self.graph_def, name="")
        return _session_run(
            session_of(graph, in_bfloat16=in_bfloat16),
            {alias: graph.get_tensor_by_name(name) for alias, name in self.feeds.items()},
            {alias: graph.get_tensor_by_name(name) for alias, name in self.fetches.items()},
        )


def _session_run(session: Any, feeds: Mapping[str, Any], fetches: Mapping[str, Any]) -> Run:
    """Return the call of tensors of a session's graph; it keeps the session open."""
    outputs = {alias: _apart(tensor, feeds) for alias, tensor in fetches.items()}
    options = config_pb2.CallableOptions(
        feed=[tensor.name for tensor in feeds.values()], fetch=[tensor.name for tensor in outputs.values()]
    )
    if tf.config.threading.get_intra_op_parallelism_threads() == 1:
        options.run_options.inter_op_thread_pool = _CALLERS_THREAD
    # `Session.make_callable` with feeds is Python's `Session.run`: slower than what it is to be faster than.
    call = session._make_callable_from_options(options)

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            found = call(*(inputs[alias] for alias in feeds))
        except Exception as error:
            raise run_error(error) from error
        return dict(zip(outputs, found, strict=True))

    run.__dict__["session"] = session
    return run


def _apart(tensor: Any, feeds: Mapping[str, Any]) -> Any:
    """Return a tensor to fetch: a session does not fetch what it is fed."""
    if not any(tensor is fed for fed in feeds.values()):
        return tensor
    with tensor.graph.as_default():
        return tf.identity(tensor)


class SessionModel:
    """A SavedModel in a session, by TF1's loader: graph, variables, and what its main op initializes."""

    def __init__(self, path: Path, tags: Sequence[str]) -> None:
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._session = session_of(self._graph)
            tf.compat.v1.saved_model.load(self._session, list(tags), str(path))
        self._functions = {f.signature.name: f for f in self._graph.as_graph_def().library.function}

    def run(self, definition: meta_graph_pb2.SignatureDef) -> tuple[Run, bool]:
        """Return the call of a signature, and whether it leaves the model as it is.

        Raises:
            SignatureFaultError: It names a tensor that is not there, or one that cannot travel.
        """
        feeds = {alias: self._tensor(alias, definition.inputs[alias]) for alias in sorted(definition.inputs)}
        fetches = {
            alias: self._tensor(alias, definition.outputs[alias]) for alias in sorted(definition.outputs)
        }
        try:
            run = _session_run(self._session, feeds, fetches)
        except Exception as error:
            raise SignatureFaultError(run_error(error).text) from error
        needed = _needed(fetches.values(), feeds.values())
        return run, not any(_takes_reference(op) or self._writes(op.node_def, set()) for op in needed)

    def _tensor(self, alias: str, info: meta_graph_pb2.TensorInfo) -> Any:
        if info.WhichOneof("encoding") != "name":
            raise SignatureFaultError(f"tensor {alias} is not a dense tensor")
        try:
            tensor = self._graph.get_tensor_by_name(info.name)
        except (KeyError, ValueError) as error:
            raise SignatureFaultError(f"the graph has no tensor {info.name!r} for {alias}") from error
        require_dense(alias, tensor.dtype)
        return tensor

    def _writes(self, node: Any, seen: set[str]) -> bool:
        """Say whether a node, or a function that it calls, writes a resource."""
        if node.op.startswith(WRITES):
            return True
        called = {value.func.name for value in node.attr.values()}
        called |= {function.name for value in node.attr.values() for function in value.list.func}
        called = (called | {node.op}) & self._functions.keys() - seen
        seen |= called
        return any(self._writes(inner, seen) for name in called for inner in self._functions[name].node_def)


def require_dense(alias: str, dtype: tf.DType) -> None:
    """Check that tensors of this dtype fit into messages.

    Raises:
        SignatureFaultError: They do not: a resource, for instance.
    """
    if dtype.base_dtype.as_datatype_enum not in NUMPY_OF:
        raise SignatureFaultError(f"tensor {alias} is of dtype {dtype.name}, which no message carries")


def _needed(fetches: Iterable[Any], feeds: Iterable[Any]) -> Iterator[Any]:
    """Yield the operations that the fetched tensors need, given those that are fed."""
    fed, seen = {id(tensor) for tensor in feeds}, set()
    waiting = [tensor.op for tensor in fetches]
    while waiting:
        operation = waiting.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        yield operation
        waiting += [tensor.op for tensor in operation.inputs if id(tensor) not in fed]
        waiting += operation.control_inputs


def _takes_reference(operation: Any) -> bool:
    """Say whether an operation may write a reference variable."""
    return operation.op_def is not None and any(argument.is_ref for argument in operation.op_def.input_arg)


def run_error(error: Exception) -> StatusError:
    """Return the status of an error that a model raised, with the kernel's text and without Python's."""
    status = from_tensorflow(error)
    lines = status.text.split(" [Op:")[0].splitlines()
    traces = [n for n, line in enumerate(lines) if line.startswith(_TRACE) or line.endswith(_NO_TRACE)]
    if lines and lines[0].startswith("Graph execution error") and traces:
        lines = lines[traces[-1] + 1 :]
    return StatusError(status.code, "\n".join(lines).strip())
