"""A model of items' colours: a linear layer on colour statistics and a pretrained network's first layers."""

import importlib
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlplatform.config import parse_config
from mlplatform.progress import report_line, track
from mlplatform.training.color_classifier_settings import ColorSettings
from mlplatform.training.errors import NoEvaluationExamplesError, NoExamplesError, TooFewClassesError
from mlplatform.training.fit import FitState, fit
from mlplatform.training.history import write_history
from mlplatform.training.task import TrainingTask
from mlplatform.vision.color.features import color_features, lab_of
from mlplatform.vision.color.names import rule_names
from mlplatform.vision.color.palette import palette
from mlplatform.vision.color.vocabulary import MOST_COLORS, MULTICOLOUR, NAMES, acceptable
from mlplatform.vision.embedding import ImageEmbedder, component_projection
from mlplatform.vision.examples import IMAGE, ITEM_ID, ReadLabels, count_labels, sample_records
from mlplatform.vision.features import FeatureStore, compute_features
from mlplatform.vision.signatures import check_labels, export_image_classifier

Array = NDArray[Any]

WARMUP_PHOTOS = 4
# Photos without which their number says nothing of how sure the model may be.
LEAST_CALIBRATION_PHOTOS = 30
_TEMPERATURES = np.geomspace(0.4, 2.5, 61)
_LEAST_DEVIATION = 1e-3
_PROJECTION_BATCH = 512
# How freely the layer learns of photos like the drawn ones what does not hold for the others.
_OF_DRAWN = 5.0
_LIKENESS_PENALTY, _STEEPNESS = 0.35, 4.0
# Between an item's colours in a truth, and at the end of a drawn photo's.
_BETWEEN, _DRAWN = "\n", "\t"
_DRAWN_FEATURE = "drawn"


def train(task: TrainingTask) -> None:
    """Train a model of colours as the task says and export it; `run_fn` of `ModelTrainer`.

    Raises:
        ConfigError: A hyperparameter is unknown or does not fit.
        NoExamplesError: No photo of the training split has a colour.
        TooFewClassesError: They are all of one colour.
        NoEvaluationExamplesError: No photo of the evaluation split has a colour that is trained.
        LabelError: A colour's name cannot be written to `labels.txt`.
        UnreadablePhotoError: Photos cannot be decoded; they are named.
    """
    settings = parse_config(ColorSettings, task.hyperparameters, source="the model's hyperparameters")
    keras.utils.set_random_seed(settings.seed)
    truth_of = read_truths(settings.label_feature)
    listed = count_labels(task.train_files, truth_of).per_label
    colors = choose_colors(settings, listed)
    check_labels(colors)
    drawn_files = [_draw(task.work_dir, settings)] if settings.drawn_photos else []
    train_photos = _Photos.read([*task.train_files, *drawn_files], truth_of, colors, settings)
    eval_photos = _Photos.read(task.eval_files, truth_of, colors, settings) if task.eval_files else None
    _check(listed, train_photos, eval_photos, settings.label_feature, colors)

    backbone = color_features(settings.image_size)
    train_store = train_photos.compute(backbone, task.work_dir / "train-features", mirrored=True)
    eval_store = None
    if eval_photos:
        eval_store = eval_photos.compute(backbone, task.work_dir / "eval-features", mirrored=False)
    head = _head(train_store, train_photos, settings, len(colors))
    progress = _fit_head(task, settings, head, train_store, train_photos)
    temperature = 1.0
    if eval_store and eval_photos:
        temperature = _calibrate(head, eval_store, eval_photos)
    write_history(
        task.run_dir,
        {"head": progress},
        photos=train_photos.records - settings.drawn_photos,
        drawn_photos=settings.drawn_photos,
        left_out=train_photos.left_out,
        colors=colors,
        temperature=temperature,
        settings=settings.model_dump(),
    )
    embedder = None
    if settings.embedding_dimensions:
        features = (batch for batch, _ in train_store.batches(_PROJECTION_BATCH, seed=None))
        projection = component_projection(backbone, features, settings.embedding_dimensions)
        embedder = ImageEmbedder(backbone, projection, settings.image_size)
    export_image_classifier(
        keras.Model(backbone.inputs, head(backbone.outputs[0]), name="color_classifier"),
        colors,
        settings.image_size,
        task.model_dir,
        samples=sample_records(task.train_files, WARMUP_PHOTOS),
        more=_palette_and_answer(colors, settings.min_confidence),
        judged=lambda images, _: {"rules": rule_names(lab_of(images))},
        embedder=embedder,
    )


