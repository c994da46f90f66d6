"""A loaded SavedModel that is asked about Examples, through whatever signature it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from mlplatform.exported_model.contents import LABELS_FILE, read_labels
from mlplatform.prediction.errors import ModelNotLoadableError
from mlplatform.vision.decoding import decode_image
from mlplatform.vision.examples import IMAGE

Array = NDArray[Any]
# What a signature takes: serialized Examples, the encoded photo, pixels, or features by their names.
Form = Literal["examples", "photos", "pixels", "columns"]
_PHOTO_INPUT, _PIXELS_INPUT = "image_bytes", "images"

# What TensorFlow raises for a SavedModel with missing or damaged files, or with operations that it does not
# know. Exhausted memory, refused permission and a failing disk are not among them: they say nothing of the
# model.
_DAMAGED = (
    ValueError,
    KeyError,
    TypeError,
    DecodeError,
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.UnimplementedError,
)


@dataclass(frozen=True)
class ServedSignature:
    """One signature of a loaded model, and how Examples become its inputs.

    Attributes:
        name: Its name.
        form: What it takes.
        inputs: Its inputs by name.
        function: Calls it.
    """

    name: str
    form: Form
    inputs: Mapping[str, tf.TensorSpec]
    function: Any

    def request(self, examples: Sequence[tf.train.Example]) -> dict[str, Array]:
        """Return the inputs for a batch of Examples; a feature that a record lacks is 0 or empty."""
        if self.form == "columns":
            return {name: _column(name, spec, examples) for name, spec in self.inputs.items()}
        (name,) = self.inputs
        if self.form == "examples":
            return {name: texts([example.SerializeToString() for example in examples])}
        photos = [photo_of(example) for example in examples]
        if self.form == "photos":
            return {name: texts(photos)}
        size = self.inputs[name].shape[1]
        return {name: np.stack([decode_image(photo, size).numpy() for photo in photos])}

    def ask(self, request: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name. Raises what TensorFlow raises."""
        tensors = {
            name: tf.constant(array, self.inputs[name].dtype) if name in self.inputs else tf.constant(array)
            for name, array in request.items()
        }
        return {name: np.asarray(value.numpy()) for name, value in self.function(**tensors).items()}

    def answer(self, examples: Sequence[tf.train.Example]) -> dict[str, Array]:
        """Return the outputs for a batch of Examples."""
        return self.ask(self.request(examples))


@dataclass(frozen=True)
class ServedModel:
    """A loaded model.

    Attributes:
        folder: Its SavedModel.
        names: Its class names (`assets/labels.txt`), in the order of its scores; empty where it has none.
        model: What TensorFlow loaded; signatures hold its variables weakly, so it must live as long as they.
    """

    folder: Path
    names: list[str]
    model: Any

    @classmethod
    def load(cls, folder: Path) -> "ServedModel":
        """Load a SavedModel.

        Raises:
            ModelNotLoadableError: TensorFlow cannot load it.
            OSError: Its files cannot be read.
        """
        try:
            model = tf.saved_model.load(str(folder))
        except _DAMAGED as error:
            raise ModelNotLoadableError(str(folder), brief(error)) from error
        except OSError as error:
            # The loader's own "file does not exist" and "cannot parse file" have no number; a disk's have.
            if error.errno is not None:
                raise
            raise ModelNotLoadableError(str(folder), brief(error)) from error
        has_names = (folder / "assets" / LABELS_FILE).is_file()
        return cls(folder, read_labels(folder) if has_names else [], model)

    @property
    def signature_names(self) -> list[str]:
        """Names of all its signatures."""
        return sorted(self.model.signatures)

    def signature(self, name: str, sample: tf.train.Example) -> ServedSignature | None:
        """Return a signature that Examples like the sample can be asked through; None where they cannot."""
        function = self.model.signatures[name]
        inputs = function.structured_input_signature[1]
        form = _form(inputs, sample)
        return None if form is None else ServedSignature(name, form, inputs, function)

    def inputs_in_words(self, name: str) -> str:
        """Return what a signature takes."""
        inputs = self.model.signatures[name].structured_input_signature[1]
        words = [f"{alias!r} ({spec.dtype.name} {spec.shape})" for alias, spec in sorted(inputs.items())]
        return ", ".join(words[:6]) + (f" and {len(words) - 6} more" if len(words) > 6 else "")

    def judged(self, wanted: Sequence[str], sample: tf.train.Example) -> tuple[ServedSignature | None, str]:
        """Return the signature to judge the model by, else None and why there is none.

        Args:
            wanted: Names of signatures that will do, the first that it has is taken.
            sample: One of the Examples.
        """
        name = next((name for name in wanted if name in self.signature_names), None)
        if name is None:
            has = ", ".join(self.signature_names) or "none"
            return None, f"it has no signature {' or '.join(map(repr, wanted))}; it has {has}"
        found = self.signature(name, sample)
        if found is None:
            return None, (
                f"its signature {name!r} takes {self.inputs_in_words(name)}, which the Examples cannot give: "
                f"they have {features_in_words(sample)}. Export a signature that takes serialized Examples "
                "(one string input), or inputs that are named like the features"
            )
        return found, ""


