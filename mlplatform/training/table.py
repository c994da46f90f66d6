"""A model of a table: what Transform makes of the columns, in a wide and a deep part."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mlplatform.config import parse_config
from mlplatform.exported_model.contents import LABELS_FILE
from mlplatform.training.errors import ColumnError, NoExamplesError, TooFewClassesError
from mlplatform.training.fit import fit
from mlplatform.training.history import write_history
from mlplatform.training.table_settings import TableSettings
from mlplatform.training.task import TrainingTask

SHUFFLED_ROWS = 10_000
_ROWS = 1024  # read at once to learn what the columns hold
Columns = dict[str, tf.Tensor]


@dataclass(frozen=True)
class TableColumn:
    """A column that the model looks at.

    Attributes:
        name: Its name.
        width: Numbers per row.
        values: How many values it has; 0 where it holds numbers.
        mean: Mean of its numbers in the training splits.
        deviation: Their standard deviation.
    """

    name: str
    width: int
    values: int = 0
    mean: float = 0.0
    deviation: float = 1.0


def train(task: TrainingTask) -> None:
    """Train a wide and deep model (Cheng et al. 2016) and export it; `run_fn` of `ModelTrainer`.

    The wide part is linear in the numbers and in each value of the other columns; the deep part are layers
    over the numbers and a vector per value. The exported model takes raw Examples: Transform is its first
    part. Columns that only the label is made of need not be in them.

    Raises:
        ConfigError: A hyperparameter is unknown or does not fit.
        ColumnError: A column is not there, or its form cannot be learned from.
        NoExamplesError: The training splits hold no records.
        TooFewClassesError: The labels are all of one class.
    """
    import tensorflow_transform as tft

    settings = parse_config(TableSettings, task.hyperparameters, source="the model's hyperparameters")
    if task.transform_dir is None:
        raise ColumnError(
            settings.label, "there is no Transform output", "Give ModelTrainer `transform_graph`."
        )
    keras.utils.set_random_seed(settings.seed)
    transform = tft.TFTransformOutput(str(task.transform_dir))
    spec = _spec(transform.transformed_feature_spec(), settings)
    rows, columns, classes = _look(task.train_files, spec, settings)
    model = make_model(columns, classes, settings)
    progress = fit(
        model,
        lambda epoch: _batches(task.train_files, spec, settings, seed=settings.seed * 1_000_003 + epoch),
        _batches(task.eval_files, spec, settings) if task.eval_files else None,
        epochs=settings.epochs,
        steps=math.ceil(rows / settings.batch_size),
        folder=task.work_dir / "table",
        logs=task.run_dir / "logs",
        description="fit the model",
        patience=settings.patience if task.eval_files else 0,
        monitor="val_loss",
        on_checkpoint=task.save,
    )
    write_history(task.run_dir, {"table": progress}, rows=rows, settings=settings.model_dump())
    _export(model, transform, columns, settings, task.model_dir)


def make_model(columns: Sequence[TableColumn], classes: int, settings: TableSettings) -> keras.Model:
    """Return the compiled model.

    Args:
        columns: What it looks at.
        classes: Number of classes; 0 for a number.
        settings: Its settings.

    Returns:
        Columns by name, shape (batch, width), float32 or int64 -> logits (batch, classes), or (batch, 1).
    """
    inputs, wide, deep = {}, [], []
    answers = max(classes, 1)
    for column in columns:
        kind = "int64" if column.values else "float32"
        inputs[column.name] = keras.Input((column.width,), name=column.name, dtype=kind)
        if column.values:
            # A value that no training row had counts as the last one.
            place = keras.ops.clip(inputs[column.name], 0, column.values - 1)
            flat = keras.layers.Flatten
            wide.append(flat()(keras.layers.Embedding(column.values, answers)(place)))
            deep.append(flat()(keras.layers.Embedding(column.values, settings.embedding)(place)))
        else:
            scale = keras.layers.Rescaling(1 / column.deviation, -column.mean / column.deviation)
            scaled = scale(inputs[column.name])
            deep.append(scaled)
            wide.append(keras.layers.Dense(answers, use_bias=False)(scaled))
    hidden = keras.layers.concatenate(deep) if len(deep) > 1 else deep[0]
    for units in settings.hidden_units:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(settings.dropout)(hidden) if settings.dropout else hidden
    parts = [keras.layers.Dense(answers)(hidden), *(_summed(part, answers) for part in wide)]
    model = keras.Model(inputs, keras.layers.add(parts), name="table")
    model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True) if classes else "mse",
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")] if classes else ["mae"],
        jit_compile=False,
    )
    return model


def _summed(part: keras.KerasTensor, answers: int) -> keras.KerasTensor:
    """Return (batch, answers) of (batch, width * answers)."""
    width = part.shape[-1] // answers
    return part if width == 1 else keras.ops.sum(keras.ops.reshape(part, (-1, width, answers)), axis=1)


def _spec(found: Mapping[str, Any], settings: TableSettings) -> dict[str, tf.io.FixedLenFeature]:
    """Return how the label and the columns are parsed.

    Raises:
        ColumnError: One is not there, or is not a number per row (or a fixed number of them).
    """
    names = settings.columns if settings.columns is not None else [n for n in found if n != settings.label]
    for name in (settings.label, *names):
        if name not in found:
            raise ColumnError(name, f"Transform gives {', '.join(sorted(found))}", "Take one of these.")
        kind = found[name]
        if not isinstance(kind, tf.io.FixedLenFeature) or len(kind.shape) > 1 or kind.dtype == tf.string:
            form = f"it is {type(kind).__name__} of {tf.as_dtype(kind.dtype).name}"
            remedy = "Let Transform make dense numbers of it, or leave it out of `columns`."
            raise ColumnError(name, form, remedy)
    return {name: found[name] for name in (*names, settings.label)}


def _rows(
    files: Sequence[str], spec: Mapping[str, Any], size: int, seed: int | None = None
) -> tf.data.Dataset:
    kind = "GZIP" if files and files[0].endswith(".gz") else ""
    records = tf.data.TFRecordDataset(list(files), compression_type=kind)
    if seed is not None:
        records = records.shuffle(SHUFFLED_ROWS, seed=seed, reshuffle_each_iteration=False)

    def parse(batch: tf.Tensor) -> Columns:
        columns = tf.io.parse_example(batch, dict(spec))
        return {name: tf.reshape(value, [-1, _width(spec[name])]) for name, value in columns.items()}

    return records.batch(size).map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _width(spec: tf.io.FixedLenFeature) -> int:
    return math.prod(spec.shape)


def _batches(
    files: Sequence[str], spec: Mapping[str, Any], settings: TableSettings, seed: int | None = None
) -> tf.data.Dataset:
    """Stream pairs of columns and labels (batch, 1)."""

    def part(columns: Columns) -> tuple[Columns, tf.Tensor]:
        return {k: v for k, v in columns.items() if k != settings.label}, columns[settings.label]

    return _rows(files, spec, settings.batch_size, seed).map(part)


def _look(
    files: Sequence[str], spec: Mapping[str, Any], settings: TableSettings
) -> tuple[int, list[TableColumn], int]:
    """Read the training rows once: how many there are, what the columns hold, and how many classes.

    Raises:
        NoExamplesError: There are none.
        ColumnError: The labels of a classification are no whole numbers from 0.
        TooFewClassesError: They are all of one class.
    """
    rows = 0
    low, high = (dict.fromkeys(spec, edge) for edge in (math.inf, -math.inf))
    total, square, widths = dict.fromkeys(spec, 0.0), dict.fromkeys(spec, 0.0), dict.fromkeys(spec, 1)
    for batch in _rows(files, spec, _ROWS).as_numpy_iterator():
        rows += len(batch[settings.label])
        for name, values in batch.items():
            wide = values.astype(np.float64)
            widths[name] = wide.shape[1]
            low[name], high[name] = min(low[name], wide.min()), max(high[name], wide.max())
            total[name] += wide.mean(axis=1).sum()
            square[name] += (wide**2).mean(axis=1).sum()
    if not rows:
        raise NoExamplesError(f"the training files ({', '.join(files[:3])})")

    def is_one_of_few(name: str) -> bool:
        return spec[name].dtype == tf.int64 and low[name] >= 0 and high[name] < settings.most_values

    def column(name: str) -> TableColumn:
        if is_one_of_few(name):
            return TableColumn(name, widths[name], values=int(high[name]) + 1)
        mean = total[name] / rows
        deviation = math.sqrt(max(square[name] / rows - mean**2, 0.0))
        return TableColumn(name, widths[name], mean=mean, deviation=deviation or 1.0)

    columns = [column(name) for name in spec if name != settings.label]
    label = settings.label
    if settings.kind == "regression":
        return rows, columns, 0
    if spec[label].dtype != tf.int64 or low[label] < 0 or widths[label] != 1:
        form = f"it is {spec[label].dtype.name} from {low[label]:g} to {high[label]:g}"
        raise ColumnError(label, form, "A class is one whole number from 0; or is it a regression?")
    if low[label] == high[label]:
        raise TooFewClassesError([f"{low[label]:g}"])
    classes = len(settings.classes) if settings.classes else int(high[label]) + 1
    if high[label] >= classes:
        raise ColumnError(label, f"it has class {high[label]:g}", f"`classes` names {classes} of them.")
    return rows, columns, classes


class _Table(tf.Module):
    """The model with Transform in front of it: raw Examples in, an answer out."""

    def __init__(
        self,
        model: keras.Model,
        transform: Any,
        columns: Sequence[TableColumn],
        settings: TableSettings,
        names: Path,
    ) -> None:
        super().__init__()
        self.transform = transform.transform_features_layer()
        self._model, self._columns, self._kind = model, list(columns), settings.kind
        self.weights = [weight.value for weight in model.weights]
        wanted = [column.name for column in columns]
        self._spec = _needed(transform.raw_feature_spec(), self.transform, wanted)
        if settings.classes:
            names.write_text("".join(f"{name}\n" for name in settings.classes), "utf-8")
            self.labels_file = tf.saved_model.Asset(str(names))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def predict(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answer serialized Examples."""
        columns = self.transform(tf.io.parse_example(examples, self._spec))
        inputs = {c.name: tf.reshape(columns[c.name], [-1, c.width]) for c in self._columns}
        answer = self._model(inputs, training=False)
        if self._kind == "classification":
            return {"probabilities": tf.nn.softmax(answer)}
        return {"predictions": answer}


def _needed(spec: Mapping[str, Any], layer: Any, columns: Sequence[str]) -> dict[str, Any]:
    """Return the raw features that the columns are made of, without those that the label alone needs."""

    def makes_all(names: Sequence[str]) -> bool:
        parsed = tf.io.parse_example(tf.constant([], tf.string), {name: spec[name] for name in names})
        return set(columns) <= set(layer(parsed))

    names = list(spec)
    for name in spec:
        others = [other for other in names if other != name]
        if others and makes_all(others):
            names = others
    return {name: spec[name] for name in names}


def _export(
    model: keras.Model, transform: Any, columns: Sequence[TableColumn], settings: TableSettings, folder: Path
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        exported = _Table(model, transform, columns, settings, Path(scratch) / LABELS_FILE)
        partial = Path(scratch) / "model"
        tf.saved_model.save(exported, str(partial), signatures={"serving_default": exported.predict})
        partial.rename(folder)
