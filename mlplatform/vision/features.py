"""Features of a frozen backbone, computed once per photo and kept in shards on disk.

A shard appears in one step when it is whole, so work that is killed goes on after the last whole shard.
Reading holds a few shards in memory at a time, whatever the number of photos.
"""

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlplatform.progress import track
from mlplatform.vision.decoding import decode_image
from mlplatform.vision.examples import (
    IMAGE,
    ReadLabels,
    naming_unreadable,
    parse_example,
    read_label,
    read_records,
)
from mlplatform.vision.precision import bfloat16

SHARD_PHOTOS = 512
BATCH_PHOTOS = 32
_SHARDS_IN_MEMORY = 64
# Least cosine between a photo's features in bfloat16 and in float32.
BFLOAT16_AGREEMENT = 0.98
UNKNOWN_LABEL = -1


class FeatureStore:
    """The features of one split, as a folder of shards.

    A shard is an `.npz` file with `features`, float16 of shape (photos, views, width), and `labels`, int32 of
    shape (photos,): the place of the photo's class in the list of class names, or -1 for a class not in it.
    View 0 is the photo itself, view 1 (where asked for) its mirror image.
    """

    def __init__(self, folder: Path, photos: int) -> None:
        self.folder, self.photos = folder, photos

    @property
    def shards(self) -> list[Path]:
        """The files of all shards, in the order of the photos."""
        count = -(-self.photos // SHARD_PHOTOS)
        return [self.folder / f"features-{number:06d}.npz" for number in range(count)]

    @property
    def width(self) -> int:
        """Features per photo."""
        with np.load(self.shards[0]) as arrays:
            return int(arrays["features"].shape[-1])

    def batches(self, batch_size: int, *, seed: int | None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield float32 features (batch, width) and int32 labels (batch,); unknown classes are left out.

        Args:
            batch_size: Photos per batch; the last batch may be smaller.
            seed: Order of the photos, and which view of each is taken; None for the order of the files and
                view 0.
        """
        shards = self.shards
        random = None if seed is None else np.random.default_rng(seed)
        if random is not None:
            shards = [shards[number] for number in random.permutation(len(shards))]
        for start in range(0, len(shards), _SHARDS_IN_MEMORY):
            features, labels = _load(shards[start : start + _SHARDS_IN_MEMORY])
            order = np.flatnonzero(labels != UNKNOWN_LABEL)
            views = np.zeros(len(order), np.intp)
            if random is not None:
                random.shuffle(order)
                views = random.integers(features.shape[1], size=len(order))
            for first in range(0, len(order), batch_size):
                rows = order[first : first + batch_size]
                yield features[rows, views[first : first + batch_size]].astype(np.float32), labels[rows]

    def views(self, batch_size: int, *, seed: int | None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield float32 features of all views (batch, views, width) and int32 labels (batch,).

        Args:
            batch_size: Photos per batch; the last batch may be smaller.
            seed: Order of the photos; None for the order of the files. Unknown classes are not left out.
        """
        shards = self.shards
        random = None if seed is None else np.random.default_rng(seed)
        if random is not None:
            shards = [shards[number] for number in random.permutation(len(shards))]
        for start in range(0, len(shards), _SHARDS_IN_MEMORY):
            features, labels = _load(shards[start : start + _SHARDS_IN_MEMORY])
            order = np.arange(len(labels)) if random is None else random.permutation(len(labels))
            for first in range(0, len(order), batch_size):
                rows = order[first : first + batch_size]
                yield features[rows].astype(np.float32), labels[rows]


def compute_features(
    backbone: keras.Model,
    files: Sequence[str],
    labels: Sequence[str],
    folder: Path,
    *,
    photos: int,
    mirrored: bool,
    description: str,
    in_bfloat16: bool = False,
    label_of: ReadLabels = read_label,
) -> FeatureStore:
    """Compute what is not yet in `folder` of the features of all photos in `files`.

    Args:
        backbone: float32 images (batch, size, size, 3), 0 to 255 -> float32 features (batch, width).
        files: TFRecord files of image Examples.
        labels: Class names in the order of the model's outputs.
        folder: Where the shards are kept; made where it is missing.
        photos: Number of Examples in `files`.
        mirrored: Also compute the features of each photo's mirror image.
        description: What the progress line says.
        in_bfloat16: Compute in bfloat16, as far as the first photos' features then agree with float32's
            (`BFLOAT16_AGREEMENT`); for CPUs with `precision.computes_bfloat16`.
        label_of: Reads the labels, string (n,), of serialized Examples, string (n,).

    Raises:
        UnreadablePhotoError: Photos cannot be decoded; they are named.
    """
    store = FeatureStore(folder, photos)
    folder.mkdir(parents=True, exist_ok=True)
    missing = next((n for n, shard in enumerate(store.shards) if not shard.exists()), None)
    if missing is None:
        return store
    image_size = backbone.input_shape[1]
    place = {label: number for number, label in enumerate(labels)}

    views = _views(backbone, mirrored)

    def pixels(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = parse_example(record)
        return decode_image(example[IMAGE], image_size), label_of(record[None])[0]

    batches = (
        read_records(files)
        .skip(missing * SHARD_PHOTOS)
        .map(pixels, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(BATCH_PHOTOS)
        .prefetch(2)
    )
    with (
        ExitStack() as precision,
        naming_unreadable(files),
        track(description, total=photos, unit="photos") as bar,
    ):
        if in_bfloat16 and _agrees(backbone, batches.take(1)):
            precision.enter_context(bfloat16())
        bar.advance(missing * SHARD_PHOTOS)
        parts: list[tuple[NDArray[Any], NDArray[Any]]] = []
        shards = iter(store.shards[missing:])
        for images, names in batches:
            parts.append((views(images).numpy(), _places(names.numpy(), place)))
            if sum(len(p[1]) for p in parts) >= SHARD_PHOTOS:
                _write(next(shards), parts)
                parts = []
            bar.advance(len(names))
        if parts:
            _write(next(shards), parts)
    return store


def _views(backbone: keras.Model, mirrored: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return images (batch, size, size, 3) -> float16 features (batch, views, width)."""
    size = backbone.input_shape[1]

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32)])
    def views(images: tf.Tensor) -> tf.Tensor:
        outputs = [backbone(images, training=False)]
        if mirrored:
            outputs.append(backbone(images[:, :, ::-1], training=False))
        return tf.cast(tf.stack(outputs, axis=1), tf.float16)

    compute: Callable[[tf.Tensor], tf.Tensor] = views
    return compute


def _agrees(backbone: keras.Model, batches: tf.data.Dataset) -> bool:
    """Whether the features of these photos in bfloat16 point where those in float32 do."""
    for images, _ in batches:
        exact = _views(backbone, mirrored=False)(images).numpy()[:, 0].astype(np.float32)
        with bfloat16():
            rough = _views(backbone, mirrored=False)(images).numpy()[:, 0].astype(np.float32)
        lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(rough, axis=1)
        cosine = np.sum(exact * rough, axis=1) / np.maximum(lengths, 1e-12)
        if not (cosine >= BFLOAT16_AGREEMENT).all():  # not a number is no agreement either
            logging.getLogger(__name__).warning(
                "bfloat16 changes the features too much (cosine %.3f): float32 is computed", cosine.min()
            )
            return False
    return True


def _places(names: NDArray[Any], place: Mapping[str, int]) -> NDArray[Any]:
    return np.array([place.get(name.decode(), UNKNOWN_LABEL) for name in names], np.int32)


def _load(shards: Sequence[Path]) -> tuple[NDArray[Any], NDArray[Any]]:
    parts = []
    for shard in shards:
        with np.load(shard) as arrays:
            parts.append((arrays["features"], arrays["labels"]))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _write(shard: Path, parts: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    partial = shard.with_name(f".{shard.stem}.{uuid.uuid4().hex}.npz")
    np.savez(
        partial, features=np.concatenate([p[0] for p in parts]), labels=np.concatenate([p[1] for p in parts])
    )
    partial.replace(shard)
