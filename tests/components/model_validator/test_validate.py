"""The whole judgement on a model whose right and wrong answers are known beforehand."""

import errno
import html
import json
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import pytest
import tensorflow as tf

from mlplatform.components.model_validator.baseline import BaselineModel
from mlplatform.components.model_validator.errors import (
    BaselineError,
    ModelRejectedError,
    NothingToEvaluateError,
    UnsupportedExamplesError,
)
from mlplatform.components.model_validator.serving_check import ServingCheck
from mlplatform.components.model_validator.settings import Question
from mlplatform.components.model_validator.validate import Terms, judge, validate_model
from mlplatform.components.model_validator.verdict import ModelVerdict, load_verdict
from mlplatform.errors import GateError
from mlplatform.serving.warmup import WARMUP_FILE


def terms(thresholds: dict[str, float] | None = None, **changes: Any) -> Terms:
    question = Question.of(thresholds={"top_1": 0.5} if thresholds is None else thresholds)
    return Terms(**{"splits": ["eval"], "question": question, "title": "colours", **changes})


def validate(models: Path, name: str, photos: str, out: Path, **changes: Any) -> ModelVerdict:
    """The whole gate."""
    return validate_model(
        models / name,
        [photos],
        terms(**changes),
        output_dir=out / "evaluation",
        reports_dir=str(out / "reports"),
    )


def judged(
    models: Path, name: str, photos: str, out: Path, safe: ServingCheck, *, keeps: bool = True, **changes: Any
) -> ModelVerdict:
    """The gate with a serving check that is done already, of a model that answers with the same scores."""
    return judge(
        models / name,
        [photos],
        safe,
        terms(**changes),
        output_dir=out / "evaluation",
        reports_dir=str(out / "reports") if keeps else None,
    )


class TestWholeGate:
    """Both halves together, on real models: what one of them finds rejects the model, whatever the other."""

    def test_a_good_model_is_accepted_with_all_figures(
        self, models: Path, photos: str, tmp_path: Path
    ) -> None:
        verdict = validate(models, "new", photos, tmp_path)

        verdict.raise_if_rejected()
        facts = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
        assert facts["accepted"] is True
        assert facts["quality"]["records"] == 28
        assert facts["quality"]["top_1"]["value"] == pytest.approx(24 / 28)
        assert facts["quality"]["confused_pairs"][0] == {
            "truth": "blue",
            "answer": "red",
            "records": 4,
            "share_of_truth": pytest.approx(4 / 12),
        }
        assert facts["serving"]["figures"]["p99_latency_ms"] > 0
        assert (tmp_path / "evaluation" / "eval_config.json").exists()

    def test_a_model_that_is_safe_and_not_good_is_rejected_by_its_quality_alone(
        self, models: Path, photos: str, tmp_path: Path
    ) -> None:
        verdict = validate(models, "old", photos, tmp_path)

        assert verdict.quality_reasons == (
            "top-1 is 0.2857, below 0.5000, no better than always answering 'blue' (0.4286)",
        )
        assert verdict.serving_reasons == ()
        with pytest.raises(ModelRejectedError, match=r"top-1 is 0\.2857"):
            verdict.raise_if_rejected()

    def test_a_model_that_is_good_and_not_safe_is_rejected_by_its_serving_alone(
        self, models: Path, photos: str, tmp_path: Path
    ) -> None:
        changed = shutil.copytree(models / "new", tmp_path / "changed")  # not what training wrote any more
        (changed / WARMUP_FILE).write_bytes((models / "old" / WARMUP_FILE).read_bytes())

        verdict = validate(tmp_path, "changed", photos, tmp_path)

        assert verdict.quality_reasons == ()
        assert {reason.split(":")[0] for reason in verdict.serving_reasons} == {"same answers"}
        assert "now and in training" in verdict.serving_reasons[0]
        facts = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
        assert facts["accepted"] is False
        assert facts["quality"]["top_1"]["value"] == pytest.approx(24 / 28)

    def test_a_model_that_cannot_be_loaded_is_rejected(
        self, models: Path, photos: str, tmp_path: Path
    ) -> None:
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"not a SavedModel")

        verdict = validate(tmp_path, "damaged", photos, tmp_path)

        assert any("its quality could not be measured" in reason for reason in verdict.reasons)
        assert any("at the step: load the model" in reason for reason in verdict.reasons)
        assert verdict.report is not None
        assert Path(verdict.report).exists()


