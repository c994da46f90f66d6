"""Export signatures of a SavedModel to TensorFlow Lite, beside it, and hold their answers against each other.

The file lies at `assets.extra/tflite/<signature>.tflite` in the SavedModel's folder, where the model server
finds it under `--prefer_tflite_model`; other servers leave that folder alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mlplatform.errors import MlplatformError
from mlplatform.serving.saved_model import freeze, load
from mlplatform.serving.servable import Signature, signature_not_found
from mlplatform.serving.tensors import Array
from mlplatform.serving.tflite_model import TFLITE_FOLDER, tflite_run

_HINT = "signatures that decode images or parse Examples never convert; export one that takes numbers"


class TfliteExportError(MlplatformError):
    """A signature cannot be converted."""

    def __init__(self, model_dir: Path, signature: str, reason: str) -> None:
        super().__init__(model_dir, signature, reason)
        self.model_dir, self.signature, self.reason = model_dir, signature, reason

    def __str__(self) -> str:
        return (
            f"signature {self.signature!r} of {self.model_dir} does not convert to TensorFlow Lite: "
            f"{self.reason}"
        )


@dataclass(frozen=True)
class TfliteDifference:
    """How far the answers of the two forms lie apart.

    Attributes:
        rows: How many rows were compared.
        largest: The largest absolute difference of each output of numbers; infinite where one form gives
            another shape, or a number that is not finite where the other does not.
        disagreeing: For each output of texts, the fraction of rows whose first (best) text differs.
    """

    rows: int
    largest: Mapping[str, float]
    disagreeing: Mapping[str, float]

    def is_within(self, tolerance: float, max_disagreeing: float = 0.0) -> bool:
        """The numbers differ by at most `tolerance`, and at most this fraction of rows says another text."""
        return all(d <= tolerance for d in self.largest.values()) and all(
            fraction <= max_disagreeing for fraction in self.disagreeing.values()
        )


def export_tflite(
    model_dir: Path,
    signature: str,
    *,
    calibration: Iterable[Mapping[str, Array]] | None = None,
) -> Path:
    """Convert one signature; the file appears in one step.

    Where all inputs and outputs are batches, the file takes one row: then the sizes of all its tensors are
    known, and the optimised kernels take the network as a whole. The model server computes several rows one
    by one. So no row's answer may depend on the other rows, as is usual.

    Args:
        model_dir: Folder of the SavedModel.
        signature: Name of a signature that takes numbers, such as `pixels`.
        calibration: Inputs by alias, as the signature takes them, a few hundred rows of training data: then
            weights and activations become int8 (inputs and outputs stay as they are). None keeps float32.

    Returns:
        The file, `assets.extra/tflite/<signature>.tflite` in `model_dir`.

    Raises:
        TfliteExportError: It does not convert, or does not take what the calibration gives.
    """
    function, module, specs, takes_one_row = _frozen(model_dir, signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    if calibration is not None:
        samples = [dict(inputs) for inputs in calibration]
        if reason := _misfit(samples, specs):
            raise TfliteExportError(model_dir, signature, reason)
        if takes_one_row:
            samples = [row for inputs in samples for row in _rows(inputs)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(samples)
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,  # what has no int8 form, such as texts
        ]
    try:
        content = converter.convert()
    except Exception as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise TfliteExportError(model_dir, signature, f"{said}; {_HINT}") from error
    file = model_dir / TFLITE_FOLDER / f"{signature}.tflite"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(content)
    partial.rename(file)
    return file


def _misfit(calibration: Sequence[Mapping[str, Array]], specs: Mapping[str, tf.TensorSpec]) -> str | None:
    """Say why the signature does not take these inputs, or None."""
    if not calibration:
        return "the calibration holds no inputs"
    for inputs in calibration:
        if set(inputs) != set(specs):
            return f"the calibration gives {sorted(inputs)}, the signature takes {sorted(specs)}"
        for alias, spec in specs.items():
            array = np.asarray(inputs[alias])
            if array.dtype != spec.dtype.as_numpy_dtype or not spec.shape.is_compatible_with(array.shape):
                given = f"{array.dtype.name} of shape {list(array.shape)}"
                return f"the calibration gives {given} as {alias}, the signature takes {spec}"
    return None


def _rows(inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
    count = min(len(array) for array in inputs.values())
    return [{alias: array[n : n + 1] for alias, array in inputs.items()} for n in range(count)]


def _frozen(model_dir: Path, signature: str) -> tuple[Any, Any, Mapping[str, tf.TensorSpec], bool]:
    """Return the signature, without variables and with its names, as the converter takes it.

    Returned beside it are what holds it, the inputs that the SavedModel takes, and whether it takes one row.

    The converter's own reading of a SavedModel ends the process at some models that Keras 3 saved.
    """
    loaded = tf.saved_model.load(str(model_dir))
    if signature not in loaded.signatures:
        reason = f"it has the signatures {', '.join(loaded.signatures)}"
        raise TfliteExportError(model_dir, signature, reason)
    function = loaded.signatures[signature]
    frozen = freeze(function)
    if frozen is None:
        raise TfliteExportError(model_dir, signature, f"it holds state or tables; {_HINT}")
    names = sorted(function.structured_outputs)
    specs = function.structured_input_signature[1]

    def call(**inputs: Any) -> dict[str, Any]:
        outputs = frozen(*(inputs[alias] for alias in sorted(inputs)))
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return dict(zip(names, outputs, strict=True))

    takes_one_row = bool(specs) and all(
        map(_is_batch, (*specs.values(), *function.structured_outputs.values()))
    )
    shapes = {alias: [1, *spec.shape[1:]] if takes_one_row else spec.shape for alias, spec in specs.items()}
    module = tf.Module()
    module.call = tf.function(call, autograph=False)
    concrete = module.call.get_concrete_function(
        **{alias: tf.TensorSpec(shapes[alias], spec.dtype, name=alias) for alias, spec in specs.items()}
    )
    return concrete, module, specs, takes_one_row


def _is_batch(tensor: Any) -> bool:
    return bool(tensor.shape.rank) and tensor.shape[0] is None


def compare_tflite(
    model_dir: Path, signature: str, batches: Sequence[Mapping[str, Array]]
) -> TfliteDifference:
    """Ask both forms of a signature the same; say how far their answers lie apart.

    Args:
        model_dir: Folder of the SavedModel with its TensorFlow Lite form.
        signature: The signature's name.
        batches: Inputs by alias, at least one batch; data that the calibration has not seen says most.

    Raises:
        StatusError: The model or its TensorFlow Lite form is not there or cannot be loaded.
        ValueError: There is no batch with rows.
    """
    reference = load(model_dir, "reference", 1).signature(signature, signature_not_found)
    lite, _ = tflite_run(model_dir / TFLITE_FOLDER / f"{signature}.tflite", reference)
    batches = [batch for batch in batches if all(array.size for array in batch.values())]
    if not batches:
        raise ValueError("there is no batch with rows to compare the two forms with")
    pairs = [(_run(reference, batch), lite(batch)) for batch in batches]
    largest, disagreeing = {}, {}
    for name in reference.outputs:
        both = [(wanted[name], found[name]) for wanted, found in pairs]
        if both[0][0].dtype == np.object_:
            differs = np.concatenate([_differs(w, f) for w, f in both])
            disagreeing[name] = float(differs.sum() / max(1, differs.size))
        else:
            largest[name] = max(_distance(w, f) for w, f in both)
    rows = sum(len(next(iter(batch.values()))) for batch in batches)
    return TfliteDifference(rows, largest, disagreeing)


def _run(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, Array]:
    signature.check_inputs(inputs)
    return signature.run(inputs)


def _differs(wanted: Array, found: Array) -> Array:
    """Say for each row whether its first (best) text differs."""
    wanted = np.atleast_1d(wanted)
    if wanted.shape != np.atleast_1d(found).shape:
        return np.ones(len(wanted), np.bool_)
    best: Any = (slice(None), *(0 for _ in wanted.shape[1:]))
    return np.asarray(wanted[best] != np.atleast_1d(found)[best], np.bool_)


def _distance(wanted: Array, found: Array) -> float:
    if wanted.shape != found.shape:
        return np.inf
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    is_same = (wanted == found) | (np.isnan(wanted) & np.isnan(found))
    with np.errstate(invalid="ignore"):
        far = np.where(is_same, 0.0, np.abs(wanted - found))
    return float(np.max(np.nan_to_num(far, nan=np.inf), initial=0.0))