def _form(inputs: Mapping[str, tf.TensorSpec], sample: tf.train.Example) -> Form | None:
    features = sample.features.feature
    if len(inputs) == 1:
        ((name, spec),) = inputs.items()
        if name not in features:
            has_photo = IMAGE in features
            if spec.dtype == tf.string and spec.shape.rank in (None, 1):
                return "photos" if name == _PHOTO_INPUT and has_photo else "examples"
            is_image = spec.shape.rank == 4 and spec.shape[3] == 3 and bool(spec.shape[1])
            return "pixels" if name == _PIXELS_INPUT and is_image and has_photo else None
    if inputs and all(name in features and _fits(spec, features[name]) for name, spec in inputs.items()):
        return "columns"
    return None


def _fits(spec: tf.TensorSpec, feature: tf.train.Feature) -> bool:
    is_text = feature.WhichOneof("kind") == "bytes_list"
    return is_text == (spec.dtype == tf.string) and spec.shape.rank in (1, 2)


def _column(name: str, spec: tf.TensorSpec, examples: Sequence[tf.train.Example]) -> Array:
    """Return a feature's values as the input takes them: [n], or [n, width]."""
    width = 1 if spec.shape.rank == 1 else spec.shape[1] or len(values_of(examples[0], name))
    empty: Any = b"" if spec.dtype == tf.string else 0
    rows = []
    for example in examples:
        values = list(values_of(example, name))[:width]
        rows.append(values + [empty] * (width - len(values)))
    array = np.empty((len(rows), width), object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)
    for place, row in enumerate(rows):
        array[place] = row
    return array[:, 0] if spec.shape.rank == 1 else array


def values_of(example: tf.train.Example, name: str) -> Sequence[Any]:
    """Return the values of an Example's feature; none where it has no such feature."""
    if name not in example.features.feature:
        return ()
    feature = example.features.feature[name]
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else ()


def texts(values: Sequence[bytes]) -> Array:
    """Return byte strings as an array of one dimension, whatever their lengths."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def photo_of(example: tf.train.Example) -> bytes:
    """Return the encoded photo of an image Example."""
    encoded: bytes = example.features.feature[IMAGE].bytes_list.value[0]
    return encoded


def without(example: tf.train.Example, *names: str) -> tf.train.Example:
    """Return a copy of an Example without some features."""
    copy = tf.train.Example()
    copy.CopyFrom(example)
    for name in names:
        copy.features.feature.pop(name, None)
    return copy


def features_in_words(example: tf.train.Example) -> str:
    """Return an Example's features and their kinds."""
    features = sorted(example.features.feature.items())
    words = [f"{name!r} ({(f.WhichOneof('kind') or 'empty').removesuffix('_list')})" for name, f in features]
    more = f" and {len(words) - 8} more" if len(words) > 8 else ""
    return (", ".join(words[:8]) + more) or "no features"


def brief(error: BaseException) -> str:
    """Return an error's kind and the beginning of its text, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}"
