"""An embedder of photos: principal components of frozen features beside a small metric head.

The head learns that photos of a class attract (Khosla et al. 2020, "Supervised Contrastive Learning"), and
that a photo and its mirror image do (Chen et al. 2020, "A Simple Framework for Contrastive Learning"). The
head alone forgets the very item, the components alone mix the classes; side by side they find both.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlplatform.config import parse_config
from mlplatform.progress import report_line
from mlplatform.registry import ModelStore
from mlplatform.registry.contents import PUSH_FILE, SIGNATURE_FILE
from mlplatform.registry.errors import ModelNotFoundError, ModelVersionNotFoundError
from mlplatform.registry.version_files import fetched
from mlplatform.search.fingerprint import INDEX_FOLDER
from mlplatform.storage.urls import name as name_of
from mlplatform.storage.urls import parent
from mlplatform.training.errors import NoExamplesError
from mlplatform.training.fit import FitState, fit
from mlplatform.training.history import write_history
from mlplatform.training.image_embedding_settings import EmbeddingSettings
from mlplatform.training.task import TrainingTask
from mlplatform.vision.backbones import build_backbone
from mlplatform.vision.embedding import (
    Projection,
    beside,
    embedder_settings,
    export_image_embedder,
)
from mlplatform.vision.examples import ReadLabels, count_labels, sample_records
from mlplatform.vision.features import FeatureStore, compute_features
from mlplatform.vision.precision import computes_bfloat16

Array = NDArray[Any]

WARMUP_PHOTOS = 4
_BATCH = 512


def train(task: TrainingTask) -> None:
    """Train an embedder of photos as the task says and export it; `run_fn` of `ModelTrainer`.

    Raises:
        ConfigError: A hyperparameter is unknown or does not fit.
        NoExamplesError: The training split is empty.
        UnreadablePhotoError: Photos cannot be decoded; they are named.
    """
    settings = parse_config(EmbeddingSettings, task.hyperparameters, source="the model's hyperparameters")
    own = settings.model_dump(exclude={"reuse"})
    if settings.reuse and (version := _take_pushed(settings.reuse, own, task.model_dir)):
        report_line(f"{version} was trained with the same settings: it is reused")
        write_history(task.run_dir, {}, reused=version, settings=own)
        return
    keras.utils.set_random_seed(settings.seed)
    label_of = _labels(settings.label_feature)
    contents = count_labels(task.train_files, label_of)
    if not contents.records:
        raise NoExamplesError(f"the training files ({', '.join(task.train_files[:3])})")
    backbone = build_backbone(settings.backbone, settings.image_size).network
    store = compute_features(
        backbone,
        task.train_files,
        list(contents.per_label),
        task.work_dir / "train-features",
        photos=contents.records,
        mirrored=True,
        description="compute features of training photos",
        in_bfloat16=settings.feature_precision == "auto" and computes_bfloat16(),
        label_of=label_of,
    )
    mean, components = _components(store, Projection(_blocks(backbone, settings), None, *_NOTHING), settings)
    projection = Projection(
        _blocks(backbone, settings), None, mean, components, settings.component_weight, _NOTHING[-1]
    )
    head, progress = _fit_head(task, settings, store, projection, contents.records)
    projection = replace(projection, head=head)
    projection = replace(projection, rotation=_rotation(store, projection, settings.dimensions))
    write_history(
        task.run_dir,
        {"head": progress},
        photos=contents.records,
        classes=len(contents.per_label),
        dimensions=projection.rotation.shape[1],
        settings=own,
    )
    export_image_embedder(
        backbone,
        projection,
        settings.image_size,
        task.model_dir,
        samples=sample_records(task.train_files, WARMUP_PHOTOS),
        settings=own,
    )


_NOTHING = (np.zeros(0, np.float32), np.zeros((0, 0), np.float32), 1.0, np.zeros((0, 0), np.float32))


def _labels(feature: str) -> ReadLabels:
    """Return what reads the first class of serialized Examples; empty where a photo has none."""

    def read(records: tf.Tensor) -> tf.Tensor:
        parsed = tf.io.parse_example(records, {feature: tf.io.RaggedFeature(tf.string)})
        return tf.strings.reduce_join(parsed[feature][:, :1], axis=-1)

    return read


def _take_pushed(place: str, settings: dict[str, Any], model_dir: Path) -> str:
    """Copy the newest pushed embedder, if it has these settings; return its name, empty where it has not."""
    store, name = ModelStore(parent(place)), name_of(place)
    try:
        version = store.version(name, "latest")
    except (ModelNotFoundError, ModelVersionNotFoundError):
        return ""
    with fetched(version.url) as folder:
        if embedder_settings(folder) != settings:
            return ""
        ignored = {folder: {PUSH_FILE, SIGNATURE_FILE}, folder / INDEX_FOLDER.parent: {INDEX_FOLDER.name}}
        model_dir.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, model_dir, ignore=lambda path, _: ignored.get(Path(path), set()))
    return f"{name}@{version.version}"


def _blocks(backbone: keras.Model, settings: EmbeddingSettings) -> list[tuple[int, float]]:
    """Return the widths of the layers whose features a backbone gives, the last layer first, and weights."""
    last = backbone.layers[-1]
    if isinstance(last, keras.layers.Concatenate):
        first, *others = [int(given.shape[-1]) for given in last.input]
        return [(first, 1.0), *((width, settings.middle_weight) for width in others)]
    return [(int(backbone.output_shape[-1]), 1.0)]


def _components(
    store: FeatureStore, projection: Projection, settings: EmbeddingSettings
) -> tuple[Array, Array]:
    """Return mean and principal components of the scaled features, both views."""
    total, mean, square = 0, np.zeros(store.width), np.zeros((store.width, store.width))
    for views, _ in store.views(_BATCH, seed=None):
        scaled = projection.scaled(views).reshape(-1, store.width).astype(np.float64)
        total += len(scaled)
        mean += scaled.sum(axis=0)
        square += scaled.T @ scaled
    mean /= total
    covariance = square / total - np.outer(mean, mean)
    return mean.astype(np.float32), _largest(covariance, settings.component_dimensions)


def _largest(matrix: Array, count: int) -> Array:
    """Return the eigenvectors of the largest eigenvalues, (n, count), the largest number of each positive."""
    vectors = np.linalg.eigh(matrix)[1][:, ::-1][:, :count]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return np.asarray(vectors * np.sign(largest), np.float32)


def _rotation(store: FeatureStore, projection: Projection, dimensions: int) -> Array:
    """Return what turns head and components so that their first numbers hold most, and cuts the others."""
    square: Array | None = None
    for views, _ in store.views(_BATCH, seed=None):
        side = beside(projection, projection.scaled(views[:, 0])).astype(np.float64)
        square = side.T @ side if square is None else square + side.T @ side
    assert square is not None
    return _largest(square, dimensions)


def _fit_head(
    task: TrainingTask, settings: EmbeddingSettings, store: FeatureStore, projection: Projection, photos: int
) -> tuple[tuple[Array, Array], FitState]:
    """Fit the head on both views of each photo."""
    steps = math.ceil(photos / settings.batch_size)
    views = keras.Input((2, store.width), name="views")
    dense = keras.layers.Dense(settings.head_dimensions, name="head")
    head = keras.Model(views, keras.layers.UnitNormalization(axis=-1, name="unit")(dense(views)), name="head")
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * steps)
    head.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-4),
        loss=_Contrastive(settings.temperature, settings.instance_weight),
        jit_compile=False,
    )

    def batches(epoch: int) -> tf.data.Dataset:
        def read() -> Iterator[tuple[Array, Array]]:
            for found, labels in store.views(settings.batch_size, seed=settings.seed * 1_000_003 + epoch):
                yield projection.scaled(found), labels

        return tf.data.Dataset.from_generator(
            read,
            output_signature=(
                tf.TensorSpec([None, 2, store.width], tf.float32),
                tf.TensorSpec([None], tf.int32),
            ),
        ).prefetch(2)

    progress = fit(
        head,
        batches,
        None,
        epochs=settings.epochs,
        steps=steps,
        folder=task.work_dir / "head",
        logs=task.run_dir / "logs" / "head",
        description="fit the head",
        monitor="loss",
        on_checkpoint=task.save,
    )
    kernel, bias = dense.get_weights()
    return (kernel, bias), progress


class _Contrastive(keras.losses.Loss):
    """Photos of a class attract, and so do the views of a photo; all others repel."""

    def __init__(self, temperature: float, instance_weight: float) -> None:
        super().__init__(name="contrastive", reduction="sum_over_batch_size")
        self._temperature, self._instance_weight = temperature, instance_weight

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        photos = tf.shape(y_pred)[0]
        flat = tf.reshape(y_pred, [2 * photos, tf.shape(y_pred)[2]])
        labels = tf.repeat(tf.cast(tf.reshape(y_true, [-1]), tf.int32), 2)
        numbers = tf.repeat(tf.range(photos), 2)
        is_self = tf.eye(2 * photos)
        logits = tf.linalg.matmul(flat, flat, transpose_b=True) / self._temperature - 1e9 * is_self
        log_shares = logits - tf.reduce_logsumexp(logits, axis=1, keepdims=True)
        by_class = _attracting(log_shares, labels, is_self)
        by_photo = _attracting(log_shares, numbers, is_self)
        return by_class + self._instance_weight * by_photo


def _attracting(log_shares: tf.Tensor, groups: tf.Tensor, is_self: tf.Tensor) -> tf.Tensor:
    """Return, per row, the mean of what the others of its group do not get."""
    same = tf.cast(groups[:, None] == groups[None, :], tf.float32) - is_self
    return -tf.reduce_sum(same * log_shares, axis=1) / tf.maximum(tf.reduce_sum(same, axis=1), 1.0)