@pytest.fixture
def without_tfma(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out TFMA's evaluation, seconds of Beam whose results nothing in a verdict comes from."""
    monkeypatch.setattr("mlplatform.components.model_validator.validate.evaluate", lambda *_, **__: None)


@pytest.mark.usefixtures("without_tfma")
class TestVerdict:
    def test_a_better_model_is_compared_accepted_and_shown(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck
    ) -> None:
        baseline = BaselineModel(models / "old", "version 7 of colours")
        verdict = judged(models, "new", photos, tmp_path, safe, baseline=baseline)

        assert verdict.reasons == ()
        facts = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
        assert facts["baseline"]["top_1"] == pytest.approx(8 / 28)
        assert facts["baseline"]["only_new_right"] == 16
        assert verdict.report is not None
        page = Path(verdict.report).read_text()
        assert "accepted" in page
        assert "Compared with version 7 of colours." in page
        assert all(f"wrongly-labelled-{number}" in page for number in range(4))
        assert page.count("data:image/jpeg;base64,") == 8  # the mistakes, and again beside the confusion
        assert not re.search(r"(src|href)=\"(?!data:)", page)  # it needs nothing else

    def test_a_bad_model_is_rejected_for_every_reason_and_the_report_stays(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck
    ) -> None:
        verdict = judged(
            models,
            "old",
            photos,
            tmp_path,
            safe,
            thresholds={"top_1": 0.9, "per_class_recall": 0.5, "min_support": 8},
            baseline=BaselineModel(models / "new", "version 7 of colours"),
        )

        with pytest.raises(ModelRejectedError) as caught:
            verdict.raise_if_rejected()
        assert isinstance(caught.value, GateError)
        text = str(caught.value)
        assert "top-1 is 0.2857, below 0.9000" in text
        assert "recall of class 'red' is 0.0000, below 0.5000" in text
        assert load_verdict(Path(caught.value.report).parent).reasons == verdict.reasons
        assert "falls behind the baseline's 0.8571 by 0.5714" in text
        assert "16 records that it answered right are now wrong, 0 the other way" in text
        assert str(verdict.report) in text
        (folder,) = (tmp_path / "reports").glob("*/ModelValidator")
        assert json.loads((folder / "verdict.json").read_text())["accepted"] is False
        assert "rejected" in (folder / "report.html").read_text()

    def test_no_report_is_named_that_tfx_removes(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck
    ) -> None:
        verdict = judged(models, "old", photos, tmp_path, safe, keeps=False)

        with pytest.raises(ModelRejectedError, match="Give ModelValidator a reports_dir") as caught:
            verdict.raise_if_rejected()
        assert "evaluation" not in str(caught.value)
        assert (tmp_path / "evaluation" / "report.html").exists()

    def test_what_is_odd_is_noted(
        self, models: Path, colours: ModuleType, tmp_path: Path, safe: ServingCheck
    ) -> None:
        records = [
            colours.example(colours.encode("green", kind="WEBP"), "green", "w"),
            *colours.examples(1),
            colours.example(colours.encode("red"), "purple", "p"),
        ]
        file = colours.write(tmp_path / "eval.gz", records)

        verdict = judged(models, "new", file, tmp_path, safe)

        # An unknown class counts as wrong; WebP is evaluated.
        assert verdict.reasons == ()
        facts = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
        assert facts["quality"]["top_1"]["value"] == 0.8
        assert facts["quality"]["unknown_labels"] == {"purple": 1}
        assert "purple (1)" in facts["notes"][0]

    @pytest.mark.parametrize(
        ("thresholds", "unjudged"),
        [
            ({"per_class_recall": 0.5, "min_support": 9}, 2),
            ({"per_class_recall": 0.5, "min_support": 20}, 3),
            ({"per_class_recall": 0.5, "min_support": 8}, 0),
            ({"min_support": 20}, 0),
        ],
    )
    def test_classes_with_too_few_photos_for_their_threshold_are_noted(
        self,
        models: Path,
        photos: str,
        tmp_path: Path,
        safe: ServingCheck,
        thresholds: dict[str, float],
        unjudged: int,
    ) -> None:
        verdict = judged(models, "new", photos, tmp_path, safe, thresholds=thresholds)

        assert verdict.reasons == ()
        assert verdict.report is not None
        notes = json.loads((Path(verdict.report).parent / "verdict.json").read_text())["notes"]
        note = (
            f"{unjudged} of 3 classes have fewer than {thresholds['min_support']} records and are not judged "
            "by per_class_recall."
        )
        assert notes == ([note] if unjudged else [])
        assert (note in Path(verdict.report).read_text()) == bool(unjudged)

    def test_a_drop_of_exactly_what_is_allowed_is_no_drop(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck
    ) -> None:
        baseline, drop = BaselineModel(models / "new", "version 7"), 24 / 28 - 8 / 28
        for allowed, reasons in ((drop, 0), (drop - 0.01, 1)):
            limits = {"max_top_1_drop": allowed}
            verdict = judged(models, "old", photos, tmp_path, safe, thresholds=limits, baseline=baseline)
            assert len(verdict.reasons) == reasons

    def test_a_notebook_shows_the_verdict_and_what_was_kept_of_it(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck
    ) -> None:
        baseline = BaselineModel(models / "new", "version <7>")
        verdict = judged(
            models,
            "old",
            photos,
            tmp_path,
            safe,
            title="colours & more",
            thresholds={"top_1": 0.9},
            baseline=baseline,
        )
        shown = verdict._repr_html_()
        for part in ("rejected", "colours &amp; more", "0.2857", "pushed model 0.8571", "below 0.9000"):
            assert part in shown
        assert str(verdict.report) in shown
        assert verdict.report is not None
        kept = load_verdict(Path(verdict.report).parent)
        assert (kept, kept._repr_html_()) == (verdict, shown)
        accepted = judged(models, "new", photos, tmp_path, safe)
        assert "accepted" in accepted._repr_html_()


@pytest.mark.usefixtures("without_tfma")
class TestBaseline:
    """A baseline that cannot be scored fails the run, but for a pushed model that does not load."""

    def test_a_pushed_model_that_does_not_load_is_noted(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck
    ) -> None:
        damaged = shutil.copytree(models / "old", tmp_path / "7")
        (damaged / "saved_model.pb").write_bytes(b"not a SavedModel")

        verdict = judged(models, "new", photos, tmp_path, safe, baseline=BaselineModel(damaged, "version 7"))

        assert verdict.reasons == ()
        (note,) = verdict.notes
        assert note.startswith("Nothing is compared: the baseline, version 7, does not load")
        assert verdict.report is not None
        facts = json.loads((Path(verdict.report).parent / "verdict.json").read_text())
        assert facts["baseline"]["problem"] == note
        page = html.unescape(Path(verdict.report).read_text())
        assert "Not compared: version 7, does not load." in page
        assert note in page

    @pytest.mark.parametrize("missing", ["variables", "saved_model.pb"])
    def test_so_is_one_with_missing_files(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck, missing: str
    ) -> None:
        damaged = shutil.copytree(models / "old", tmp_path / "7")
        for file in [damaged / missing, *(damaged / missing).glob("*")]:
            if file.is_file():
                file.unlink()
        verdict = judged(models, "new", photos, tmp_path, safe, baseline=BaselineModel(damaged, "version 7"))
        assert "does not load" in verdict.notes[0]

    def test_a_given_baseline_that_does_not_load_fails_the_run(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck
    ) -> None:
        damaged = shutil.copytree(models / "old", tmp_path / "given")
        (damaged / "saved_model.pb").write_bytes(b"not a SavedModel")
        baseline = BaselineModel(damaged, "the given baseline model", is_pushed=False)
        with pytest.raises(
            BaselineError, match=r"the given baseline model, cannot be scored: (ValueError|OSError)"
        ):
            judged(models, "new", photos, tmp_path, safe, baseline=baseline)
        assert not (tmp_path / "reports").exists()

    def test_a_baseline_that_is_gone_fails_the_run(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck
    ) -> None:
        with pytest.raises(BaselineError, match="version 7, cannot be scored: OSError: SavedModel file does"):
            judged(
                models, "new", photos, tmp_path, safe, baseline=BaselineModel(tmp_path / "gone", "version 7")
            )

    def test_a_pushed_model_of_another_kind_fails_the_run(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck
    ) -> None:
        tabular = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        tabular.export(tmp_path / "7", verbose=False)
        with pytest.raises(BaselineError, match="cannot be scored: its signature 'serving_default' takes"):
            judged(models, "new", photos, tmp_path, safe, baseline=BaselineModel(tmp_path / "7", "version 7"))

    def test_a_pushed_model_whose_class_names_are_gone_fails_the_run(
        self, models: Path, photos: str, tmp_path: Path, safe: ServingCheck
    ) -> None:
        hurt = shutil.copytree(models / "old", tmp_path / "7")
        (hurt / "assets" / "labels.txt").write_text("blue\n")
        with pytest.raises(BaselineError, match="version 7, cannot be scored: "):
            judged(models, "new", photos, tmp_path, safe, baseline=BaselineModel(hurt, "version 7"))

    @pytest.mark.parametrize(
        "problem",
        [
            OSError(errno.EIO, "Input/output error"),
            PermissionError(errno.EACCES, "Permission denied"),
            MemoryError("exhausted"),
            tf.errors.ResourceExhaustedError(None, None, "out of memory"),
            tf.errors.PermissionDeniedError(None, None, "denied"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_what_says_nothing_of_the_model_is_not_a_model_that_does_not_load(
        self,
        models: Path,
        photos: str,
        tmp_path: Path,
        safe: ServingCheck,
        monkeypatch: pytest.MonkeyPatch,
        problem: Exception,
    ) -> None:
        load = tf.saved_model.load

        def failing(folder: str) -> Any:  # the machine's part, which no test can break for real
            if folder.endswith("old"):
                raise problem
            return load(folder)

        monkeypatch.setattr(tf.saved_model, "load", failing)
        with pytest.raises(BaselineError, match=f"cannot be scored: {type(problem).__name__}") as caught:
            judged(models, "new", photos, tmp_path, safe, baseline=BaselineModel(models / "old", "version 7"))
        assert caught.value.__cause__ is problem


class TestExamples:
    """Records without a truth are refused, those without what the model needs reject the model."""

    def test_photos_without_the_label_are_refused(
        self, colours: ModuleType, models: Path, tmp_path: Path
    ) -> None:
        example = tf.train.Example.FromString(colours.examples(1)[0])
        del example.features.feature["label"]
        file = colours.write(tmp_path / "eval.gz", [example.SerializeToString()])
        with pytest.raises(UnsupportedExamplesError) as caught:
            validate(models, "new", file, tmp_path)
        assert "from its feature 'label', and found an Example (record 1) without it" in str(caught.value)
        assert "it has 'image/encoded' (bytes), 'item_id' (bytes)" in str(caught.value)
        assert not (tmp_path / "evaluation").exists()

    def test_a_model_that_needs_more_than_the_records_have_is_rejected(
        self, colours: ModuleType, models: Path, tmp_path: Path
    ) -> None:
        row = tf.train.Example()
        row.features.feature["fare"].float_list.value.append(12.5)
        row.features.feature["label"].bytes_list.value.append(b"red")
        file = colours.write(tmp_path / "eval.gz", [row.SerializeToString()])
        verdict = validate(models, "new", file, tmp_path)
        assert any("serving_default does not answer real records" in reason for reason in verdict.reasons)
        assert any("image/encoded" in reason for reason in verdict.reasons)

    def test_one_record_without_a_label_is_named(
        self, colours: ModuleType, models: Path, tmp_path: Path, safe: ServingCheck
    ) -> None:
        example = tf.train.Example.FromString(colours.examples(1)[0])
        del example.features.feature["label"]
        file = colours.write(tmp_path / "eval.gz", [*colours.examples(2), example.SerializeToString()])
        with pytest.raises(UnsupportedExamplesError, match=r"an Example \(record 7\) without it"):
            judged(models, "new", file, tmp_path, safe)


def test_nothing_to_evaluate_is_an_error(models: Path, colours: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(NothingToEvaluateError, match="the splits eval hold no records"):
        validate(models, "new", colours.write(tmp_path / "empty.gz", []), tmp_path)
