"""Make the page of a judged model: figures, training, what its kind shows, mistakes, serving checks."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from mlplatform.components.model_validator.scoring import Measured, Slice, WrongAnswer
from mlplatform.components.model_validator.serving_check import ServingCheck
from mlplatform.components.model_validator.settings import Budget, Question
from mlplatform.evaluation.kind import Figure, Kind
from mlplatform.evaluation.limits import number
from mlplatform.prediction.served_model import values_of
from mlplatform.reports import model_page
from mlplatform.reports.model_page import CheckResult, Cost, Mistake, ModelPage, TrainingFit, write_model_page
from mlplatform.reports.sections import Cell, Section, Table
from mlplatform.reports.thumbnails import small_picture
from mlplatform.training.history import read_history
from mlplatform.training.search import read_trials
from mlplatform.vision.examples import IMAGE, read_records

_PAIRS_WITH_EXAMPLES = 4
_FEW_CLASSES = 10
_TWO_THINGS = 10  # classes that may be two, whose mistakes are shown by the classes that they are taken for
_WORST_CLASSES, _OF_CLASS = 20, 6  # worst classes that are shown with pictures, and pictures of each
_SLICES_SHOWN = 100
_FEATURES_SHOWN, _FEATURE_LENGTH = 12, 60
_COST_UNITS = {
    "load_time_s": ("to load", "{:.1f} s"),
    "p50_latency_ms": ("a record, median", "{:.1f} ms"),
    "p99_latency_ms": ("a record, 99th percentile", "{:.1f} ms"),
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
    measured: Measured | None,
    slices: Sequence[Slice],
    question: Question,
    budget: Budget,
    baseline: Mapping[str, Figure],
    baseline_text: str,
    serving: ServingCheck,
    parts: Sequence[Sequence[str]],
    run_dir: Path | None = None,
) -> Path:
    """Write the HTML page to `path`.

    `measured` is None where the model could not even be loaded; `parts` are the files of each part of the
    records.
    """
    mistakes: list[Mistake] = []
    pairs: dict[tuple[str, str], list[Mistake]] = {}
    worst: dict[str, list[Mistake]] = {}
    sections: list[Section] = []
    if measured is not None:
        mistakes, pairs, worst = _mistakes(measured, parts)
        sections = [*measured.tally.sections(), *_slices(measured.kind, slices, question)]
    sections += _trials(run_dir) if run_dir else []
    page = ModelPage(
        title=title,
        made_at=made_at,
        is_accepted=not reasons,
        reasons=reasons,
        records=measured.records if measured else 0,
        figures=_figures(measured, baseline, question) if measured else [],
        baseline=baseline_text,
        sections=sections,
        fits=_fits(run_dir) if run_dir else [],
        pairs=pairs,
        worst_classes=worst,
        mistakes=mistakes,
        checks=[CheckResult(finding.name, finding.passed, finding.detail) for finding in serving.findings],
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


def _trials(run_dir: Path) -> list[Section]:
    """Return the table of a search for hyperparameters; none where there was none."""
    trials, monitor = read_trials(run_dir)
    if not trials:
        return []
    names = list(trials[0][1].hyperparameters)
    rows: list[list[Cell | str]] = [
        [
            str(place),
            *(str(trial.hyperparameters[name]) for name in names),
            "" if trial.value is None else f"{trial.value:.4f}",
            f"{trial.seconds:.1f}",
        ]
        for place, trial in trials
    ]
    columns = ["Trial#", *(f"{name}#" for name in names), f"{monitor}#", "Seconds#"]
    text = "The model was trained with the values of the first one."
    return [Table("Search for hyperparameters, the best trial first", columns, rows, text=text)]


def _fits(run_dir: Path) -> list[TrainingFit]:
    """Return the curves of a training; none where it left no history of the usual form."""
    return [
        TrainingFit(name.replace("_", " "), fit.best_epoch, fit.epochs)
        for name, fit in read_history(run_dir).items()
    ]


def _figures(
    measured: Measured, baseline: Mapping[str, Figure], question: Question
) -> list[model_page.QualityFigure]:
    return [
        model_page.QualityFigure(
            name=metric.title,
            value=figure.value,
            low=figure.low,
            high=figure.high,
            threshold=question.limits.levels.get(name),
            baseline=baseline[name].value if name in baseline else None,
            is_share=metric.is_bounded and metric.low == 0,
            is_higher_better=metric.is_higher_better,
        )
        for name, metric in measured.kind.metrics.items()
        if (figure := measured.tally.figures().get(name)) is not None and figure.value == figure.value
    ]


def _slices(kind: Kind, slices: Sequence[Slice], question: Question) -> list[Section]:
    if not slices:
        return []
    metrics = {name: m for name, m in kind.metrics.items() if any(name in part.figures for part in slices)}

    def cell(part: Slice, name: str) -> Cell | str:
        if name not in part.figures or part.figures[name].value != part.figures[name].value:
            return ""
        value, limit = part.figures[name].value, question.slice_limits.levels.get(name)
        is_judged = limit is not None and part.records >= question.slice_limits.min_support
        is_bad = is_judged and limit is not None and metrics[name].is_worse(value, limit)
        return Cell(number(metrics[name], value), tone="bad" if is_bad else "")

    rows = [[part.name, f"{part.records:,}", *(cell(part, name) for name in metrics)] for part in slices]
    left_out = len(slices) - _SLICES_SHOWN
    return [
        Table(
            "Slices",
            ["Slice", "Records#", *(f"{metric.words}#" for metric in metrics.values())],
            rows[:_SLICES_SHOWN],
            note=f"{left_out:,} smaller slices are in metrics.json." if left_out > 0 else "",
        )
    ]


def _mistakes(
    measured: Measured, parts: Sequence[Sequence[str]]
) -> tuple[list[Mistake], dict[tuple[str, str], list[Mistake]], dict[str, list[Mistake]]]:
    """Return the most surprising mistakes, those of the main confusions, and of the worst classes."""
    surest = measured.mistakes.surest
    of_pairs = measured.mistakes.most_confused(_PAIRS_WITH_EXAMPLES)
    details = measured.tally.details()
    halves = [(c["label"], c[side]) for c in details.get("two_things", []) for side in ("one", "other")]
    of_pairs |= measured.mistakes.of_pairs(halves[: 2 * _TWO_THINGS])
    classes = details.get("classes", [])  # the worst first
    # Of a few classes, the confusions above show all.
    is_many = len(classes) > _FEW_CLASSES
    worst = [c["label"] for c in classes if is_many and c["support"] and c["recall"]["value"] < 1]
    of_classes = measured.mistakes.of_classes(worst[:_WORST_CLASSES], _OF_CLASS)
    groups = [*of_pairs.values(), *of_classes.values()]
    shown = [*surest, *(wrong for kept in groups for wrong in kept)]
    wanted: dict[int, set[int]] = {}
    for wrong in shown:
        wanted.setdefault(wrong.where[0], set()).add(wrong.where[1])
    examples = {part: read_examples(parts[part], places) for part, places in wanted.items()}

    def mistake(wrong: WrongAnswer) -> Mistake:
        part, place = wrong.where
        example = examples[part][place]
        has_photo = bool(values_of(example, IMAGE))
        return Mistake(
            picture=small_picture(values_of(example, IMAGE)[0]) if has_photo else "",
            item_id=wrong.item_id
            or f"record {place + 1}" + (f" of file {part + 1}" if len(parts) > 1 else ""),
            truth=wrong.truth,
            answer=wrong.answer,
            score=wrong.surprise if of_pairs else None,
            features=() if has_photo else features_shown(example),
        )

    return (
        [mistake(w) for w in surest],
        {pair: [mistake(w) for w in kept] for pair, kept in of_pairs.items()},
        {label: [mistake(w) for w in kept] for label, kept in of_classes.items()},
    )


def features_shown(example: tf.train.Example) -> list[tuple[str, str]]:
    """Return an Example's features in words, as many as a card shows."""
    found = []
    for name in sorted(example.features.feature)[:_FEATURES_SHOWN]:
        values = [
            v.decode("utf-8", "replace")
            if isinstance(v, bytes)
            else f"{v:.6g}"
            if isinstance(v, float)
            else str(v)
            for v in values_of(example, name)[:5]
        ]
        found.append((name, " ".join(values)[:_FEATURE_LENGTH]))
    return found


def read_examples(files: Sequence[str], places: Iterable[int]) -> dict[int, tf.train.Example]:
    """Return the Examples at these places of the files."""
    wanted = set(places)
    found: dict[int, tf.train.Example] = {}
    if not wanted:
        return found
    for place, record in enumerate(read_records(files).as_numpy_iterator()):
        if place in wanted:
            found[place] = tf.train.Example.FromString(record)
            if len(found) == len(wanted):
                break
    return found
