"""Exports an image embedder: photos to vectors of length 1, projection and normalisation in the graph.

The signatures are a contract: `docs/reference/model-signatures.md`.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlplatform.serving.warmup import WARMUP_FILE
from mlplatform.vision.decoding import decode_batch
from mlplatform.vision.examples import IMAGE
from mlplatform.vision.signatures import finite_pixels, warmup_inputs, write_warmup

Array = NDArray[Any]

EMBED, EMBED_IMAGE_BYTES, EMBED_PIXELS, EMBEDDING = "embed", "embed_image_bytes", "embed_pixels", "embedding"
SETTINGS_FILE = Path("assets.extra") / "embedding.json"
_LEAST_LENGTH = 1e-9


@dataclass(frozen=True)
class Projection:
    """Features of a frozen backbone to a vector of length 1.

    Blocks of the features are brought to their weight in length; beside each other lie a linear head and the
    principal components, each of length 1 and its weight; a rotation cuts both to the last size.

    Attributes:
        blocks: Widths of the features' blocks, such as those of two layers, and the weight of each.
        head: float32 (width, h) and (h,); None without a head.
        mean: float32 (width,).
        components: float32 (width, c).
        component_weight: Length of the components beside the head's.
        rotation: float32 (h + c, d).
    """

    blocks: Sequence[tuple[int, float]]
    head: tuple[Array, Array] | None
    mean: Array
    components: Array
    component_weight: float
    rotation: Array

    def scaled(self, features: Array) -> Array:
        """Return float32 features (..., width) with each block at its length."""
        parts, start = [], 0
        for width, weight in self.blocks:
            parts.append(weight * units(features[..., start : start + width]))
            start += width
        return np.concatenate(parts, axis=-1)


def units(vectors: Array) -> Array:
    """Return vectors (..., d) brought to length 1."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, _LEAST_LENGTH))


def feature_blocks(backbone: keras.Model, middle_weight: float = 0.5) -> list[tuple[int, float]]:
    """Return the widths of the layers whose features a backbone gives, the last layer first, and weights."""
    last = backbone.layers[-1]
    if isinstance(last, keras.layers.Concatenate):
        first, *others = [int(given.shape[-1]) for given in last.input]
        return [(first, 1.0), *((width, middle_weight) for width in others)]
    return [(int(backbone.output_shape[-1]), 1.0)]


def component_projection(backbone: keras.Model, features: Iterable[Array], dimensions: int) -> Projection:
    """Return the projection to the principal components of features alone.

    Args:
        backbone: Gives the features.
        features: Its features (n, width) of photos, some at a time; at least one.
        dimensions: Numbers of a vector; the width of the features where that is less.
    """
    blocks = feature_blocks(backbone)
    nothing = np.zeros((0, 0), np.float32)
    projection = Projection(blocks, None, nothing.ravel(), nothing, 1.0, nothing)
    mean, components = principal_components(map(projection.scaled, features), dimensions)
    rotation = np.eye(components.shape[1], dtype=np.float32)
    return replace(projection, mean=mean, components=components, rotation=rotation)


def principal_components(batches: Iterable[Array], count: int) -> tuple[Array, Array]:
    """Return mean, float32 (width,), and principal components, float32 (width, count), of vectors.

    Args:
        batches: Vectors (n, width), some at a time; at least one.
        count: How many components; no more than the width is given.
    """
    total, mean, square = 0, np.zeros(1), np.zeros((1, 1))
    for vectors in batches:
        exact = vectors.astype(np.float64)
        total += len(exact)
        mean, square = mean + exact.sum(axis=0), square + exact.T @ exact
    mean /= total
    return mean.astype(np.float32), largest_eigenvectors(square / total - np.outer(mean, mean), count)


def largest_eigenvectors(matrix: Array, count: int) -> Array:
    """Return the eigenvectors of the largest eigenvalues, (n, count), the largest number of each positive."""
    vectors = np.linalg.eigh(matrix)[1][:, ::-1][:, :count]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return np.asarray(vectors * np.sign(largest), np.float32)