def read_truths(label_feature: str) -> ReadLabels:
    """Return what reads the colours of serialized Examples (n,), string (n,).

    A truth is the first colours of the label's feature, one a line; empty where there are none. That of a
    drawn photo ends in a tab.
    """

    def read(records: tf.Tensor) -> tf.Tensor:
        parsed = tf.io.parse_example(
            records,
            {
                label_feature: tf.io.RaggedFeature(tf.string),
                _DRAWN_FEATURE: tf.io.FixedLenFeature([], tf.int64, default_value=0),
            },
        )
        colors = tf.strings.reduce_join(parsed[label_feature][:, :MOST_COLORS], axis=-1, separator=_BETWEEN)
        return tf.strings.join([colors, tf.where(parsed[_DRAWN_FEATURE] > 0, _DRAWN, "")])

    return read


def choose_colors(settings: ColorSettings, truths: Mapping[str, int]) -> list[str]:
    """Return the names that the model tells apart, in the order of its outputs.

    Args:
        settings: Name them, or leave it to the photos.
        truths: Training photos per truth.
    """
    if settings.colors is not None:
        return settings.colors
    photos: dict[str, int] = {}
    for truth, count in truths.items():
        main = truth.split(_BETWEEN)[0]
        photos[main] = photos.get(main, 0) + count
    usual = [*NAMES, MULTICOLOUR]
    further = [c for c, n in sorted(photos.items()) if c and c not in usual and n >= settings.min_photos]
    return usual + further


def soft_target(truth: str, colors: Sequence[str], second_color_weight: float) -> Array | None:
    """Return what the model should answer to a photo, float32 (colours,), sum 1.

    Args:
        truth: The photo's colours, one a line, the main one first.
        colors: The names that the model tells apart.
        second_color_weight: What the colours beside the main one share.

    Returns:
        None where the photo has no colour that the model has a name for.
    """
    names = acceptable(truth.removesuffix(_DRAWN).split(_BETWEEN), colors)
    if not names:
        return None
    target = np.zeros(len(colors), np.float32)
    target[colors.index(names[0])] = 1.0 if len(names) == 1 else 1.0 - second_color_weight
    for name in names[1:]:
        target[colors.index(name)] += second_color_weight / (len(names) - 1)
    return target


@dataclass(frozen=True)
class _Photos:
    """The photos of some files, by their truths.

    Attributes:
        files: TFRecord files.
        records: All their photos.
        truths: Truths that the model can answer, in an order of their own.
        counts: Photos per truth.
        targets: float32 (truths, colours).
        weights: float32 (truths,): how much a photo counts.
        left_out: Photos without a colour, or with none that the model has a name for.
        truth_of: Reads truths.
    """

    files: Sequence[str]
    records: int
    truths: list[str]
    counts: Array
    targets: Array
    weights: Array
    left_out: int
    truth_of: ReadLabels

    @classmethod
    def read(
        cls, files: Sequence[str], truth_of: ReadLabels, colors: Sequence[str], settings: ColorSettings
    ) -> "_Photos":
        contents = count_labels(files, truth_of)
        targets = {t: soft_target(t, colors, settings.second_color_weight) for t in contents.per_label}
        truths = [truth for truth, target in targets.items() if target is not None]
        counts = np.array([contents.per_label[truth] for truth in truths])
        weights = [settings.drawn_weight if truth.endswith(_DRAWN) else 1.0 for truth in truths]
        return cls(
            files=files,
            records=contents.records,
            truths=truths,
            counts=counts,
            targets=np.array([targets[truth] for truth in truths], np.float32).reshape(-1, len(colors)),
            weights=np.array(weights, np.float32),
            left_out=contents.records - int(counts.sum()),
            truth_of=truth_of,
        )

    @property
    def weight(self) -> float:
        """What all photos count together."""
        return float(self.counts @ self.weights)

    def compute(self, backbone: keras.Model, folder: Path, *, mirrored: bool) -> FeatureStore:
        """Return the features of all photos; their labels are places in `truths`."""
        return compute_features(
            backbone,
            self.files,
            self.truths,
            folder,
            photos=self.records,
            mirrored=mirrored,
            description="compute features of " + ("training photos" if mirrored else "evaluation photos"),
            label_of=self.truth_of,
        )

    def batches(self, store: FeatureStore, batch_size: int, seed: int | None) -> tf.data.Dataset:
        """Stream features (batch, width), targets (batch, colours) and weights (batch,), whose mean is 1."""
        mean = self.weight / int(self.counts.sum())

        def read() -> Iterator[tuple[Array, Array, Array]]:
            for features, truths in store.batches(batch_size, seed=seed):
                yield features, self.targets[truths], self.weights[truths] / mean

        return tf.data.Dataset.from_generator(
            read,
            output_signature=(
                tf.TensorSpec([None, store.width], tf.float32),
                tf.TensorSpec([None, self.targets.shape[1]], tf.float32),
                tf.TensorSpec([None], tf.float32),
            ),
        ).prefetch(2)


