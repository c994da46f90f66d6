"""TFMA's verdict: thresholds met, missed and not applicable."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow_model_analysis as tfma

from mlplatform.components.model_validator.scoring import NOT_FOUND, Answers
from mlplatform.components.model_validator.settings import Thresholds
from mlplatform.components.model_validator.tfma_evaluation import evaluate


def ranked(truths: list[str], ranks: list[int]) -> Answers:
    count = len(truths)
    return Answers(
        labels=sorted(set(truths)),
        truths=truths,
        item_ids=[""] * count,
        ranks=np.array(ranks),
        classes=np.zeros((count, 1), np.int64),
        scores=np.zeros((count, 1), np.float32),
        webp_photos=0,
    )


# Ten cups: 7 first, 1 second, 1 fourth, 1 never. Four hats: 1 first, 3 sixth. One key: never.
ANSWERS = ranked(
    ["cup"] * 10 + ["hat"] * 4 + ["key"], [0] * 7 + [1, 3, NOT_FOUND] + [0, 5, 5, 5] + [NOT_FOUND]
)


@pytest.fixture(scope="module")
def missed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("evaluation")
    thresholds = Thresholds(top_1=8 / 15, top_3=0.9, top_5=10 / 15, per_class_recall=0.5, min_support=4)
    return folder, evaluate(ANSWERS, thresholds, folder)


def test_missed_thresholds_are_named_with_what_was_found(missed: tuple[Path, list[str]]) -> None:
    _, reasons = missed

    # top-1 and top-5 are met exactly; key has too few photos to be asked for.
    assert sorted(reasons) == [
        "recall of class 'hat' is 0.2500, below 0.5000",
        "top-3 is 0.6000, below 0.9000",
    ]


def test_tfma_reads_its_own_results(missed: tuple[Path, list[str]]) -> None:
    result = tfma.load_eval_result(str(missed[0]))

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
    assert evaluate(ANSWERS, Thresholds(top_1=0.5), tmp_path, top_1_floor=0.6) == [
        "top-1 is 0.5333, below 0.6000"
    ]
