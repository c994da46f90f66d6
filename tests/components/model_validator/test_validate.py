"""The whole judgement on a model whose right and wrong answers are known beforehand."""

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from mlplatform.components.model_validator import validate as validate_module
from mlplatform.components.model_validator.baseline import Baseline
from mlplatform.components.model_validator.errors import ModelRejectedError, NothingToEvaluateError
from mlplatform.components.model_validator.serving_check import Finding, ServingCheck
from mlplatform.components.model_validator.settings import Budget, Thresholds
from mlplatform.components.model_validator.validate import Verdict, validate_model
from mlplatform.errors import GateError
from mlplatform.vision.signatures import export_image_classifier

LABELS = ["blue", "green", "red"]


@pytest.fixture(scope="module")
def models(colours: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`new` knows all colours; `old` takes red for green."""
    folder = tmp_path_factory.mktemp("models")
    for name, labels in (("new", LABELS), ("old", ["blue", "red", "green"])):
        network = colours.colour_network(16, LABELS)
        export_image_classifier(network, labels, 16, folder / name, samples=colours.examples(1))
    return folder


@pytest.fixture(scope="module")
def photos(colours: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 rightly labelled photos, and four red ones that are labelled blue."""
    wrong = [
        colours.example(colours.encode("red", 100 + n), "blue", f"wrongly-labelled-{n}") for n in range(4)
    ]
    file = tmp_path_factory.mktemp("photos") / "eval.gz"
    return str(colours.write(file, [*colours.examples(8), *wrong]))


@pytest.fixture
def quick_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The serving check has tests of its own; here it says yes."""
    check = ServingCheck([Finding("signatures", True)], {"model_size_mb": 1.0})
    monkeypatch.setattr(validate_module, "check_serving", lambda *_: check)


def judge(models: Path, name: str, photos: str, out: Path, **changes: object) -> Verdict:
    defaults = {"thresholds": Thresholds(top_1=0.5), "baseline": None, "reports_dir": out / "reports"}
    return validate_model(
        models / name,
        [photos],
        splits=["eval"],
        budget=Budget(),
        output_dir=out / "evaluation",
        title="colours",
        **{**defaults, **changes},  # type: ignore[arg-type]
    )


def test_a_good_model_is_accepted_with_all_figures(models: Path, photos: str, tmp_path: Path) -> None:
    verdict = judge(models, "new", photos, tmp_path)

    verdict.raise_if_rejected()
    facts = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert facts["accepted"] is True
    assert facts["quality"]["photos"] == 28
    assert facts["quality"]["top_1"]["value"] == pytest.approx(24 / 28)
    assert facts["quality"]["confused_pairs"][0] == {
        "truth": "blue",
        "answer": "red",
        "photos": 4,
        "share_of_truth": pytest.approx(4 / 12),
    }
    assert facts["serving"]["figures"]["p99_latency_ms"] > 0
    assert (tmp_path / "evaluation" / "eval_config.json").exists()


@pytest.mark.usefixtures("quick_check")
class TestVerdict:
    def test_a_better_model_is_compared_accepted_and_shown(
        self, models: Path, photos: str, tmp_path: Path
    ) -> None:
        baseline = Baseline(models / "old", "version 7 of colours")
        verdict = judge(models, "new", photos, tmp_path, baseline=baseline)

        assert verdict.reasons == ()
        facts = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
        assert facts["baseline"]["top_1"] == pytest.approx(8 / 28)
        assert facts["baseline"]["only_new_right"] == 16
        assert verdict.report is not None
        page = verdict.report.read_text()
        assert "accepted" in page
        assert "Compared with version 7 of colours." in page
        assert all(f"wrongly-labelled-{number}" in page for number in range(4))
        assert page.count("data:image/jpeg;base64,") == 8  # the mistakes, and again beside the confusion
        assert not re.search(r"(src|href)=\"(?!data:)", page)  # it needs nothing else

    def test_a_bad_model_is_rejected_for_every_reason_and_the_report_stays(
        self, models: Path, photos: str, tmp_path: Path
    ) -> None:
        verdict = judge(
            models,
            "old",
            photos,
            tmp_path,
            thresholds=Thresholds(top_1=0.9, per_class_recall=0.5, min_support=8),
            baseline=Baseline(models / "new", "version 7 of colours"),
        )

        with pytest.raises(ModelRejectedError) as caught:
            verdict.raise_if_rejected()
        assert isinstance(caught.value, GateError)
        text = str(caught.value)
        assert "top-1 is 0.2857, below 0.9000" in text
        assert "recall of class 'red' is 0.0000, below 0.5000" in text
        assert "falls behind the baseline's 0.8571 by 0.5714" in text
        assert "16 photos that it answered right are now wrong, 0 the other way" in text
        assert str(verdict.report) in text
        (folder,) = (tmp_path / "reports").glob("ModelValidator-*")
        assert json.loads((folder / "verdict.json").read_text())["accepted"] is False
        assert "rejected" in (folder / "report.html").read_text()

    def test_no_report_is_named_that_tfx_removes(self, models: Path, photos: str, tmp_path: Path) -> None:
        verdict = judge(models, "old", photos, tmp_path, reports_dir=None)

        with pytest.raises(ModelRejectedError, match="Give ModelValidator a reports_dir") as caught:
            verdict.raise_if_rejected()
        assert "evaluation" not in str(caught.value)
        assert (tmp_path / "evaluation" / "report.html").exists()

    def test_what_is_odd_is_noted(self, models: Path, colours: ModuleType, tmp_path: Path) -> None:
        records = [
            colours.example(colours.encode("green", kind="WEBP"), "green", "w"),
            *colours.examples(1),
            colours.example(colours.encode("red"), "purple", "p"),
        ]
        file = colours.write(tmp_path / "eval.gz", records)

        verdict = judge(models, "new", file, tmp_path, baseline=Baseline(tmp_path / "gone", "version 7"))

        # A broken baseline keeps no good model out; an unknown class counts as wrong; WebP is evaluated.
        assert verdict.reasons == ()
        facts = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
        assert facts["quality"]["top_1"]["value"] == 0.8
        assert facts["quality"]["unknown_labels"] == {"purple": 1}
        assert "The baseline version 7 cannot be asked" in facts["notes"][0]
        assert "purple (1)" in facts["notes"][1]

    @pytest.mark.parametrize(
        ("thresholds", "unjudged"),
        [
            (Thresholds(per_class_recall=0.5, min_support=9), 2),
            (Thresholds(per_class_recall=0.5, min_support=20), 3),
            (Thresholds(per_class_recall=0.5, min_support=8), 0),
            (Thresholds(min_support=20), 0),
        ],
    )
    def test_classes_with_too_few_photos_for_their_threshold_are_noted(
        self, models: Path, photos: str, tmp_path: Path, thresholds: Thresholds, unjudged: int
    ) -> None:
        verdict = judge(models, "new", photos, tmp_path, thresholds=thresholds)

        assert verdict.reasons == ()
        assert verdict.report is not None
        notes = json.loads((verdict.report.parent / "verdict.json").read_text())["notes"]
        told = (
            f"{unjudged} of 3 classes have fewer than {thresholds.min_support} photos and are not judged by "
            "per_class_recall."
        )
        assert notes == ([told] if unjudged else [])
        assert (told in verdict.report.read_text()) == bool(unjudged)


def test_a_model_that_cannot_be_loaded_is_rejected(models: Path, photos: str, tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"this is no model")

    verdict = judge(tmp_path, "damaged", photos, tmp_path)

    assert any("its quality could not be measured" in reason for reason in verdict.reasons)
    assert any("while it was to load the model" in reason for reason in verdict.reasons)
    assert verdict.report is not None
    assert verdict.report.exists()


def test_nothing_to_evaluate_is_an_error(models: Path, colours: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(NothingToEvaluateError, match="the splits eval hold no records"):
        judge(models, "new", colours.write(tmp_path / "empty.gz", []), tmp_path)
