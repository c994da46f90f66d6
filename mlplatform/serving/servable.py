"""One loaded version of one model: its signatures, ready to be called from any thread."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tensorflow.core.protobuf import meta_graph_pb2

from mlplatform.serving.status import Code, StatusError, invalid_argument
from mlplatform.serving.tensors import NUMPY_OF, Array, dtype_name, enum_of

DEFAULT_SIGNATURE = "serving_default"

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


class SignatureFaultError(Exception):
    """A signature cannot be computed; the text says why, and the model's other signatures serve."""


@dataclass(frozen=True)
class TensorSpec:
    """What a signature says of one tensor.

    Attributes:
        dtype: TensorFlow's DataType.
        shape: Sizes, None where any size will do; None as a whole where the rank is unknown.
    """

    dtype: int
    shape: tuple[int | None, ...] | None

    @classmethod
    def of(cls, info: meta_graph_pb2.TensorInfo) -> "TensorSpec":
        """Read it from a SignatureDef's TensorInfo."""
        if info.tensor_shape.unknown_rank:
            return cls(info.dtype, None)
        sizes = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim)
        return cls(info.dtype, sizes)

    @property
    def is_batched(self) -> bool:
        """The first dimension is a batch of any size."""
        return self.shape is not None and len(self.shape) > 0 and self.shape[0] is None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """An array of this shape fits."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            wanted is None or wanted == size for wanted, size in zip(self.shape, shape, strict=True)
        )

    def rows_in(self, shape: tuple[int, ...]) -> int | None:
        """Return how many rows an array of this shape holds of a tensor whose sizes are all fixed.

        Dimensions of size 1 may be missing, and there may be other many rows than the tensor has: TensorFlow
        Lite, which such tensors come from, resizes them. None where the shape differs in another way.
        """
        if not self.shape or None in self.shape:
            return None
        if _without_ones(shape) == _without_ones(self.shape):
            return self.shape[0]
        is_of_rows = bool(shape) and _without_ones(shape[1:]) == _without_ones(self.shape[1:])
        return shape[0] if is_of_rows else None


def _without_ones(shape: tuple[int | None, ...]) -> list[int | None]:
    return [size for size in shape if size != 1]


@dataclass(eq=False)
class Signature:
    """A named function of a model.

    Attributes:
        name: Its name in requests.
        definition: The SignatureDef that the model carries.
        inputs: By alias.
        outputs: By alias.
        run: Calls it: arrays by alias in and out.
        is_stateless: Calls do not change the model, so that several may share one.
        engine: What computes it: `tensorflow`, `tensorflow-bfloat16` or `tflite`.
        resizes: `run` takes other numbers of rows than the signature's shapes say.
        runs_row_by_row: It computes one row after the other, so that requests gain nothing from a shared run.
        keeps_rows: Outputs have a row for each row of the inputs; False once a call showed otherwise.
        defaults: Texts that a request may leave out, by alias, and what each row of them then is.
    """

    name: str
    definition: meta_graph_pb2.SignatureDef
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    run: Run
    is_stateless: bool = True
    engine: str = "tensorflow"
    resizes: bool = False
    runs_row_by_row: bool = False
    keeps_rows: bool = True
    defaults: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def is_batchable(self) -> bool:
        """Rows of several requests may be run as one batch and be separated again."""
        tensors = (*self.inputs.values(), *self.outputs.values())
        can_share = self.is_stateless and self.keeps_rows and bool(self.inputs)
        return can_share and all(tensor.is_batched for tensor in tensors)

    def check_inputs(self, inputs: Mapping[str, Array]) -> None:
        """Check the dtypes of a call; shapes are left to the kernels, as in TensorFlow Serving.

        TensorFlow Lite resizes its tensors to what it is given, so there the shape must be the signature's,
        or one of rows of it.

        Raises:
            StatusError: INVALID_ARGUMENT.
        """
        for place, (alias, spec) in enumerate(self.inputs.items()):
            array = inputs[alias]
            wanted = NUMPY_OF.get(spec.dtype)
            if wanted is None or array.dtype != wanted:
                raise invalid_argument(
                    f"Expects arg[{place}] to be {dtype_name(spec.dtype)} "
                    f"but {dtype_name(enum_of(array))} is provided"
                )
            fits = self.engine != "tflite" or spec.accepts(array.shape)
            if not fits and not (self.resizes and spec.rows_in(array.shape)):
                raise invalid_argument(
                    f"input tensor {alias} has shape {_shape_text(array.shape)}, "
                    f"expected {_shape_text(spec.shape)}"
                )


def _shape_text(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return "[?]"
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"


# Picks one of a signature and its other forms.
Choose = Callable[[Signature, Sequence[Signature]], Signature]


@dataclass(eq=False)
class Servable:
    """A loaded version; what holds it is counted, so that it is unloaded only when no request needs it.

    Attributes:
        model: The model's name.
        version: The version's number.
        path: The version's folder.
        signature_defs: Every SignatureDef of the model, for its metadata.
        signatures: Those that can be called.
        faults: Why the others cannot, by name.
    """

    model: str
    version: int
    path: Path
    signature_defs: Mapping[str, meta_graph_pb2.SignatureDef]
    signatures: Mapping[str, Signature]
    faults: Mapping[str, str] = field(default_factory=dict)
    _in_use: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def signature(self, name: str, missing: Callable[[str], StatusError]) -> Signature:
        """Return a signature, `serving_default` where `name` is empty.

        Raises:
            StatusError: What `missing` makes of the name; FAILED_PRECONDITION where the model has such a
                signature that cannot be computed.
        """
        name = name or DEFAULT_SIGNATURE
        if name in self.faults:
            text = f'Serving signature key "{name}" cannot be computed: {self.faults[name]}'
            raise StatusError(Code.FAILED_PRECONDITION, text)
        found = self.signatures.get(name)
        if found is None:
            raise missing(name)
        return found

    @contextmanager
    def held(self) -> Iterator["Servable"]:
        """Keep it loaded while the block runs."""
        with self._changed:
            self._in_use += 1
        try:
            yield self
        finally:
            with self._changed:
                self._in_use -= 1
                self._changed.notify_all()

    def wait_until_unused(self) -> None:
        """Wait until no request holds it."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_use == 0)


def signature_not_found(name: str) -> StatusError:
    """Return Predict's error for a signature that is not there."""
    return StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
