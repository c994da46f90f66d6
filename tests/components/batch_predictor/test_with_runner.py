"""`BatchPredictor` in a pipeline, under the local runner: a row per record, and what has none is counted."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import tensorflow as tf
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts

from mlplatform.arrow import pq
from mlplatform.components import BatchPredictor
from mlplatform.orchestration.local import LocalRunner

pytestmark = pytest.mark.e2e


def _tables() -> ModuleType:
    file = Path(__file__).parents[1] / "model_validator/tables.py"
    spec = importlib.util.spec_from_file_location("tables", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = _tables()


def test_every_record_of_the_splits_is_a_row_or_a_reject(runner: LocalRunner, tmp_path: Path) -> None:
    tables.export(tmp_path / "model/Format-Serving", tables.fare, "predictions")
    for split in ("train", "eval"):
        (tmp_path / f"examples/Split-{split}").mkdir(parents=True)
    tables.rows(tmp_path / "examples/Split-eval/trips.gz")
    with tf.io.TFRecordWriter(str(tmp_path / "examples/Split-train/trips")) as writer:
        writer.write(b"\xff\xff")
        writer.write(tf.train.Example().SerializeToString())
    model = Importer(source_uri=str(tmp_path / "model"), artifact_type=standard_artifacts.Model).with_id(
        "model"
    )
    examples = Importer(
        source_uri=str(tmp_path / "examples"),
        artifact_type=standard_artifacts.Examples,
        properties={"split_names": '["train", "eval"]'},
        custom_properties={"dataset_version": "trips@v2"},
    ).with_id("examples")
    predictor = BatchPredictor(
        model=model.outputs["result"],
        examples=examples.outputs["result"],
        splits=["train", "eval"],
        model_name="fare",
    )
    record = runner.run(
        Pipeline(
            "predicting",
            str(tmp_path / "root"),
            components=[model, examples, predictor],
            metadata_connection_config=sqlite_metadata_connection_config(str(tmp_path / "mlmd.sqlite")),
        )
    )
    [node] = [node for node in record.nodes if node.id == "BatchPredictor"]
    out = Path(node.outputs["predictions"][0].uri)
    rows = pq.read_table(out / "eval.parquet").to_pylist()
    assert sorted(int(row["key"]) for row in rows) == [*range(tables.ROWS)]
    assert {(row["model"], row["dataset"]) for row in rows} == {("fare", "trips@v2")}
    assert rows[0]["predictions"][0] > 3
    assert pq.read_table(out / "train.parquet").num_rows == 1
    counts = json.loads((out / "rejects.json").read_text())
    found = {split: (one["records"], one["rows"], one["rejected"]) for split, one in counts.items()}
    assert found == {"train": (2, 1, {"unreadable": 1}), "eval": (tables.ROWS, tables.ROWS, {})}
