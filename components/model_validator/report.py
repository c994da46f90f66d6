"""Make the page of a judged model: figures, training, confusions, mistakes with pictures, serving checks."""

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from mlplatform.components.model_validator.quality import Quality, confusion_matrix
from mlplatform.components.model_validator.scoring import Answers
from mlplatform.components.model_validator.serving_check import ServingCheck
from mlplatform.components.model_validator.settings import Budget, Thresholds
from mlplatform.exif import upright
from mlplatform.reports.model_page import (
    Check,
    Cost,
    Figure,
    Mistake,
    ModelPage,
    TrainingFit,
    write_model_page,
)
from mlplatform.reports.page import picture
from mlplatform.training.history import read_history
from mlplatform.vision.examples import IMAGE, read_records

_MISTAKES = 24
_CLASSES_SHOWN = 60
_PAIRS_SHOWN = 20
_MATRIX_CLASSES = 10
_PAIRS_WITH_PICTURES = 4
_PICTURES_PER_PAIR = 6
_PICTURE_SIDE = 160  # pixels
_COST_UNITS = {
    "load_time_s": ("to load", "{:.1f} s"),
    "p50_latency_ms": ("a photo, median", "{:.1f} ms"),
    "p99_latency_ms": ("a photo, 99th percentile", "{:.1f} ms"),
    "peak_memory_mb": ("memory of the process", "{:.0f} MB"),
    "model_size_mb": ("on disk", "{:.1f} MB"),
}


def write_report(
    path: Path,
    *,
    title: str,
    made_at: str,
    reasons: Sequence[str],
    notes: Sequence[str],
    answers: Answers | None,
    quality: Quality | None,
    thresholds: Thresholds,
    budget: Budget,
    baseline: Quality | None,
    baseline_text: str,
    serving: ServingCheck,
    files: Sequence[str],
    run_dir: Path | None = None,
) -> Path:
    """Write the HTML page to `path`; quality is None where the model could not even be loaded."""
    mistakes: list[Mistake] = []
    pair_pictures: dict[tuple[str, str], list[Mistake]] = {}
    if answers is not None and quality is not None:
        mistakes, pair_pictures = _pictures(answers, quality, files)
    page = ModelPage(
        title=title,
        made_at=made_at,
        is_accepted=not reasons,
        reasons=reasons,
        photos=quality.photos if quality else 0,
        figures=_figures(quality, baseline, thresholds) if quality else [],
        baseline=baseline_text,
        classes=quality.classes[:_CLASSES_SHOWN] if quality else [],
        classes_left_out=max(len(quality.classes) - _CLASSES_SHOWN, 0) if quality else 0,
        matrix=confusion_matrix(answers, quality, _MATRIX_CLASSES) if answers and quality else None,
        fits=_fits(run_dir) if run_dir else [],
        pairs=quality.confused_pairs[:_PAIRS_SHOWN] if quality else [],
        pair_pictures=pair_pictures,
        mistakes=mistakes,
        checks=[Check(finding.name, finding.passed, finding.detail) for finding in serving.findings],
        costs=_costs(serving, budget),
        notes=notes,
    )
    return write_model_page(path, page)


def _costs(serving: ServingCheck, budget: Budget) -> list[Cost]:
    allowed: dict[str, float] = budget.model_dump()
    return [
        Cost(
            name=words,
            value=form.format(serving.figures[name]),
            allowed=form.format(allowed[name]) if name in allowed else "",
            is_over=name in allowed and serving.figures[name] > allowed[name],
        )
        for name, (words, form) in _COST_UNITS.items()
        if name in serving.figures
    ]


def _fits(run_dir: Path) -> list[TrainingFit]:
    """Return the curves of a training; none where it left no history of the usual form."""
    return [
        TrainingFit(name.replace("_", " "), fit.best_epoch, fit.epochs)
        for name, fit in read_history(run_dir).items()
    ]


def _figures(quality: Quality, baseline: Quality | None, thresholds: Thresholds) -> list[Figure]:
    return [
        Figure(
            name=words,
            value=getattr(quality, key).value,
            low=getattr(quality, key).low,
            high=getattr(quality, key).high,
            threshold=getattr(thresholds, key),
            baseline=getattr(baseline, key).value if baseline else None,
        )
        for key, words in (
            ("top_1", "first answer right"),
            ("top_3", "among the first three"),
            ("top_5", "among the first five"),
        )
    ]


def _pictures(
    answers: Answers, quality: Quality, files: Sequence[str]
) -> tuple[list[Mistake], dict[tuple[str, str], list[Mistake]]]:
    wrong = np.flatnonzero(~answers.is_right)
    surest = wrong[np.argsort(-answers.scores[wrong, 0], kind="stable")]
    shown_pairs = [(pair.truth, pair.answer) for pair in quality.confused_pairs[:_PAIRS_WITH_PICTURES]]
    of_pair: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number in surest:
        key = (answers.truths[number], answers.labels[answers.classes[number, 0]])
        if key in shown_pairs and len(of_pair[key]) < _PICTURES_PER_PAIR:
            of_pair[key].append(int(number))
    mistakes = [int(number) for number in surest[:_MISTAKES]]
    photos = _read_photos(files, {*mistakes, *(n for numbers in of_pair.values() for n in numbers)})

    def mistake(number: int) -> Mistake:
        return Mistake(
            picture=picture(photos[number]),
            item_id=answers.item_ids[number],
            truth=answers.truths[number],
            answer=answers.labels[answers.classes[number, 0]],
            score=float(answers.scores[number, 0]),
        )

    return [mistake(n) for n in mistakes], {key: [mistake(n) for n in of_pair[key]] for key in shown_pairs}


def _read_photos(files: Sequence[str], numbers: Iterable[int]) -> dict[int, bytes]:
    """Return small JPEG copies of the photos at these places of the files."""
    wanted = set(numbers)
    found: dict[int, bytes] = {}
    for number, record in enumerate(read_records(files).as_numpy_iterator()):
        if number in wanted:
            encoded = tf.train.Example.FromString(record).features.feature[IMAGE].bytes_list.value[0]
            found[number] = _small(encoded)
            if len(found) == len(wanted):
                break
    return found


def _small(encoded: bytes) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(encoded)) as image:
        small = upright(image.convert("RGB"), encoded)
        small.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
        small.save(file, "JPEG", quality=80)
    return file.getvalue()
