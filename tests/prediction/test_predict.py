"""A row per record, whatever the input and the output; what has no prediction is counted with its reason."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mlplatform.arrow import pa, pq
from mlplatform.prediction.errors import (
    NothingPredictedError,
    PredictionInputError,
    PredictionOutputError,
)
from mlplatform.prediction.predict import Model, predict

THREADS = ["--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_threading"]


def _tables() -> ModuleType:
    file = Path(__file__).parents[1] / "components/model_validator/tables.py"
    spec = importlib.util.spec_from_file_location("tables", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = _tables()


class Brightness(tf.Module):
    """Answers the mean of a photo."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(self, image_bytes):
        def mean(photo):
            return tf.reduce_mean(tf.cast(tf.io.decode_image(photo, expand_animations=False), tf.float32))

        return {"mean": tf.map_fn(mean, image_bytes, tf.float32), "form": tf.constant(b"brightness")}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tables.export(folder / "fare", tables.fare, "predictions")
    made = Brightness()
    tf.saved_model.save(
        made, str(folder / "mean"), signatures={"serving_default": made.serve.get_concrete_function()}
    )
    return folder


@pytest.fixture
def fare(models):
    return Model(str(models / "fare"), "fare@3", "trips@v2")


@pytest.fixture(scope="module")
def trips(tmp_path_factory):
    """Examples in two files, one of them with a record that is no Example."""
    folder = tmp_path_factory.mktemp("trips")
    whole = tables.rows(folder / "whole.gz")
    records = [*tf.data.TFRecordDataset([whole], "GZIP").as_numpy_iterator()]
    Path(whole).unlink()
    for number in (0, 1):
        with tf.io.TFRecordWriter(str(folder / f"data-{number}")) as writer:
            for record in [*records[number::2], *([b"\xff\xff"] if number else [])]:
                writer.write(record)
    return folder


@pytest.mark.parametrize("arguments", [[], THREADS], ids=["one process", "engine"])
def test_every_example_is_a_row_or_a_reject(fare, trips, tmp_path, arguments):
    found = predict(fare, trips, tmp_path / "out.parquet", beam_arguments=arguments)
    assert (found.records, found.rows, found.rejected) == (tables.ROWS + 1, tables.ROWS, {"unreadable": 1})
    assert found.rejects[0].key == f"record {tables.ROWS // 2 + 1}"
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert {(row["model"], row["dataset"]) for row in rows} == {("fare@3", "trips@v2")}
    assert sorted(int(row["key"]) for row in rows) == [*range(tables.ROWS)]
    example = next(row for row in rows if row["key"] == "4")
    assert example["predictions"] == pytest.approx(expected(trips, 4), rel=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]


def expected(trips, number):
    """The right fare of a trip, as a list of one."""
    for record in tf.data.TFRecordDataset([str(f) for f in sorted(trips.iterdir())]).as_numpy_iterator():
        if record == b"\xff\xff":
            continue
        features = tf.train.Example.FromString(record).features.feature
        if features["id"].int64_list.value[0] == number:
            miles, minutes = (features[name].float_list.value[0] for name in ("miles", "minutes"))
            return [3 + 2 * miles + 0.5 * minutes]
    raise AssertionError(number)


def test_a_table_gives_tfrecords(fare, tmp_path):
    table = pa.table(
        {"id": ["a", "b"], "miles": [1.0, 2.0], "minutes": [4.0, None], "city": ["Bern", "Genf"]}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    found = predict(fare, tmp_path / "in.parquet", tmp_path / "out.tfrecord")
    assert (found.records, found.rows) == (2, 2)
    records = [*tf.data.TFRecordDataset([str(tmp_path / "out.tfrecord")]).as_numpy_iterator()]
    first, second = (tf.train.Example.FromString(record).features.feature for record in records)
    assert first["key"].bytes_list.value[0] == b"a"
    assert first["model"].bytes_list.value[0] == b"fare@3"
    assert first["predictions"].float_list.value[0] == pytest.approx(7.0)
    assert second["predictions"].float_list.value[0] == pytest.approx(7.0)  # without minutes


def test_photos_give_rows_and_a_broken_one_a_reject(models, tmp_path):
    photos = tmp_path / "photos"
    (photos / "cups").mkdir(parents=True)
    for name, shade in (("dark", 10), ("light", 200)):
        Image.fromarray(np.full((4, 4, 3), shade, np.uint8)).save(photos / "cups" / f"{name}.png")
    (photos / "broken.jpg").write_bytes(b"no photo")
    found = predict(Model(str(models / "mean"), "mean@1"), photos, tmp_path / "out.parquet")
    rows = {row["key"]: row for row in pq.read_table(tmp_path / "out.parquet").to_pylist()}
    assert {key: row["mean"] for key, row in rows.items()} == {"cups/dark.png": 10.0, "cups/light.png": 200.0}
    assert rows["cups/dark.png"]["form"] == "brightness"  # one value for the whole batch
    assert (found.records, found.rows, found.rejected) == (3, 2, {"not_answered": 1})
    assert found.rejects[0].key == "broken.jpg"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("missing", "there is no such file or folder"),
        ("empty", "the folder holds no files"),
        ("text", "it is not a TFRecord file"),
        ("text.parquet", "it is not a Parquet file"),
    ],
)
def test_an_input_that_cannot_be_read_is_named(fare, tmp_path, source, problem):
    (tmp_path / "empty").mkdir()
    for name in ("text", "text.parquet"):
        (tmp_path / name).write_text("neither the one nor the other\n" * 9)
    with pytest.raises(PredictionInputError, match=problem) as raised:
        predict(fare, tmp_path / source, tmp_path / "out.parquet")
    assert source in str(raised.value)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("output", "problem"),
    [("out.csv", "must end in"), ("there.parquet", "it exists"), ("no/x.parquet", "does not exist")],
)
def test_an_output_that_cannot_be_written_is_named(fare, trips, tmp_path, output, problem):
    (tmp_path / "there.parquet").touch()
    with pytest.raises(PredictionOutputError, match=problem):
        predict(fare, trips, tmp_path / output)


def test_records_that_the_model_does_not_take_are_named(models, tmp_path):
    pq.write_table(pa.table({"colour": ["red"]}), tmp_path / "in.parquet")
    with pytest.raises(NothingPredictedError, match="mean@1 answered none of 1 records"):
        predict(Model(str(models / "mean"), "mean@1"), tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
