"""Data steps on real engines: the same versions and figures as in this process."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tensorflow as tf

from mlplatform.arrow import pq
from mlplatform.beam.doctor import look_at_engine
from mlplatform.components.model_validator.baseline import BaselineModel
from mlplatform.components.model_validator.records import Records
from mlplatform.components.model_validator.settings import Question
from mlplatform.components.model_validator.validate import Quality, ScoringEngine, Terms, measure_quality
from mlplatform.datasets import DatasetStore
from mlplatform.orchestration.engine import parse_engine
from mlplatform.prediction.predict import Model, predict

SHARDS, PER_SHARD = 6, 4000
PER_PHOTO_SHARD = 2000


def _tables() -> ModuleType:
    file = Path(__file__).parents[1] / "components/model_validator/tables.py"
    spec = importlib.util.spec_from_file_location("tables", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = _tables()


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records in two splits, some of them more than once."""
    folder = tmp_path_factory.mktemp("examples")
    for shard in range(SHARDS):
        split = folder / f"Split-{'eval' if shard == 0 else 'train'}"
        split.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(split / f"data-{shard:05d}"), "") as writer:
            for number in range(PER_SHARD):
                example = tf.train.Example()
                features = example.features.feature
                features["item_id"].bytes_list.value.append(b"%d-%d" % (shard, number % (PER_SHARD - 9)))
                features["label"].bytes_list.value.append(b"%d" % (number % 7))
                writer.write(example.SerializeToString())
    return folder


def digest(examples: Path, store: Path, arguments: Sequence[str] | None) -> tuple[str, dict[str, int]]:
    manifest = (
        DatasetStore(str(store))
        .commit("items", str(examples), key=["item_id"], label="label", beam_options=arguments)
        .manifest
    )
    return manifest.digest, {name: split.records for name, split in manifest.splits.items()}


def test_the_engine_is_fit(engine: list[str], tmp_path: Path) -> None:
    found = [*look_at_engine(engine, str(tmp_path))]
    assert {check.status for check in found} == {"ok"}, found
    assert [check.name for check in found][-2:] == ["shared storage", "versions of the workers"]
    assert [*tmp_path.iterdir()] == []


def test_a_commit_is_the_same_version(engine: list[str], examples: Path, tmp_path: Path) -> None:
    assert digest(examples, tmp_path / "there", engine) == digest(examples, tmp_path / "here", None)


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A table in several files."""
    folder = tmp_path_factory.mktemp("trips")
    whole = tables.rows(folder / "whole.gz")
    records = [*tf.data.TFRecordDataset([whole], "GZIP").as_numpy_iterator()]
    Path(whole).unlink()
    files = [str(folder / f"part-{number}") for number in range(4)]
    for number, file in enumerate(files):
        with tf.io.TFRecordWriter(file) as writer:
            for record in records[number::4]:
                writer.write(record)
    return files


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    labels = ["no", "yes"]
    tables.export(folder / "new", tables.is_long, "probabilities", labels=labels)
    constant = tf.constant([[0.4, 0.6]])
    tables.export(folder / "old", lambda c: 0 * tables.is_long(c) + constant, "probabilities", labels=labels)
    return folder


def scored(models: Path, files: list[str], engine: ScoringEngine | None) -> Quality:
    question = Question.of("classification", "long", slices=[["city"]])
    baseline = BaselineModel(models / "old", "the one before")
    terms = Terms(splits=["eval"], question=question, baseline=baseline, engine=engine)
    return measure_quality(models / "new", Records(files, question), terms)


def facts(quality: Quality) -> Any:
    assert quality.measured is not None
    assert quality.compared is not None
    tally = quality.measured.tally
    found = {
        "figures": {name: figure.as_json() for name, figure in tally.figures().items()},
        "details": tally.details(),
        "slices": [(part.name, part.records) for part in quality.slices],
        "compared": quality.compared.as_json(),
        "reasons": [*quality.reasons],
    }
    return json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 6))


def test_scoring_finds_the_same(engine: list[str], models: Path, trips: list[str], tmp_path: Path) -> None:
    there = scored(models, trips, ScoringEngine(engine, str(models / "new"), str(tmp_path)))
    assert facts(there) == facts(scored(models, trips, None))
    assert there.answers is not None
    assert there.answers.records == tables.ROWS


def test_predictions_are_the_same(engine: list[str], models: Path, trips: list[str], tmp_path: Path) -> None:
    model, source = Model(str(models / "new"), "long@1", "trips@v1"), Path(trips[0]).parent
    found = predict(model, source, tmp_path / "there.parquet", beam_arguments=engine)
    assert (found.rows, found.rejected) == (tables.ROWS, {})
    predict(model, source, tmp_path / "here.parquet")
    there, here = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("there", "here"))
    assert there == here


def test_four_times_the_records_take_a_worker_no_more_memory(
    flink: Any, on_flink: dict[str, Any], tmp_path: Path
) -> None:
    engine, peaks = parse_engine({**on_flink, "environment_cache_s": 60}), []
    assert engine is not None
    payload = bytes(range(256)) * 40
    for name, shards in (("some", 4), ("many", 16)):
        split = tmp_path / name / "Split-train"
        split.mkdir(parents=True)
        for shard in range(shards):
            with tf.io.TFRecordWriter(str(split / f"data-{shard:05d}")) as writer:
                for number in range(PER_PHOTO_SHARD):
                    example = tf.train.Example()
                    features = example.features.feature
                    features["item_id"].bytes_list.value.append(b"%d-%d" % (shard, number))
                    features["label"].bytes_list.value.append(b"%d" % (number % 7))
                    features["image/encoded"].bytes_list.value.append(payload + b"%d-%d" % (shard, number))
                    writer.write(example.SerializeToString())
        before = {worker.pid for worker in flink.workers()}
        _, records = digest(tmp_path / name, tmp_path / f"store of {name}", engine.arguments)
        assert records == {"train": shards * PER_PHOTO_SHARD}
        peaks.append(flink.peak_mb(but=before))
    print(f"\npeak of a worker: {peaks[0]:.0f} MB, {peaks[1]:.0f} MB with four times the records")
    assert 50 < peaks[1] <= 1.2 * peaks[0]
