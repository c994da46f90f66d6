"""Judge a model: safe to serve, then good enough, absolutely and beside the model that is pushed now."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from mlplatform.components.model_validator.baseline import Baseline
from mlplatform.components.model_validator.errors import ModelRejectedError, NothingToEvaluateError
from mlplatform.components.model_validator.quality import Quality, measure
from mlplatform.components.model_validator.report import write_report
from mlplatform.components.model_validator.scoring import Answers, score_photos
from mlplatform.components.model_validator.serving_check import ServingCheck, check_serving
from mlplatform.components.model_validator.settings import Budget, Thresholds
from mlplatform.components.model_validator.tfma_evaluation import evaluate
from mlplatform.progress import track
from mlplatform.reports.kept import keep_report
from mlplatform.serving.mixed_precision import MIXED_PRECISION_FILE
from mlplatform.vision.decoding import READS_WEBP
from mlplatform.vision.examples import sample_records
from mlplatform.vision.exported import TFLITE_FOLDER

METRICS_FILE, REPORT_FILE, VERDICT_FILE = "metrics.json", "report.html", "verdict.json"
SAMPLE_PHOTOS, FORM_PHOTOS = 8, 64


@dataclass(frozen=True)
class Verdict:
    """What was decided.

    Attributes:
        quality_reasons: Why the model is not good enough; empty where it is.
        serving_reasons: Why it is not safe to serve; empty where it is.
        report: The HTML page that stays whatever is decided; None where there is no folder for it.
    """

    quality_reasons: tuple[str, ...]
    serving_reasons: tuple[str, ...]
    report: Path | None

    @property
    def reasons(self) -> tuple[str, ...]:
        """All reasons to reject the model."""
        return self.quality_reasons + self.serving_reasons

    def raise_if_rejected(self) -> None:
        """Raise `ModelRejectedError` where there is a reason."""
        if self.reasons:
            raise ModelRejectedError(self.reasons, str(self.report or ""))


def validate_model(
    model_dir: Path,
    files: Sequence[str],
    *,
    splits: Sequence[str],
    thresholds: Thresholds,
    budget: Budget,
    baseline: Baseline | None,
    output_dir: Path,
    reports_dir: Path | None = None,
    title: str = "model",
) -> Verdict:
    """Judge the model and write what was found.

    Args:
        model_dir: SavedModel of an image classifier.
        files: TFRecord files of the evaluation splits.
        splits: Their names.
        thresholds: What the model must reach.
        budget: What it may cost.
        baseline: The model to compare with, if there is one.
        output_dir: For TFMA's results, `metrics.json` and `report.html`.
        reports_dir: For a copy of verdict and page that stays when the model is rejected.
        title: The model's name in the report.

    Raises:
        NothingToEvaluateError: The files hold no Examples.
    """
    forms = [*(model_dir / TFLITE_FOLDER).glob("*.tflite"), *model_dir.glob(str(MIXED_PRECISION_FILE))]
    samples = sample_records(files, FORM_PHOTOS if forms else SAMPLE_PHOTOS)
    if not samples:
        raise NothingToEvaluateError(splits)
    output_dir.mkdir(parents=True, exist_ok=True)
    serving = check_serving(model_dir, samples, budget)
    is_loadable = any(finding.name == "signatures" and finding.passed for finding in serving.findings)
    answers = quality = compared = None
    quality_reasons: list[str] = []
    notes: list[str] = []
    if is_loadable:
        answers = score_photos(model_dir, files, "evaluate the model")
        quality = measure(answers)
        compared = _compare(answers, baseline, files, thresholds)
        with track("evaluate with TensorFlow Model Analysis", total=1, unit="evaluations") as bar:
            quality_reasons = evaluate(answers, thresholds, output_dir, top_1_floor=compared.top_1_floor)
            bar.advance()
        if quality.top_1.value < compared.top_1_floor:
            quality_reasons.append(compared.drop(quality, thresholds))
        notes = _notes(answers, quality, compared, thresholds)
    else:
        quality_reasons = ["its quality could not be measured, as it cannot be loaded or asked"]

    made_at = datetime.now(timezone.utc)
    reasons = [*quality_reasons, *serving.reasons]
    facts = {
        "accepted": not reasons,
        "reasons": reasons,
        "made_at": made_at.isoformat(timespec="seconds"),
        "model": str(model_dir),
        "splits": list(splits),
        "thresholds": thresholds.model_dump(),
        "budget": budget.model_dump(),
        "quality": quality.as_json() if quality else None,
        "baseline": compared.as_json() if compared else None,
        "serving": _serving_json(serving),
        "notes": notes,
    }
    with track("write the report", total=1, unit="reports") as bar:
        page = write_report(
            output_dir / REPORT_FILE,
            title=title,
            made_at=f"{made_at:%Y-%m-%d %H:%M} UTC",
            reasons=reasons,
            notes=notes,
            answers=answers,
            quality=quality,
            baseline=compared.quality if compared else None,
            baseline_text=compared.text if compared else "",
            serving=serving,
            files=files,
        )
        bar.advance()
    (output_dir / METRICS_FILE).write_text(json.dumps(facts, indent=2), "utf-8")
    kept = _keep(page, facts, reports_dir) if reports_dir else None
    return Verdict(tuple(quality_reasons), tuple(serving.reasons), kept)


def _keep(page: Path, facts: dict[str, Any], reports_dir: Path) -> Path:
    """Copy page and verdict to where they stay."""

    def write(folder: Path) -> None:
        (folder / VERDICT_FILE).write_text(json.dumps(facts, indent=2), "utf-8")
        (folder / REPORT_FILE).write_bytes(page.read_bytes())

    return keep_report(reports_dir, "ModelValidator", write) / REPORT_FILE


@dataclass(frozen=True)
class _Comparison:
    """The baseline's figures on the same photos.

    Attributes:
        text: What was compared, in words.
        quality: The baseline's figures; None where there is no baseline, or it cannot be asked.
        top_1_floor: Lowest top-1 that is not a drop.
        only_new_right: Photos that only the new model answers right.
        only_old_right: Photos that only the baseline answers right.
        note: Why the baseline could not be asked; empty where it could.
    """

    text: str
    quality: Quality | None = None
    top_1_floor: float = 0.0
    only_new_right: int = 0
    only_old_right: int = 0
    note: str = ""

    def drop(self, quality: Quality, thresholds: Thresholds) -> str:
        """Say how far the model falls behind the baseline."""
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
            "top_1": figures.top_1.value if figures else None,
            "top_3": figures.top_3.value if figures else None,
            "top_5": figures.top_5.value if figures else None,
            "only_new_right": self.only_new_right,
            "only_old_right": self.only_old_right,
        }


def _compare(
    answers: Answers, baseline: Baseline | None, files: Sequence[str], thresholds: Thresholds
) -> _Comparison:
    if baseline is None:
        return _Comparison("There is no pushed model to compare with.")
    try:
        old = score_photos(baseline.folder, files, "evaluate the baseline model")
    except Exception as error:  # noqa: BLE001 - a broken old model must not keep a good new one out
        cause = " ".join(str(error).split())[:200]
        note = f"The baseline {baseline.name} cannot be asked, so nothing is compared: {cause}"
        return _Comparison("", note=note)
    quality = measure(old)
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
            f"{answers.webp_photos} photos are WebP and were turned into PNG for this evaluation: a server "
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
