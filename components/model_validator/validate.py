"""Judge a model: safe to serve, then good enough, absolutely and beside the model that is pushed now."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from mlplatform.components.model_validator.baseline import Baseline
from mlplatform.components.model_validator.errors import (
    BaselineError,
    ModelNotLoadableError,
    NothingToEvaluateError,
)
from mlplatform.components.model_validator.quality import Quality, measure, missed
from mlplatform.components.model_validator.report import write_report
from mlplatform.components.model_validator.scoring import (
    Answers,
    brief,
    check_examples,
    load_classifier,
    score_photos,
)
from mlplatform.components.model_validator.serving_check import ServingCheck, check_serving
from mlplatform.components.model_validator.settings import Budget, Thresholds
from mlplatform.components.model_validator.tfma_evaluation import evaluate
from mlplatform.components.model_validator.verdict import REPORT_FILE, VERDICT_FILE, Verdict
from mlplatform.progress import track
from mlplatform.reports.kept import keep_report
from mlplatform.serving.mixed_precision import MIXED_PRECISION_FILE
from mlplatform.serving.tflite_model import TFLITE_FOLDER
from mlplatform.storage.urls import join
from mlplatform.vision.decoding import READS_WEBP
from mlplatform.vision.examples import sample_records

METRICS_FILE = "metrics.json"
SAMPLE_PHOTOS, FORM_PHOTOS = 8, 64
_SLACK = 1e-9  # of differences between floats: a drop of exactly what is allowed is no drop


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a model is judged by.

    Attributes:
        splits: Names of the evaluation splits.
        thresholds: What the model must reach.
        budget: What it may cost.
        baseline: The model to compare with, if there is one.
        title: The model's name in the report.
        run_dir: What its training left (`history.json`), for the report; None where it is not known.
        run: Id of the run that judges, for the list of reports; empty where it is not known.
    """

    splits: Sequence[str]
    thresholds: Thresholds
    budget: Budget
    baseline: Baseline | None = None
    title: str = "model"
    run_dir: Path | None = None
    run: str = ""


def validate_model(
    model_dir: Path,
    files: Sequence[str],
    terms: Terms,
    *,
    output_dir: Path,
    reports_dir: str | None = None,
) -> Verdict:
    """Judge the model and write what was found.

    Args:
        model_dir: SavedModel of an image classifier.
        files: TFRecord files of the evaluation splits.
        terms: What it is judged by.
        output_dir: For TFMA's results, `metrics.json` and `report.html`.
        reports_dir: For a copy of verdict and page that stays when the model is rejected.

    Raises:
        NothingToEvaluateError: The files hold no Examples.
        UnsupportedExamplesError: They hold no photos, or no labels.
        BaselineError: The baseline cannot be scored; a pushed one that does not load is only noted.
    """
    check_examples(files)
    forms = [*(model_dir / TFLITE_FOLDER).glob("*.tflite"), *model_dir.glob(str(MIXED_PRECISION_FILE))]
    samples = sample_records(files, FORM_PHOTOS if forms else SAMPLE_PHOTOS)
    if not samples:
        raise NothingToEvaluateError(terms.splits)
    serving = check_serving(model_dir, samples, terms.budget)
    return judge(model_dir, files, serving, terms, output_dir=output_dir, reports_dir=reports_dir)


def judge(
    model_dir: Path,
    files: Sequence[str],
    serving: ServingCheck,
    terms: Terms,
    *,
    output_dir: Path,
    reports_dir: str | None = None,
) -> Verdict:
    """Judge a model whose serving check is done; arguments and errors as for `validate_model`."""
    output_dir.mkdir(parents=True, exist_ok=True)
    found = _quality(model_dir, files, terms, output_dir) if serving.is_loadable else _Found()
    made_at = datetime.now(timezone.utc)
    reasons = [*found.reasons, *serving.reasons]
    facts = {
        "title": terms.title,
        "accepted": not reasons,
        "quality_reasons": found.reasons,
        "serving_reasons": serving.reasons,
        "reasons": reasons,
        "made_at": made_at.isoformat(timespec="seconds"),
        "model": str(model_dir),
        "splits": list(terms.splits),
        "thresholds": terms.thresholds.model_dump(),
        "budget": terms.budget.model_dump(),
        "quality": found.quality.as_json() if found.quality else None,
        "baseline": found.compared.as_json() if found.compared else None,
        "serving": _serving_json(serving),
        "notes": found.notes,
    }
    with track("write the report", total=1, unit="reports") as bar:
        page = write_report(
            output_dir / REPORT_FILE,
            title=terms.title,
            made_at=f"{made_at:%Y-%m-%d %H:%M} UTC",
            reasons=reasons,
            notes=found.notes,
            answers=found.answers,
            quality=found.quality,
            thresholds=terms.thresholds,
            budget=terms.budget,
            baseline=found.compared.quality if found.compared else None,
            baseline_text=found.compared.text if found.compared else "",
            serving=serving,
            files=files,
            run_dir=terms.run_dir,
        )
        bar.advance()
    (output_dir / METRICS_FILE).write_text(json.dumps(facts, indent=2), "utf-8")
    return Verdict.of(facts, _keep(page, facts, reports_dir, terms.run) if reports_dir else None)


@dataclass(frozen=True)
class _Found:
    """What was found of a model's quality; nothing where it cannot be loaded."""

    answers: Answers | None = None
    quality: Quality | None = None
    compared: "_Comparison | None" = None
    reasons: Sequence[str] = ("its quality could not be measured, as it cannot be loaded or asked",)
    notes: Sequence[str] = ()


