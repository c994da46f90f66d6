"""What an engine's workers find of a model, file by file, is what one loop over all records finds."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from mlplatform.components.model_validator import scoring_on_beam
from mlplatform.components.model_validator.baseline import BaselineModel
from mlplatform.components.model_validator.errors import BaselineError, UnsupportedExamplesError
from mlplatform.components.model_validator.records import Record, Records
from mlplatform.components.model_validator.scoring import LARGEST_SLICES, Measured
from mlplatform.components.model_validator.settings import Question
from mlplatform.components.model_validator.validate import Quality, ScoringEngine, Terms, measure_quality


def _tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", Path(__file__).with_name("tables.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = _tables()
# Several workers in this process: what goes between them is pickled as for any engine.
THREADS = ["--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_threading"]
FILES = 4
QUESTION = Question.of("classification", "long", slices=[["city"]])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The table in several files, one of them empty."""
    folder = tmp_path_factory.mktemp("files")
    whole = tables.rows(folder / "whole.gz")
    records = [*tf.data.TFRecordDataset([whole], "GZIP").as_numpy_iterator()]
    found = []
    for number in range(FILES):
        found.append(str(folder / f"part-{number}.gz"))
        with tf.io.TFRecordWriter(found[-1], "GZIP") as writer:
            for record in records[number :: FILES - 1] if number < FILES - 1 else []:
                writer.write(record)
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`new` is right; `old` calls every trip long; `deaf` has no signature that takes such records."""
    folder = tmp_path_factory.mktemp("models")
    labels = ["no", "yes"]
    tables.export(folder / "new", tables.is_long, "probabilities", labels=labels)
    always = tf.constant([[0.4, 0.6]])
    tables.export(folder / "old", lambda c: 0 * tables.is_long(c) + always, "probabilities", labels=labels)
    tables.export(folder / "number", tables.fare, "predictions")
    return folder


def quality(model: Path, files: list[str], work: Path | None, **terms: Any) -> Quality:
    engine = ScoringEngine(THREADS, str(model), str(work)) if work else None
    given = Terms(splits=["eval"], engine=engine, **{"question": QUESTION, **terms})
    return measure_quality(model, Records(files, given.question), given)


def facts(found: Quality) -> str:
    assert found.measured is not None
    assert found.compared is not None
    return json.dumps(
        {
            "figures": {name: f.as_json() for name, f in found.measured.tally.figures().items()},
            "details": found.measured.tally.details(),
            "mistakes": [(m.item_id, m.truth, m.answer) for m in found.measured.mistakes.surest],
            "slices": [(s.name, s.records) for s in found.slices],
            "compared": found.compared.as_json(),
            "reasons": [*found.reasons],
        },
        default=str,
    )


def test_an_engine_finds_what_one_loop_finds(models, files, tmp_path):
    baseline = BaselineModel(models / "old", "the one before")
    alone = quality(models / "new", files, None, baseline=baseline)
    shared = quality(models / "new", files, tmp_path, baseline=baseline)
    assert json.loads(facts(shared)) == approximately(json.loads(facts(alone)))
    assert shared.measured is not None
    assert shared.measured.records == tables.ROWS
    assert shared.answers is not None
    assert shared.answers.records == tables.ROWS
    left = sorted(file.name for file in tmp_path.glob("answers-*"))
    assert left == [f"answers-{n:05d}" for n in range(FILES - 1)]  # no answers of the empty file


def approximately(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: approximately(one) for key, one in value.items()}
    if isinstance(value, list):
        return [approximately(one) for one in value]
    return pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


def test_a_model_that_does_not_answer_is_rejected_with_the_file(models, files, tmp_path):
    found = quality(models / "number", files, tmp_path)
    assert "does not answer real records" in found.reasons[0]
    assert "part-0.gz" in found.reasons[0]  # of several files that fail, the first


def test_a_baseline_that_does_not_answer_fails_the_gate(models, files, tmp_path):
    with pytest.raises(BaselineError, match="the one before"):
        quality(models / "new", files, tmp_path, baseline=BaselineModel(models / "number", "the one before"))


def test_a_record_without_truth_fails_the_gate_and_is_not_tried_again(models, files, tmp_path):
    with pytest.raises(UnsupportedExamplesError, match="'nothing'"):
        quality(models / "new", files, tmp_path, question=Question.of("classification", "nothing"))


def test_a_model_is_loaded_once_per_worker(models, files, tmp_path, monkeypatch):
    loaded = []
    load = scoring_on_beam.ServedModel.load
    monkeypatch.setattr(
        scoring_on_beam.ServedModel, "load", lambda folder: loaded.append(folder) or load(folder)
    )
    quality(models / "new", files, tmp_path)
    assert loaded == [models / "new"]


def test_slices_with_too_many_values_are_the_same_ones_in_every_part():
    question = Question.of("regression", "fare", slices=[["id"]])
    kind = question.find_kind()

    def measured(numbers: range) -> Measured:
        found = Measured([], question, kind)
        for begin in range(numbers.start, numbers.stop, 100):
            batch = [record(number % 1500) for number in range(begin, begin + 100)]
            found.add(batch, {"predictions": np.zeros(len(batch))})
        return found

    whole, one, other = measured(range(3000)), measured(range(2000)), measured(range(2000, 3000))
    other.merge(one)
    assert [(s.name, s.records) for s in other.slices()] == [(s.name, s.records) for s in whole.slices()]
    assert len(whole.slices()) == LARGEST_SLICES
    assert {s.records for s in whole.slices()} == {2}  # each has all of its records
    assert other.unmeasured == whole.unmeasured == {("id",)}


def record(number: int) -> Record:
    return Record(number, tf.train.Example(), (1.0,), str(number), (f"id = {number}",))
