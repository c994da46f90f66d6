"""The page of a model stays small, however many classes and slices there are."""

from pathlib import Path

import numpy as np

from mlplatform.evaluation.classification import Classification
from mlplatform.reports.model_page import (
    CheckResult,
    Cost,
    Mistake,
    ModelPage,
    QualityFigure,
    write_model_page,
)
from mlplatform.reports.page import picture

CLASSES = 1200


def test_1200_classes_fit_on_a_page(tmp_path: Path) -> None:
    labels = [f"category {number} with a name of its own" for number in range(CLASSES)]
    random, tally = np.random.default_rng(0), Classification().tally(labels)
    truths = random.integers(0, CLASSES, 4000)
    scores = random.random((4000, CLASSES)).astype(np.float32)
    scores[np.arange(4000), truths] += 0.5
    tally.add({"logits": scores}, [[labels[place].encode()] for place in truths])
    mistake = Mistake(picture(b"x" * 12_000), "item", labels[0], labels[1], 0.9)

    page = write_model_page(
        tmp_path / "report.html",
        ModelPage(
            title="items",
            made_at="today",
            is_accepted=False,
            reasons=["top-1 is 0.5000, below 0.9000"],
            records=4000,
            figures=[
                QualityFigure("first answer right", 0.5, 0.4, 0.6, 0.9, 0.45),
                QualityFigure("log loss", 2.0, is_share=False),
            ],
            baseline="Compared with version 7.",
            sections=tally.sections(),
            pairs={(labels[0], labels[1]): [mistake] * 6},
            mistakes=[mistake] * 24,
            checks=[CheckResult("signatures", True)],
            costs=[Cost("to load", "1 s")],
        ),
    )

    text = page.read_text("utf-8")
    assert len(text) < 5_000_000
    assert "better classes are in metrics.json" in text
    assert "Where the worst classes go" in text
    assert "must reach 90.0 %" in text
    assert "+5.0 points" in text