def _quality(model_dir: Path, files: Sequence[str], terms: Terms, output_dir: Path) -> _Found:
    answers = score_photos(load_classifier(model_dir), files, "evaluate the model")
    quality = measure(answers)
    compared = _compare(answers, terms.baseline, files, terms.thresholds)
    with track("evaluate with TensorFlow Model Analysis", total=1, unit="evaluations") as bar:
        evaluate(answers, terms.thresholds, output_dir, top_1_floor=compared.top_1_floor)
        bar.advance()
    reasons = missed(quality, terms.thresholds)
    if quality.top_1.value < compared.top_1_floor - _SLACK:
        reasons.append(compared.drop(quality, terms.thresholds))
    return _Found(answers, quality, compared, reasons, _notes(answers, quality, compared, terms.thresholds))


def _keep(page: Path, facts: dict[str, Any], reports_dir: str, run: str) -> str:
    """Copy page and verdict to where they stay."""

    def write(folder: Path) -> None:
        (folder / VERDICT_FILE).write_text(json.dumps(facts, indent=2), "utf-8")
        (folder / REPORT_FILE).write_bytes(page.read_bytes())

    return join(keep_report(reports_dir, "ModelValidator", write, run=run), REPORT_FILE)


@dataclass(frozen=True)
class _Comparison:
    """The baseline's figures on the same photos.

    Attributes:
        text: What was compared, in words.
        quality: The baseline's figures; None where there is no baseline, or it does not load.
        top_1_floor: Lowest top-1 that is not a drop.
        only_new_right: Photos that only the new model answers right.
        only_old_right: Photos that only the baseline answers right.
        note: Why nothing was compared though there is a baseline; empty where it was.
    """

    text: str
    quality: Quality | None = None
    top_1_floor: float = 0.0
    only_new_right: int = 0
    only_old_right: int = 0
    note: str = ""

    def drop(self, quality: Quality, thresholds: Thresholds) -> str:
        """Return how far the model falls behind the baseline, as a sentence."""
        old = self.quality.top_1.value if self.quality else 0.0
        return (
            f"top-1 falls behind the baseline's {old:.4f} by {old - quality.top_1.value:.4f}, more than "
            f"{thresholds.max_top_1_drop:g} ({self.only_old_right} photos that it answered right are now "
            f"wrong, {self.only_new_right} the other way round)"
        )

    def as_json(self) -> dict[str, Any]:
        figures = self.quality
        return {
            "text": self.text,
            "problem": self.note or None,
            "top_1": figures.top_1.value if figures else None,
            "top_3": figures.top_3.value if figures else None,
            "top_5": figures.top_5.value if figures else None,
            "only_new_right": self.only_new_right,
            "only_old_right": self.only_old_right,
        }


def _compare(
    answers: Answers, baseline: Baseline | None, files: Sequence[str], thresholds: Thresholds
) -> _Comparison:
    """Score the baseline on the same photos.

    Raises:
        BaselineError: It cannot be scored. Only a pushed model that does not load is noted instead: servers
            cannot answer with it either, and it would keep every new model out.
    """
    if baseline is None:
        return _Comparison("There is no pushed model to compare with.")
    try:
        old = score_photos(load_classifier(baseline.folder), files, "evaluate the baseline model")
        quality = measure(old)
    except ModelNotLoadableError as error:
        if not baseline.is_pushed or not baseline.folder.is_dir():
            raise BaselineError(baseline.name, error.cause) from error
        note = f"Nothing is compared: the baseline, {baseline.name}, does not load ({error.cause})"
        logging.getLogger(__name__).warning("%s", note)
        return _Comparison(f"Not compared: {baseline.name}, does not load.", note=note)
    except Exception as error:
        # Whatever it is (exhausted memory, unreadable files, another kind of model, our own fault): going on
        # without the comparison would turn the gate off.
        raise BaselineError(baseline.name, brief(error)) from error
    return _Comparison(
        text=f"Compared with {baseline.name}.",
        quality=quality,
        top_1_floor=max(quality.top_1.value - thresholds.max_top_1_drop, 0.0),
        only_new_right=int(np.sum(answers.is_right & ~old.is_right)),
        only_old_right=int(np.sum(old.is_right & ~answers.is_right)),
    )


def _notes(answers: Answers, quality: Quality, compared: _Comparison, thresholds: Thresholds) -> list[str]:
    notes = [compared.note] if compared.note else []
    if quality.unknown_labels:
        names = ", ".join(f"{label} ({n})" for label, n in sorted(quality.unknown_labels.items())[:5])
        notes.append(
            f"{len(quality.unknown_labels)} classes are unknown to the model; counted as wrong: {names}"
        )
    if answers.webp_photos and not READS_WEBP:
        notes.append(
            f"{answers.webp_photos} photos are WebP and were converted to PNG for this evaluation: a server "
            "of this TensorFlow version refuses WebP."
        )
    supports = [figures.support for figures in quality.classes if figures.support]
    unjudged = sum(support < thresholds.min_support for support in supports)
    if thresholds.per_class_recall and unjudged:
        notes.append(
            f"{unjudged} of {len(supports)} classes have fewer than {thresholds.min_support} photos and are "
            "not judged by per_class_recall."
        )
    return notes


def _serving_json(serving: ServingCheck) -> dict[str, Any]:
    return {
        "figures": serving.figures,
        "checks": [{"name": f.name, "passed": f.passed, "detail": f.detail} for f in serving.findings],
    }
