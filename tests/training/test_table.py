"""A table's training: from what Transform makes of a few columns to a model that takes raw Examples."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io, schema_utils

from mlplatform.config_file import ConfigError
from mlplatform.exported_model.contents import read_labels
from mlplatform.training.errors import ColumnError, NoExamplesError, TooFewClassesError
from mlplatform.training.history import read_history
from mlplatform.training.table import train
from mlplatform.training.task import TrainingTask

ROWS = 240
RAW = {
    "miles": tf.io.FixedLenFeature([], tf.float32),
    "city": tf.io.FixedLenFeature([], tf.string),
    "fare": tf.io.FixedLenFeature([], tf.float32),
}
PRICES = {b"Bern": 2.0, b"Genf": 4.0, b"Basel": 8.0}


def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
    fare = inputs["fare"]
    return {
        "miles": tft.scale_to_z_score(inputs["miles"]),
        "city": tft.compute_and_apply_vocabulary(inputs["city"], num_oov_buckets=1),
        "name": inputs["city"],
        "dear": tf.cast(fare > 10, tf.int64) + tf.cast(fare > 25, tf.int64),
        "fare": fare,
        "always": tf.cast(fare * 0, tf.int64),
    }


def raw(miles: float, city: bytes, **more: float) -> bytes:
    example = tf.train.Example()
    example.features.feature["city"].bytes_list.value.append(city)
    for name, value in {"miles": miles, **more}.items():
        example.features.feature[name].float_list.value.append(value)
    return example.SerializeToString()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    """Trips whose fare is the city's price per mile, transformed."""
    folder, random = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    cities = list(PRICES)
    rows = [{"miles": random.uniform(1, 6), "city": cities[number % len(cities)]} for number in range(ROWS)]
    rows = [{**row, "fare": row["miles"] * PRICES[row["city"]]} for row in rows]
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(RAW))
    with tft_beam.Context(temp_dir=str(folder / "scratch")):
        found = (rows, metadata) | tft_beam.AnalyzeDataset(preprocessing_fn)
        found | tft_beam.WriteTransformFn(str(folder / "transform"))
    metadata_io.write_metadata(metadata, str(folder / "transform" / "metadata"))
    layer = tft.TFTransformOutput(str(folder / "transform")).transform_features_layer()
    made = layer({name: tf.constant([row[name] for row in rows], RAW[name].dtype) for name in RAW})
    for split, part in (("train.gz", slice(0, 180)), ("eval.gz", slice(180, ROWS))):
        with tf.io.TFRecordWriter(str(folder / split), "GZIP") as writer:
            for place in range(ROWS)[part]:
                example = tf.train.Example()
                for name, column in made.items():
                    value = column[place].numpy()
                    feature = example.features.feature[name]
                    if isinstance(value, bytes):
                        feature.bytes_list.value.append(value)
                    elif column.dtype == tf.int64:
                        feature.int64_list.value.append(int(value))
                    else:
                        feature.float_list.value.append(float(value))
                writer.write(example.SerializeToString())
    return TrainingTask(
        train_files=(str(folder / "train.gz"),),
        eval_files=(str(folder / "eval.gz"),),
        hyperparameters={"columns": ["miles", "city"], "epochs": 30, "batch_size": 16, "learning_rate": 0.02},
        work_dir=folder,
        model_dir=folder,
        run_dir=folder,
        transform_dir=folder / "transform",
    )


def of(table: TrainingTask, folder: Path, **hyperparameters: Any) -> TrainingTask:
    (folder / "run").mkdir()
    return replace(
        table,
        hyperparameters={**table.hyperparameters, **hyperparameters},
        work_dir=folder / "work",
        model_dir=folder / "model",
        run_dir=folder / "run",
    )


@pytest.mark.slow
def test_a_classification_is_asked_with_raw_examples_without_the_labels_columns(
    table: TrainingTask, tmp_path: Path
) -> None:
    names = ["cheap", "fair", "dear"]
    train(of(table, tmp_path, label="dear", classes=names))
    model = tf.saved_model.load(str(tmp_path / "model"))
    trips = [raw(2, b"Bern"), raw(4, b"Genf"), raw(5, b"Basel"), raw(2, b"Thun")]
    found = model.signatures["serving_default"](tf.constant(trips))["probabilities"].numpy()
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert [names[place] for place in found[:3].argmax(axis=1)] == names
    assert read_labels(tmp_path / "model") == names
    history = read_history(tmp_path / "run")["table"]
    assert history.epochs[history.best_epoch]["val_accuracy"] > 0.85


@pytest.mark.slow
def test_a_regression_answers_numbers(table: TrainingTask, tmp_path: Path) -> None:
    train(of(table, tmp_path, label="fare", kind="regression"))
    model = tf.saved_model.load(str(tmp_path / "model"))
    found = model.signatures["serving_default"](tf.constant([raw(2, b"Bern"), raw(5, b"Basel")]))
    cheap, dear = found["predictions"].numpy()[:, 0]
    assert cheap == pytest.approx(4, abs=3)
    assert dear == pytest.approx(40, abs=6)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"label": "tip"}, ColumnError, "column 'tip': Transform gives always, city, dear"),
        (
            {"label": "dear", "columns": ["name"]},
            ColumnError,
            "column 'name': it is FixedLenFeature of string",
        ),
        ({"label": "fare"}, ColumnError, "or is it a regression"),
        ({"label": "always"}, TooFewClassesError, "all of one class"),
        ({"label": "dear", "classes": ["a", "b"]}, ColumnError, "`classes` names 2"),
        ({"label": "dear", "epoch": 1}, ConfigError, "did you mean 'epochs'"),
    ],
)
def test_what_cannot_be_learned_from_is_named(
    table: TrainingTask, tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        train(of(table, tmp_path, **changes))
    assert says in str(caught.value)


def test_a_table_needs_transforms_output_and_records(table: TrainingTask, tmp_path: Path) -> None:
    task = of(table, tmp_path, label="dear")
    with pytest.raises(ColumnError, match="Give ModelTrainer `transform_graph`"):
        train(replace(task, transform_dir=None))
    empty = tmp_path / "empty.gz"
    tf.io.TFRecordWriter(str(empty), "GZIP").close()
    with pytest.raises(NoExamplesError):
        train(replace(task, train_files=(str(empty),)))
