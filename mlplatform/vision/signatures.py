"""Exports an image classifier as a SavedModel that every TensorFlow server understands.

The signatures are a contract: `docs/reference/model-signatures.md`.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from mlplatform.errors import UsageError
from mlplatform.exported_model.contents import LABELS_FILE
from mlplatform.serving.warmup import WARMUP_FILE
from mlplatform.vision.decoding import decode_batch
from mlplatform.vision.examples import IMAGE

SIGNATURES = ("serving_default", "image_bytes", "pixels")
TOP = 10  # classes in an answer, or fewer where the model knows fewer
MODEL_NAME = "default"
# Images (batch, size, size, 3) and probabilities (batch, classes) to outputs by name.
MoreOutputs = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]
Signatures = Mapping[str, tf.types.experimental.ConcreteFunction]


class LabelError(UsageError):
    """A class name cannot be written as one line of the labels file, or stands there twice."""

    def __init__(self, label: str, reason: str) -> None:
        super().__init__(label, reason)
        self.label, self.reason = label, reason

    def __str__(self) -> str:
        return f"class name {self.label!r} {self.reason}; labels.txt holds one name per line."


class ImageClassifier(tf.Module):
    """A classifier with the three signatures of every exported image model.

    Attributes:
        weights: The network's weights in its order, for a later training that starts from this model.
    """

    def __init__(
        self,
        network: keras.Model,
        labels: Sequence[str],
        image_size: int,
        labels_file: Path,
        more: MoreOutputs | None = None,
        judged: MoreOutputs | None = None,
    ) -> None:
        super().__init__()
        self._more = more or _nothing
        self._judged = judged or _nothing
        # The network is kept out of TensorFlow's sight: with it, the state of its optimizer would be saved.
        self._logits: Callable[[tf.Tensor], tf.Tensor] = lambda images: network(images, training=False)
        self.weights = [weight.value for weight in network.weights]
        self.labels_file = tf.saved_model.Asset(str(labels_file))
        self._names = tf.constant(list(labels), tf.string)
        self._image_size = image_size
        self._top = min(TOP, len(labels))

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Return the traced functions, by signature name."""
        size = self._image_size

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            parsed = tf.io.parse_example(examples, {IMAGE: tf.io.FixedLenFeature([], tf.string)})
            images = decode_batch(parsed[IMAGE], size)
            probabilities = self._probabilities(images)
            judged = {"probabilities": probabilities, **self._judged(images, probabilities)}
            return {**self._answer(images, probabilities), **judged}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def image_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            images = decode_batch(image_bytes, size)
            return self._answer(images, self._probabilities(images))

        @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, name="images")])
        def pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
            images = finite_pixels(images)
            return self._answer(images, self._probabilities(images))

        functions = {"serving_default": serving_default, "image_bytes": image_bytes, "pixels": pixels}
        return {name: function.get_concrete_function() for name, function in functions.items()}

    def _probabilities(self, images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.cast(self._logits(images), tf.float32))

    def _answer(self, images: tf.Tensor, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
        scores, indices = tf.math.top_k(probabilities, self._top)
        best = {"scores": scores, "classes": tf.gather(self._names, indices)}
        return {**best, **self._more(images, probabilities)}


def _nothing(images: tf.Tensor, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:  # noqa: ARG001
    return {}


def export_image_classifier(
    network: keras.Model,
    labels: Sequence[str],
    image_size: int,
    folder: Path,
    *,
    samples: Sequence[bytes],
    more: MoreOutputs | None = None,
    judged: MoreOutputs | None = None,
    embedder: tf.Module | None = None,
) -> None:
    """Write `network` as a SavedModel with signatures `serving_default`, `image_bytes` and `pixels`.

    The samples become warm-up requests together with the answers that `network` gives here and now, so that
    a later check can see whether the exported model still answers the same.

    Args:
        network: float32 pixels (batch, image_size, image_size, 3), 0 to 255 -> logits (batch, classes).
        labels: Class names, in the order of the logits.
        image_size: Height and width of the network's images.
        folder: The SavedModel; appears in one step and must not exist.
        samples: Serialized Examples with real photos, at least one.
        more: Makes further outputs of all signatures, by name, from images and probabilities.
        judged: Likewise of `serving_default` alone, for the evaluation.
        embedder: Has further signatures (`mlplatform.vision.embedding.ImageEmbedder`).

    Raises:
        LabelError: A class name holds a line break, is empty, or stands there twice.
    """
    check_labels(labels)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        labels_file = Path(scratch) / LABELS_FILE
        labels_file.write_text("".join(f"{label}\n" for label in labels), "utf-8")
        module = ImageClassifier(network, labels, image_size, labels_file, more, judged)
        partial = Path(scratch) / "model"
        signatures = module.signatures()
        if embedder is not None:
            module.embedder = embedder  # its variables are saved with the module
            signatures |= embedder.signatures()
        tf.saved_model.save(module, str(partial), signatures=signatures)
        write_warmup(signatures, warmup_inputs(samples, image_size), partial / WARMUP_FILE)
        partial.rename(folder)


def check_labels(labels: Sequence[str]) -> None:
    """See that class names can be listed, one a line.

    Raises:
        LabelError: One holds a line break, is empty, or stands there twice.
    """
    seen: set[str] = set()
    for label in labels:
        if not label or label.splitlines() != [label]:
            raise LabelError(label, "is empty or holds a line break")
        if label in seen:
            raise LabelError(label, "stands there twice")
        seen.add(label)


def finite_pixels(images: tf.Tensor) -> tf.Tensor:
    """Return pixels clipped to 0 to 255; in the graph, an error where one is no finite number."""
    wrong = tf.where(~tf.reduce_all(tf.math.is_finite(images), axis=[1, 2, 3]))[:, 0]
    text = tf.strings.join(
        [
            "pixels that are no finite numbers at place ",
            tf.strings.reduce_join(tf.strings.as_string(wrong), separator=", "),
            " of the batch (counted from 0)",
        ]
    )
    checks = [
        tf.debugging.Assert(tf.shape(images)[0] > 0, ["the batch is empty"]),
        tf.debugging.Assert(tf.equal(tf.size(wrong), 0), [text]),
    ]
    with tf.control_dependencies(checks):
        return tf.clip_by_value(images, 0.0, 255.0)


def warmup_inputs(samples: Sequence[bytes], image_size: int) -> dict[str, tf.Tensor]:
    """Return what signatures of photos are asked with, by the name of their input.

    Args:
        samples: Serialized Examples with real photos, at least one.
        image_size: Height and width of `images`.
    """
    photos = tf.io.parse_example(list(samples), {IMAGE: tf.io.FixedLenFeature([], tf.string)})[IMAGE]
    images = decode_batch(photos[:1], image_size)
    return {"examples": tf.constant(list(samples)), "image_bytes": photos, "images": images}


def write_warmup(signatures: Signatures, inputs: Mapping[str, tf.Tensor], file: Path) -> None:
    """Ask signatures of one input each; keep questions and answers as TensorFlow Serving reads them.

    Args:
        signatures: Functions by name.
        inputs: Values by the name of the input.
        file: The file; its folder is made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for name, function in signatures.items():
            (spec,) = tf.nest.flatten(function.structured_input_signature)
            key, value = spec.name, inputs[spec.name]
            spec = model_pb2.ModelSpec(name=MODEL_NAME, signature_name=name)
            request = predict_pb2.PredictRequest(
                model_spec=spec, inputs={key: tf.make_tensor_proto(value.numpy())}
            )
            answer = signatures[name](**{key: value})
            response = predict_pb2.PredictResponse(
                model_spec=spec, outputs={k: tf.make_tensor_proto(v.numpy()) for k, v in answer.items()}
            )
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request, response=response)
            )
            writer.write(log.SerializeToString(deterministic=True))
