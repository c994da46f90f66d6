"""A classifier of photos: a pretrained backbone and a new head, or a small network trained from nothing."""

import math

import keras
import tensorflow as tf

from mlplatform.config import parse_config
from mlplatform.exported_model.tflite_export import export_tflite
from mlplatform.progress import track
from mlplatform.serving.mixed_precision import BFLOAT16, ask_for_bfloat16
from mlplatform.training.devices import gpus, trainable
from mlplatform.training.errors import NoEvaluationExamplesError, NoExamplesError, TooFewClassesError
from mlplatform.training.fit import FitState, fit
from mlplatform.training.history import write_history
from mlplatform.training.image_classifier_settings import ClassifierSettings
from mlplatform.training.task import TrainingTask
from mlplatform.vision.augmentation import augment
from mlplatform.vision.backbones import Backbone, build_backbone
from mlplatform.vision.embedding import ImageEmbedder, component_projection
from mlplatform.vision.examples import LabelCounts, count_labels, naming_unreadable, sample_records
from mlplatform.vision.features import FeatureStore, compute_features
from mlplatform.vision.fine_tuning import blocks, unfreeze_last_blocks
from mlplatform.vision.photos import photo_batches
from mlplatform.vision.precision import computes_bfloat16
from mlplatform.vision.signatures import check_labels, export_image_classifier
from mlplatform.vision.warm_start import start_from

WARMUP_PHOTOS, CALIBRATION_PHOTOS, PROJECTION_PHOTOS = 4, 200, 2048


def train(task: TrainingTask) -> None:
    """Train a classifier of photos as the task says and export it; `run_fn` of `ModelTrainer`.

    Raises:
        ConfigError: A hyperparameter is unknown or does not fit.
        NoExamplesError: The training split is empty.
        TooFewClassesError: It holds one class.
        NoEvaluationExamplesError: The evaluation split holds no class of the training split.
        LabelError: A class name cannot be written to `labels.txt`.
        NoBlocksError: `fine_tune_blocks` is given for a backbone without named blocks.
        UnreadablePhotoError: Photos cannot be decoded; they are named.
    """
    settings = parse_config(ClassifierSettings, task.hyperparameters, source="the model's hyperparameters")
    keras.utils.set_random_seed(settings.seed)
    contents = count_labels(task.train_files)
    judged = count_labels(task.eval_files) if task.eval_files else None
    _check(task, contents, judged)
    labels = list(contents.per_label)
    backbone = build_backbone(settings.backbone, settings.image_size)
    if backbone.is_pretrained and settings.fine_tune_blocks:
        blocks(backbone.network)  # a backbone without them is reported now, not after the head's training
    head = _head(backbone.network.output_shape[-1], len(labels), settings.dropout)
    network = keras.Model(backbone.network.inputs, head(backbone.network.outputs[0]), name="image_classifier")
    if task.base_model_dir:
        start_from(network, labels, task.base_model_dir, task.taxonomy)

    history: dict[str, FitState] = {}
    if backbone.is_pretrained:
        history["head"] = _fit_head(task, settings, backbone, head, contents, judged)
        if settings.fine_tune_blocks:
            unfreeze_last_blocks(backbone.network, settings.fine_tune_blocks)
            history["fine_tuning"] = _fit_network(
                task,
                settings,
                network,
                contents,
                settings.fine_tune_epochs,
                settings.fine_tune_learning_rate,
                to_beat=history["head"].best if judged is not None else None,
            )
    else:
        history["network"] = _fit_network(
            task,
            settings,
            network,
            contents,
            settings.epochs_from(task.base_model_dir is not None),
            settings.learning_rate,
        )
    write_history(
        task.run_dir,
        history,
        photos=contents.records,
        classes=len(contents.per_label),
        settings=settings.model_dump(),
    )
    embedder = None
    if settings.embedding_dimensions:
        embedder = _embedder(task, settings, backbone.network, labels)
    export_image_classifier(
        network,
        labels,
        settings.image_size,
        task.model_dir,
        samples=sample_records(task.train_files, WARMUP_PHOTOS),
        embedder=embedder,
    )
    if settings.tflite != "none":
        _export_tflite(task, settings, labels)
    if settings.mixed_precision == BFLOAT16:
        ask_for_bfloat16(task.model_dir)


def _check(task: TrainingTask, contents: LabelCounts, judged: LabelCounts | None) -> None:
    """See, before anything is computed, that there is something to learn and to judge it by."""
    labels = list(contents.per_label)
    if not labels:
        raise NoExamplesError(f"the training files ({', '.join(task.train_files[:3])})")
    check_labels(labels)
    if len(labels) < 2:
        raise TooFewClassesError(labels)
    if judged is not None and not set(labels) & set(judged.per_label):
        raise NoEvaluationExamplesError(list(judged.per_label), labels)


def _head(width: int, classes: int, dropout: float) -> keras.Model:
    features = keras.Input((width,), name="features")
    logits = keras.layers.Dense(classes, name="logits", dtype="float32")
    return keras.Model(features, logits(keras.layers.Dropout(dropout)(features)), name="head")


