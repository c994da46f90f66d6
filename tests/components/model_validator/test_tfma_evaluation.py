"""TFMA's verdict: thresholds met, missed and not applicable."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma

from mlplatform.components.model_validator.records import Record
from mlplatform.components.model_validator.settings import Question
from mlplatform.components.model_validator.tfma_evaluation import AnswersFile, evaluate
from mlplatform.evaluation.classification import NOT_FOUND
from mlplatform.evaluation.kind import Scored


def scores() -> tuple[list[Record], Scored]:
    """Return ten cups (7 first, 1 second, 1 fourth, 1 never), four hats (1 first, 3 sixth), a key."""
    truths = ["cup"] * 10 + ["hat"] * 4 + ["key"]
    ranks = np.array([0] * 7 + [1, 3, NOT_FOUND] + [0, 5, 5, 5] + [NOT_FOUND])
    records = [Record(n, tf.train.Example(), (), "", ()) for n in range(len(truths))]
    scored = Scored(
        error=(ranks > 0).astype(float),
        surprise=np.zeros(len(truths)),
        truth=truths.__getitem__,
        answer=truths.__getitem__,
        columns={"rank": ranks, "label": np.array(truths)},
    )
    return records, scored


def evaluated(folder: Path, thresholds: dict[str, float], top_1_floor: float = 0.0) -> None:
    folder.mkdir(exist_ok=True)
    with AnswersFile(folder / "answers.tfrecord") as answers:
        answers.write(*scores())
    question = Question.of(thresholds=thresholds)
    evaluate(answers, question, ["cup", "hat"], folder, top_1_floor=top_1_floor)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    limits = {"top_1": 8 / 15, "top_3": 0.9, "top_5": 10 / 15, "per_class_recall": 0.5, "min_support": 4}
    evaluated(folder, limits)
    return folder


def failures(folder: Path) -> dict[tuple[str, str], float]:
    """Return what TFMA itself holds for missed: (class, metric) to what was found."""
    result = tfma.load_validation_result(str(folder))
    return {
        (
            b"".join(key.bytes_value for key in part.slice_key.single_slice_keys).decode(),
            failure.metric_key.name,
        ): round(failure.metric_value.double_value.value, 4)
        for part in result.metric_validations_per_slice
        for failure in part.failures
    }


def test_tfma_judges_as_the_gate_does(evaluation: Path) -> None:
    # top-1 and top-5 are met exactly; key has too few photos to be judged.
    assert failures(evaluation) == {("hat", "top_1"): 0.25, ("", "top_3"): 0.6}


def test_tfma_reads_its_own_results(evaluation: Path) -> None:
    result = tfma.load_eval_result(str(evaluation))

    figures = {
        dict(key).get("label", ""): {name: next(iter(v.values())) for name, v in metrics[""][""].items()}
        for key, metrics in result.slicing_metrics
    }
    assert figures[""]["top_1"] == pytest.approx(8 / 15)
    assert figures[""]["top_3"] == pytest.approx(9 / 15)
    assert figures[""]["top_5"] == pytest.approx(10 / 15)
    assert figures["cup"]["top_1"] == pytest.approx(0.7)
    assert figures["hat"]["example_count"] == 4


def test_the_baseline_can_ask_for_more(tmp_path: Path) -> None:
    evaluated(tmp_path, {"top_1": 0.5}, top_1_floor=0.6)
    assert failures(tmp_path) == {("", "top_1"): 0.5333}


def test_records_that_differ_by_the_name_of_an_unjudged_class_become_one(tmp_path: Path) -> None:
    with AnswersFile(tmp_path / "answers.tfrecord") as answers:
        answers.write(*scores())
        answers.name_only({"hat"})
    found = set()
    for record in tf.data.TFRecordDataset(answers.path).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        label, rank = features["label"].bytes_list.value[0], features["rank"].int64_list.value[0]
        found.add((label, rank, features["weight"].float_list.value[0]))
    of_hats = {(b"hat", 0, 1), (b"hat", 5, 3)}
    assert found == {(b"", 0, 7), (b"", 1, 1), (b"", 3, 1), (b"", NOT_FOUND, 2), *of_hats}
    assert answers.records == 15