def _check(
    listed: Mapping[str, int],
    train_photos: _Photos,
    eval_photos: _Photos | None,
    label_feature: str,
    colors: Sequence[str],
) -> None:
    """See that there is something to learn and to judge it by, and say what is left out."""
    own = {truth: count for truth, count in listed.items() if truth in train_photos.truths}
    if not own:
        raise NoExamplesError(
            f"of {sum(listed.values())} training photos none has a colour in {label_feature!r} that the "
            f"model has a name for ({', '.join(colors[:5])}, ...); the training files"
        )
    mains = {truth.split(_BETWEEN)[0] for truth in own}
    if len(mains) == 1 and not any(truth.endswith(_DRAWN) for truth in train_photos.truths):
        raise TooFewClassesError(sorted(mains))
    if eval_photos is not None and not eval_photos.truths:
        raise NoEvaluationExamplesError([], list(colors))
    for photos, split in ((train_photos, "training"), (eval_photos, "evaluation")):
        if photos and photos.left_out:
            report_line(
                f"{photos.left_out:,} {split} photos without a colour that the model has a name for: left out"
            )


def _draw(work_dir: Path, settings: ColorSettings) -> str:
    """Draw photos of known colours into a TFRecord file, which appears in one step."""
    file = work_dir / "drawn.tfrecord"
    if file.exists():
        return str(file)
    module, _, name = settings.drawn_by.partition(":")
    draw = cast(Callable[..., Iterator[tuple[bytes, str]]], getattr(importlib.import_module(module), name))
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        tf.io.TFRecordWriter(str(partial)) as writer,
        track("draw photos", total=settings.drawn_photos, unit="photos") as bar,
    ):
        for number, (photo, color) in enumerate(
            draw(settings.drawn_photos, settings.image_size, settings.seed)
        ):
            example = tf.train.Example()
            features = example.features.feature
            features[IMAGE].bytes_list.value.append(photo)
            features[settings.label_feature].bytes_list.value.append(color.encode())
            features[ITEM_ID].bytes_list.value.append(f"drawn-{number}".encode())
            features[_DRAWN_FEATURE].int64_list.value.append(1)
            writer.write(example.SerializeToString(deterministic=True))
            bar.advance(1)
    partial.rename(file)
    return str(file)


def _head(store: FeatureStore, photos: _Photos, settings: ColorSettings, colors: int) -> keras.Model:
    """Return features, brought to the training photos' mean and deviation, to logits.

    Where there are drawn photos beside others, what the layer sees of photos like the drawn ones is there
    twice: what is learned of them alone is then no burden to the others (Daume 2007, "Frustratingly Easy
    Domain Adaptation"; what a photo is like is itself seen in its features).
    """
    mean, deviation = _mean_and_deviation(store, photos)
    penalty = keras.regularizers.L2(settings.weight_penalty / (2 * photos.weight))
    features = keras.Input((store.width,), name="features")
    scaled = keras.layers.Normalization(mean=mean, variance=deviation**2, name="standardise")(features)
    seen = scaled
    is_drawn = np.array([truth.endswith(_DRAWN) for truth in photos.truths])
    if is_drawn.any() and not is_drawn.all():
        weights, bias = _likeness(store, is_drawn, mean, deviation)
        likeness = keras.layers.Dense(1, "hard_sigmoid", trainable=False, name="like_drawn")
        like_drawn = likeness(scaled)
        likeness.set_weights([weights[:, None], np.array([bias])])
        share = keras.layers.Rescaling(_OF_DRAWN, name="share")(like_drawn)
        of_drawn = keras.layers.Multiply(name="of_drawn")([scaled, share])
        seen = keras.layers.Concatenate(name="seen")([scaled, of_drawn, share])
    logits = keras.layers.Dense(
        colors, kernel_initializer="zeros", kernel_regularizer=penalty, name="logits"
    )(seen)
    return keras.Model(features, logits, name="head")