def _fit_head(
    task: TrainingTask,
    settings: ClassifierSettings,
    backbone: Backbone,
    head: keras.Model,
    contents: LabelCounts,
    judged: LabelCounts | None,
) -> FitState:
    """Fit the head on features that are computed once per photo."""
    labels = list(contents.per_label)
    train = compute_features(
        backbone.network,
        task.train_files,
        labels,
        task.work_dir / "train-features",
        photos=contents.records,
        mirrored=settings.augment,
        description="compute features of training photos",
        # Only the training photos': epochs are judged by what the exported model, in float32, answers.
        in_bfloat16=settings.feature_precision == "auto" and computes_bfloat16(),
    )
    validation = None
    if judged is not None:
        store = compute_features(
            backbone.network,
            task.eval_files,
            labels,
            task.work_dir / "eval-features",
            photos=judged.records,
            mirrored=False,
            description="compute features of evaluation photos",
        )
        validation = _feature_batches(store, settings.batch_size, seed=None)
    steps = math.ceil(contents.records / settings.batch_size)
    epochs = settings.epochs_from(task.base_model_dir is not None)
    _compile(head, settings, settings.learning_rate, epochs * steps, len(labels))
    return fit(
        head,
        lambda epoch: _feature_batches(train, settings.batch_size, seed=settings.seed * 1_000_003 + epoch),
        validation,
        epochs=epochs,
        steps=steps,
        folder=task.work_dir / "head",
        logs=task.run_dir / "logs" / "head",
        description="fit the head",
        patience=settings.patience,
        class_weights=_class_weights(settings, contents),
        on_checkpoint=task.save,
    )


def _fit_network(
    task: TrainingTask,
    settings: ClassifierSettings,
    network: keras.Model,
    contents: LabelCounts,
    epochs: int,
    learning_rate: float,
    to_beat: float | None = None,
) -> FitState:
    """Fit all trainable layers on the photos themselves."""
    labels = list(contents.per_label)
    steps = math.ceil(contents.records / settings.batch_size)
    with (
        naming_unreadable([*task.train_files, *task.eval_files]),
        trainable(network, settings.fit_precision, gpus()) as trained,
    ):
        _compile(trained, settings, learning_rate, epochs * steps, len(labels))
        return fit(
            trained,
            lambda epoch: photo_batches(
                task.train_files,
                labels,
                settings.image_size,
                settings.batch_size,
                seed=settings.seed * 1_000_003 + epoch,
                augment=augment if settings.augment else None,
            ),
            photo_batches(task.eval_files, labels, settings.image_size, settings.batch_size)
            if task.eval_files
            else None,
            epochs=epochs,
            steps=steps,
            folder=task.work_dir / "network",
            logs=task.run_dir / "logs" / "network",
            description="fit the network",
            patience=settings.patience,
            class_weights=_class_weights(settings, contents),
            to_beat=to_beat,
            on_checkpoint=task.save,
        )


def _embedder(
    task: TrainingTask, settings: ClassifierSettings, network: keras.Model, labels: list[str]
) -> ImageEmbedder:
    """Return the embedder of the features as they are after the training, fitted to some of the photos."""
    photos = photo_batches(
        task.train_files, labels, settings.image_size, settings.batch_size, seed=settings.seed
    )
    batches = photos.take(math.ceil(PROJECTION_PHOTOS / settings.batch_size))
    features = (network(images, training=False).numpy() for images, _ in batches)
    projection = component_projection(network, features, settings.embedding_dimensions)
    return ImageEmbedder(network, projection, settings.image_size)


def _feature_batches(store: FeatureStore, batch_size: int, seed: int | None) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(
        lambda: store.batches(batch_size, seed=seed),
        output_signature=(tf.TensorSpec([None, store.width], tf.float32), tf.TensorSpec([None], tf.int32)),
    ).prefetch(2)


def _compile(model: keras.Model, settings: ClassifierSettings, rate: float, steps: int, classes: int) -> None:
    smoothed = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=settings.label_smoothing
    )

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return smoothed(tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes), logits)

    model.compile(
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(rate, steps), weight_decay=1e-4
        ),
        loss=loss,
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseTopKCategoricalAccuracy(min(3, classes), name="top_3_accuracy"),
        ],
        # On a CPU, convolutions that XLA compiles take several times as long as oneDNN's.
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
    )


def _class_weights(settings: ClassifierSettings, contents: LabelCounts) -> dict[int, float] | None:
    if settings.class_weights == "none":
        return None
    counts = list(contents.per_label.values())
    return {number: contents.records / (len(counts) * count) for number, count in enumerate(counts)}


def _export_tflite(task: TrainingTask, settings: ClassifierSettings, labels: list[str]) -> None:
    calibration = None
    if settings.tflite == "int8":
        photos = photo_batches(task.train_files, labels, settings.image_size, 1, seed=settings.seed)
        calibration = [{"images": images.numpy()} for images, _ in photos.take(CALIBRATION_PHOTOS)]
    with track("convert the model to TensorFlow Lite", total=1, unit="signatures") as bar:
        export_tflite(task.model_dir, "pixels", calibration=calibration)
        bar.advance()