def beside(projection: Projection, scaled: Array) -> Array:
    """Return head and components of scaled features side by side, before the rotation."""
    parts = []
    if projection.head is not None:
        kernel, bias = projection.head
        parts.append(units(scaled @ kernel + bias))
    centred = (scaled - projection.mean) @ projection.components
    parts.append(projection.component_weight * units(centred))
    return np.concatenate(parts, axis=-1)


class ImageEmbedder(tf.Module):
    """An embedder with its three signatures."""

    def __init__(self, backbone: keras.Model, projection: Projection, image_size: int) -> None:
        super().__init__()
        # The network is kept out of TensorFlow's sight: with it, the state of its optimizer would be saved.
        self._features: Callable[[tf.Tensor], tf.Tensor] = lambda images: backbone(images, training=False)
        self._blocks, self._weight = tuple(projection.blocks), projection.component_weight
        # Variables, not constants: the signatures share them.
        arrays = [projection.mean, projection.components, projection.rotation, *(projection.head or ())]
        self.projection = [tf.Variable(np.asarray(a, np.float32), trainable=False) for a in arrays]
        self.weights = [weight.value for weight in backbone.weights]
        self._image_size = image_size

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Return the traced functions, by signature name."""
        size = self._image_size

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def embed(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            parsed = tf.io.parse_example(examples, {IMAGE: tf.io.FixedLenFeature([], tf.string)})
            return self._answer(decode_batch(parsed[IMAGE], size))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def embed_image_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._answer(decode_batch(image_bytes, size))

        @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, name="images")])
        def embed_pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._answer(finite_pixels(images))

        functions = {EMBED: embed, EMBED_IMAGE_BYTES: embed_image_bytes, EMBED_PIXELS: embed_pixels}
        return {name: function.get_concrete_function() for name, function in functions.items()}

    def _answer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = tf.cast(self._features(images), tf.float32)
        mean, components, rotation, *head = self.projection
        parts = tf.split(features, [width for width, _ in self._blocks], axis=-1)
        scaled = tf.concat([w * _unit(p) for p, (_, w) in zip(parts, self._blocks, strict=True)], axis=-1)
        side = [self._weight * _unit(tf.linalg.matmul(scaled - mean, components))]
        if head:
            side = [_unit(tf.linalg.matmul(scaled, head[0]) + head[1]), *side]
        return {EMBEDDING: _unit(tf.linalg.matmul(tf.concat(side, axis=-1), rotation))}


def _unit(vectors: tf.Tensor) -> tf.Tensor:
    return vectors / tf.maximum(tf.norm(vectors, axis=-1, keepdims=True), _LEAST_LENGTH)


def export_image_embedder(
    backbone: keras.Model,
    projection: Projection,
    image_size: int,
    folder: Path,
    *,
    samples: Sequence[bytes],
    settings: Mapping[str, Any],
) -> None:
    """Write a SavedModel with signatures `embed`, `embed_image_bytes` and `embed_pixels`.

    Args:
        backbone: float32 pixels (batch, image_size, image_size, 3), 0 to 255 -> features (batch, width).
        projection: Features to vectors.
        image_size: Height and width of the network's images.
        folder: The SavedModel; appears in one step and must not exist.
        samples: Serialized Examples with real photos, at least one, for warm-up.
        settings: What it was trained with, for `embedder_settings`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        partial = Path(scratch) / "model"
        module = ImageEmbedder(backbone, projection, image_size)
        signatures = module.signatures()
        tf.saved_model.save(module, str(partial), signatures=signatures)
        write_warmup(signatures, warmup_inputs(samples, image_size), partial / WARMUP_FILE)
        (partial / SETTINGS_FILE).write_text(json.dumps(dict(settings), indent=1, sort_keys=True), "utf-8")
        partial.rename(folder)


def embedder_settings(model_dir: Path) -> dict[str, Any]:
    """Return what an exported embedder was trained with; nothing where it does not say so."""
    file = model_dir / SETTINGS_FILE
    return dict(json.loads(file.read_bytes())) if file.is_file() else {}