def _mean_and_deviation(store: FeatureStore, photos: _Photos) -> tuple[Array, Array]:
    """Return those of each feature of the training photos, as much as each of them counts."""
    total, mean, square = 0.0, np.zeros(store.width), np.zeros(store.width)
    for features, truths in store.batches(1024, seed=None):
        weights = photos.weights[truths].astype(np.float64)
        wide = features.astype(np.float64)
        total += float(weights.sum())
        mean += weights @ wide
        square += weights @ wide**2
    mean /= total
    return mean, np.sqrt(np.maximum(square / total - mean**2, 0.0)) + _LEAST_DEVIATION


def _likeness(store: FeatureStore, is_drawn: Array, mean: Array, deviation: Array) -> tuple[Array, float]:
    """Return weights and bias of what a hard sigmoid makes 1 for photos like the drawn ones, 0 for others.

    A linear regression in closed form, both sorts of photos counting the same, made `_STEEPNESS` times as
    steep around its middle.

    Args:
        store: Features of the training photos.
        is_drawn: bool (truths,).
        mean: Each feature's mean.
        deviation: Its deviation.
    """
    products = np.zeros((2, store.width + 1, store.width + 1))
    sums, counts = np.zeros((2, store.width + 1)), np.zeros(2)
    for features, truths in store.batches(1024, seed=None):
        scaled = (features.astype(np.float64) - mean) / deviation
        wide = np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)
        for sort in (0, 1):
            of_sort = wide[is_drawn[truths] == bool(sort)]
            products[sort] += of_sort.T @ of_sort
            sums[sort] += of_sort.sum(axis=0)
            counts[sort] += len(of_sort)
    penalty = _LIKENESS_PENALTY * np.eye(store.width + 1)
    penalty[-1, -1] = 0
    found = np.linalg.solve(
        (products / counts[:, None, None]).mean(axis=0) + penalty, sums[1] / counts[1] / 2
    )
    steep = 6 * _STEEPNESS  # Keras's hard sigmoid rises from -3 to 3
    return found[:-1] * steep, float((found[-1] - 0.5) * steep)


def _fit_head(
    task: TrainingTask,
    settings: ColorSettings,
    head: keras.Model,
    store: FeatureStore,
    photos: _Photos,
) -> FitState:
    """Fit the head to the least penalised loss; the last weights are kept.

    The loss is convex and its penalty keeps the weights small, so no epoch before the last one is better but
    by chance: the evaluation photos, which may be few, do not choose.
    """
    steps = math.ceil(int(photos.counts.sum()) / settings.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * steps)
    head.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    return fit(
        head,
        lambda epoch: photos.batches(store, settings.batch_size, settings.seed * 1_000_003 + epoch),
        None,
        epochs=settings.epochs,
        steps=steps,
        folder=task.work_dir / "head",
        logs=task.run_dir / "logs" / "head",
        description="fit the head",
        monitor="loss",
    )


def _calibrate(head: keras.Model, store: FeatureStore, photos: _Photos) -> float:
    """Scale the head's logits so that its confidence is how often it is right; return the temperature.

    It is the one with the least log loss on the evaluation photos (Guo et al. 2017, "On Calibration of Modern
    Neural Networks"); 1 where these are too few.
    """
    if int(photos.counts.sum()) < LEAST_CALIBRATION_PHOTOS:
        return 1.0
    parts = [
        (np.asarray(head(features, training=False)), photos.targets[truths].argmax(axis=1))
        for features, truths in store.batches(1024, seed=None)
    ]
    logits, mains = (np.concatenate(column) for column in zip(*parts, strict=True))
    temperature = float(min(_TEMPERATURES, key=lambda t: _log_loss(logits / t, mains)))
    dense = head.get_layer("logits")
    dense.set_weights([weight / temperature for weight in dense.get_weights()])
    return temperature


def _log_loss(logits: Array, classes: Array) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-logs[np.arange(len(classes)), classes].mean())


def _palette_and_answer(
    colors: Sequence[str], min_confidence: float
) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    def more(images: tf.Tensor, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
        rgb, share = palette(lab_of(images))
        first = tf.gather(tf.constant(list(colors)), tf.argmax(probabilities, axis=-1))
        is_sure = tf.reduce_max(probabilities, axis=-1) >= min_confidence
        return {"palette_rgb": rgb, "palette_share": share, "answer": tf.where(is_sure, first, "")}

    return more
