"""Judge a model: safe to serve, then good enough, absolutely and beside the model that is pushed now."""

import json
import logging
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeAlias

from mlplatform.beam.job_server import require_job_server
from mlplatform.components.model_validator.baseline import BaselineModel
from mlplatform.components.model_validator.errors import (
    BaselineError,
    NotAnsweredError,
    NothingToEvaluateError,
)
from mlplatform.components.model_validator.records import Records
from mlplatform.components.model_validator.report import write_report
from mlplatform.components.model_validator.scoring import (
    LARGEST_SLICES,
    Measured,
    ScoredModel,
    Scores,
    Slice,
    Write,
    quality_json,
    score,
)
from mlplatform.components.model_validator.serving_check import ServingCheck, check_serving
from mlplatform.components.model_validator.settings import Budget, Question
from mlplatform.components.model_validator.tfma_evaluation import (
    Answers,
    AnswersFile,
    evaluate,
    evaluate_as_asked,
)
from mlplatform.components.model_validator.verdict import REPORT_FILE, VERDICT_FILE, ModelVerdict
from mlplatform.components.model_validator.waivers import ThresholdWaiver, apart
from mlplatform.evaluation.kind import Figure, Kind
from mlplatform.evaluation.limits import Limits, Missed, fallen, in_words, missed
from mlplatform.prediction.errors import ModelNotLoadableError
from mlplatform.prediction.served_model import ServedModel, brief
from mlplatform.progress import track
from mlplatform.reports.kept import keep_report
from mlplatform.serving.mixed_precision import MIXED_PRECISION_FILE
from mlplatform.serving.tflite_model import TFLITE_FOLDER
from mlplatform.storage.urls import join
from mlplatform.training.trained_on import read_trained_on, record_batches
from mlplatform.vision.decoding import READS_WEBP
from mlplatform.waivers import waiver_facts

METRICS_FILE = "metrics.json"
SAMPLES, FORM_SAMPLES = 8, 64
_SLICE_REASONS = 20
_MOST_TFMA_CLASSES = 20
# Evaluation records that are looked for among those of the training, and the share that may be among them.
_LOOKED_FOR, _MOST_TRAINED_ON = 10_000, 0.05


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a model is judged by.

    Attributes:
        splits: Names of the evaluation splits.
        question: What it is to answer, and how well.
        budget: What it may cost.
        baseline: The model to compare with, if there is one.
        title: The model's name in the report.
        run_dir: What its training left (`history.json`, `trained_on.npy`); None where it is not known.
        run: Id of the run that judges, for the list of reports; empty where it is not known.
        transform_dir: Transform's output, where label or slices are features that it makes.
        eval_config: A TFMA EvalConfig whose metrics and thresholds count, too.
        model_uri: Where the model lies, for the record; empty where that is the folder that is judged.
        engine: The Beam engine that asks about the records; None asks in this process.
        serving_environment: Virtual environment or Python executable whose TensorFlow is to load the model,
            too; empty for none.
        waivers: The thresholds that it may miss; each of them counts.
    """

    splits: Sequence[str]
    question: Question = field(default_factory=Question)
    budget: Budget = field(default_factory=Budget)
    baseline: BaselineModel | None = None
    title: str = "model"
    run_dir: Path | None = None
    run: str = ""
    transform_dir: Path | None = None
    eval_config: Any = None
    model_uri: str = ""
    engine: "ScoringEngine | None" = None
    serving_environment: str = ""
    waivers: Sequence[ThresholdWaiver] = ()


@dataclass(frozen=True)
class ScoringEngine:
    """The Beam engine that the model is judged on; without one, that is done in this process.

    Attributes:
        arguments: Beam's arguments that choose it.
        model: Folder or URL of the SavedModel, where the workers find it.
        work_dir: Folder or URL that workers write to and this process reads; the caller removes it.
    """

    arguments: Sequence[str]
    model: str
    work_dir: str


def validate_model(
    model_dir: Path,
    files: Sequence[str],
    terms: Terms,
    *,
    output_dir: Path,
    reports_dir: str | None = None,
) -> ModelVerdict:
    """Judge the model and write what was found.

    Args:
        model_dir: SavedModel.
        files: TFRecord files of the evaluation splits.
        terms: What it is judged by.
        output_dir: For TFMA's results, `metrics.json` and `report.html`.
        reports_dir: For a copy of verdict and page that stays when the model is rejected.

    Raises:
        NothingToEvaluateError: The files hold no Examples.
        UnsupportedExamplesError: They hold no truths.
        UnreadableLabelError: A truth cannot be one of the kind.
        BaselineError: The baseline cannot be scored; a pushed one that does not load is only noted.
        JobServerUnreachableError: The engine's job server does not answer.
        ServingEnvironmentError: The environment of the server cannot be used.
    """
    if terms.engine is not None:
        require_job_server(terms.engine.arguments)
    forms = [*(model_dir / TFLITE_FOLDER).glob("*.tflite"), *model_dir.glob(str(MIXED_PRECISION_FILE))]
    records = Records(files, terms.question, terms.transform_dir)
    samples = records.samples(FORM_SAMPLES if forms else SAMPLES)
    if not samples:
        raise NothingToEvaluateError(terms.splits)
    serving = check_serving(model_dir, samples, terms.budget, terms.question, terms.serving_environment)
    return judge(model_dir, files, serving, terms, output_dir=output_dir, reports_dir=reports_dir)


def judge(
    model_dir: Path,
    files: Sequence[str],
    serving: ServingCheck,
    terms: Terms,
    *,
    output_dir: Path,
    reports_dir: str | None = None,
) -> ModelVerdict:
    """Judge a model whose serving check is done; arguments and errors as for `validate_model`."""
    output_dir.mkdir(parents=True, exist_ok=True)
    records = Records(files, terms.question, terms.transform_dir)
    found = Quality()
    if serving.is_loadable:
        with tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch:
            with AnswersFile(Path(scratch) / "answers.tfrecord") as answers:
                found = measure_quality(model_dir, records, terms, write=answers.write)
                limits = terms.question.limits
                if found.measured is not None and limits.per_class_alpha is not None:
                    answers.name_only(_supported(found.measured, limits))
            found = _with_tfma(found, answers, model_dir, records, terms, output_dir)
    made_at = datetime.now(timezone.utc)
    unsafe, waived_costs = apart(serving.missed, terms.waivers)
    serving_reasons = in_words(unsafe)
    reasons = [*found.reasons, *serving_reasons]
    waived = [*found.waived, *waived_costs]
    notes = [*(f"{missed.text}; {waiver.words}" for missed, waiver in waived), *found.notes]
    used = [waiver for _, waiver in waived]
    question = terms.question
    facts = {
        "title": terms.title,
        "accepted": not reasons,
        "quality_reasons": found.reasons,
        "serving_reasons": serving_reasons,
        "reasons": reasons,
        "made_at": made_at.isoformat(timespec="seconds"),
        "model": terms.model_uri or str(model_dir),
        "splits": list(terms.splits),
        "kind": question.kind,
        "label": question.label,
        "thresholds": question.limits.as_json(),
        "slice_thresholds": question.slice_limits.as_json(),
        "budget": terms.budget.model_dump(),
        "quality": quality_json(found.measured) if found.measured else None,
        "slices": [_slice_json(part) for part in found.slices],
        "baseline": found.compared.as_json() if found.compared else None,
        "serving": _serving_json(serving),
        "notes": notes,
        "waived": [
            {"reason": missed.text, "waiver": waiver.model_dump(mode="json")} for missed, waiver in waived
        ],
        "waivers": waiver_facts(terms.waivers, used),
    }
    with track("write the report", total=1, unit="reports") as bar:
        page = write_report(
            output_dir / REPORT_FILE,
            title=terms.title,
            made_at=f"{made_at:%Y-%m-%d %H:%M} UTC",
            reasons=reasons,
            notes=[*notes, *_unused(terms.waivers, used)],
            measured=found.measured,
            slices=found.slices,
            question=question,
            budget=terms.budget,
            baseline=found.compared.figures if found.compared else {},
            baseline_text=found.compared.text if found.compared else "",
            serving=serving,
            parts=[files] if terms.engine is None else [[file] for file in files],
            run_dir=terms.run_dir,
        )
        bar.advance()
    (output_dir / METRICS_FILE).write_text(json.dumps(facts, indent=2), "utf-8")
    return ModelVerdict.of(facts, _keep(page, facts, reports_dir, terms.run) if reports_dir else None)


@dataclass(frozen=True)
class Quality:
    """What was found of a model's quality; nothing where it cannot be loaded.

    Attributes:
        measured: Its figures; None where it could not be asked.
        slices: Those of the slices.
        compared: The baseline's figures.
        reasons: Why it is not good enough, one sentence each.
        notes: What else is worth knowing.
        answers: What workers of an engine left for TFMA; None without one.
        waived: What would be a reason if nobody had waived it.
    """

    measured: Measured | None = None
    slices: Sequence[Slice] = ()
    compared: "_Comparison | None" = None
    reasons: Sequence[str] = ("its quality could not be measured, as it cannot be loaded or asked",)
    notes: Sequence[str] = ()
    answers: Answers | None = None
    waived: Sequence["_Waived"] = ()


_Waived: TypeAlias = tuple[Missed, ThresholdWaiver]


def measure_quality(
    model_dir: Path, records: Records, terms: Terms, *, write: Write | None = None
) -> Quality:
    """Ask the model and its baseline about all records, and hold the figures against the thresholds.

    Args:
        model_dir: SavedModel.
        records: The evaluation splits.
        terms: What it is judged by.
        write: Takes each batch and its scores.
    """
    question = terms.question
    kind = question.find_kind()
    baseline = _load_baseline(terms.baseline, kind)
    answers = None
    try:
        if terms.engine is not None:
            scores, answers = _score_on(terms.engine, records, terms, baseline)
        else:
            model = ScoredModel(ServedModel.load(model_dir), kind)
            scores = score(
                records, question, model, old=baseline.asked, on_error=baseline.failed, write=write
            )
    except NotAnsweredError as error:
        return Quality(reasons=[f"its quality could not be measured: {error}"])
    new, compared = scores.new, _Comparison.of(baseline, scores, kind)
    figures, slices = new.tally.figures(), new.slices()
    limits, change = question.limits, compared.change
    overall = [*missed(kind, figures, limits), *fallen(kind, figures, compared.figures, limits, change)]
    overall, waived = apart(overall, terms.waivers)
    of_slices, waived_of_slices = apart(_missed_of_slices(kind, slices, question), terms.waivers)
    reasons = [
        *new.faults(),
        *in_words(overall),
        *in_words(of_slices)[:_SLICE_REASONS],
        *_trained_on(records.files, terms.run_dir),
    ]
    notes = _notes(new, compared, question)
    return Quality(new, slices, compared, reasons, notes, answers, [*waived, *waived_of_slices])


def _unused(waivers: Sequence[ThresholdWaiver], used: Sequence[ThresholdWaiver]) -> list[str]:
    return [f"nothing that was found is {each.about}, {each.words}" for each in waivers if each not in used]


def _trained_on(files: Sequence[str], run_dir: Path | None) -> list[str]:
    """Say so where the model was trained on the records that judge it.

    Some may be among them by chance, as records of few values repeat: at most twice the share that repeats
    within the training.
    """
    trained = read_trained_on(run_dir)
    if trained is None:
        return []
    found = compared = 0
    for batch in record_batches(files):
        more, comparable = trained.found(batch)
        found, compared = found + more, compared + comparable
        if compared >= _LOOKED_FOR:
            break
    if not compared or found / compared <= max(_MOST_TRAINED_ON, 2 * trained.repeated):
        return []
    return [
        f"it was trained on {found} of {compared} evaluation records that were looked for: its figures say "
        "nothing about records that it has not seen"
    ]


def _score_on(
    engine: ScoringEngine, records: Records, terms: Terms, baseline: "_Baseline"
) -> tuple[Scores, Answers]:
    """Score on a Beam engine."""
    # Here, as in one process nothing needs Beam's pipelines.
    from mlplatform.components.model_validator.scoring_on_beam import ScoringJob, score_on_beam

    compared = terms.baseline if baseline.asked is not None else None
    job = ScoringJob(
        files=records.files,
        question=terms.question,
        model=engine.model,
        work_dir=engine.work_dir,
        baseline=(compared.url or str(compared.folder)) if compared else "",
        baseline_name=compared.name if compared else "",
        transform_dir=str(terms.transform_dir or ""),
    )
    return score_on_beam(job, engine.arguments)


def _with_tfma(
    found: Quality, answers: Answers, model_dir: Path, records: Records, terms: Terms, output_dir: Path
) -> Quality:
    """Write TFMA's results; an EvalConfig of the user's own may add reasons."""
    measured, compared, question = found.measured, found.compared, terms.question
    arguments = terms.engine.arguments if terms.engine is not None else ()
    answers = found.answers or answers
    if measured is None or compared is None:
        return found
    with track("evaluate with TensorFlow Model Analysis", total=1, unit="evaluations") as bar:
        if terms.eval_config is not None:
            baseline = compared.folder
            more = evaluate_as_asked(
                terms.eval_config, model_dir, baseline, records.files, output_dir, arguments
            )
            found = replace(found, reasons=[*found.reasons, *more])
        elif answers.records:
            supported = _supported(measured, question.limits)
            floor = compared.floor("top_1", question)
            evaluate(answers, question, supported, output_dir, top_1_floor=floor, beam_arguments=arguments)
        bar.advance()
    return found


def _supported(measured: Measured, limits: Limits) -> list[str]:
    """Return the classes with enough records that TFMA measures by themselves.

    Where chance decides which classes are rejected, the gate alone judges them, and TFMA is given few classes
    or none: each costs it as much as hundreds of records cost the model.
    """
    classes = measured.tally.details().get("classes", [])
    found = sorted(c["label"] for c in classes if c["support"] >= limits.min_support)
    is_too_many = limits.per_class_alpha is not None and len(found) > _MOST_TFMA_CLASSES
    return [] if is_too_many else found


def _missed_of_slices(kind: Kind, slices: Sequence[Slice], question: Question) -> list[Missed]:
    limits = question.slice_limits
    return [
        each
        for part in slices
        if part.records >= limits.min_support
        for each in missed(kind, part.figures, limits, part.name)
    ]


def _keep(page: Path, facts: dict[str, Any], reports_dir: str, run: str) -> str:
    """Copy page and verdict to where they stay."""

    def write(folder: Path) -> None:
        (folder / VERDICT_FILE).write_text(json.dumps(facts, indent=2), "utf-8")
        (folder / REPORT_FILE).write_bytes(page.read_bytes())

    return join(keep_report(reports_dir, "ModelValidator", write, run=run), REPORT_FILE)


@dataclass(frozen=True)
class _Baseline:
    """The model to compare with, ready to be asked; `asked` is None where nothing is compared."""

    text: str
    asked: ScoredModel | None = None
    folder: Path | None = None
    note: str = ""
    failed: Callable[[Exception], Exception] | None = None


def _load_baseline(baseline: BaselineModel | None, kind: Kind) -> _Baseline:
    """Load the baseline.

    Raises:
        BaselineError: It cannot be loaded. Only a pushed model that does not load is noted instead: servers
            cannot answer with it either, and it would keep every new model out.
    """
    if baseline is None:
        return _Baseline("There is no pushed model to compare with.")

    def failed(error: Exception) -> Exception:
        # Whatever it is (exhausted memory, unreadable files, another kind of model, our own fault): going on
        # without the comparison would turn the gate off.
        cause = error.cause if isinstance(error, NotAnsweredError) else brief(error)
        return BaselineError(baseline.name, cause)

    try:
        model = ServedModel.load(baseline.folder)
    except ModelNotLoadableError as error:
        if not baseline.is_pushed or not baseline.folder.is_dir():
            raise BaselineError(baseline.name, error.cause) from error
        note = f"Nothing is compared: the baseline, {baseline.name}, does not load ({error.cause})"
        logging.getLogger(__name__).warning("%s", note)
        return _Baseline(f"Not compared: {baseline.name}, does not load.", note=note)
    except Exception as error:
        raise failed(error) from error
    asked = ScoredModel(model, kind)
    return _Baseline(f"Compared with {baseline.name}.", asked, baseline.folder, failed=failed)


@dataclass(frozen=True)
class _Comparison:
    """The baseline's figures on the same records.

    Attributes:
        text: What was compared, in words.
        figures: The baseline's figures; none where there is no baseline, or it does not load.
        better: Records that the new model answers better.
        worse: Records that the baseline answers better.
        change: Both in words.
        folder: The baseline's SavedModel; None where nothing was compared.
        note: Why nothing was compared though there is a baseline; empty where it was.
    """

    text: str
    figures: dict[str, Figure]
    better: int = 0
    worse: int = 0
    change: str = ""
    folder: Path | None = None
    note: str = ""

    @classmethod
    def of(cls, baseline: _Baseline, scores: Scores, kind: Kind) -> "_Comparison":
        """Return what was found of a baseline."""
        if scores.old is None:
            return cls(baseline.text, {}, note=baseline.note)
        changes = scores.compared
        change = kind.change(changes.better, changes.worse)
        figures = dict(scores.old.tally.figures())
        return cls(baseline.text, figures, changes.better, changes.worse, change, baseline.folder)

    def floor(self, name: str, question: Question) -> float:
        """Return the lowest value of a bounded metric that does not fall behind the baseline's."""
        if name not in self.figures or name not in question.limits.changes:
            return 0.0
        return max(self.figures[name].value - question.limits.changes[name], 0.0)

    def as_json(self) -> dict[str, Any]:
        values = {name: figure.as_json()["value"] for name, figure in self.figures.items()}
        return {
            "text": self.text,
            "problem": self.note or None,
            **values,
            "only_new_right": self.better,
            "only_old_right": self.worse,
        }


def _notes(measured: Measured, compared: _Comparison, question: Question) -> list[str]:
    notes = [compared.note] if compared.note else []
    notes += measured.tally.notes()
    if measured.webp_photos and not READS_WEBP:
        notes.append(
            f"{measured.webp_photos} photos are WebP and were converted to PNG for this evaluation: a server "
            "of this TensorFlow version refuses WebP."
        )
    notes += [
        f"the slice {', '.join(names)} has more than {LARGEST_SLICES} values; that many of them are measured"
        for names in sorted(measured.unmeasured)
    ]
    limits = question.limits
    supports = [c["support"] for c in measured.tally.details().get("classes", []) if c["support"]]
    unjudged = sum(support < limits.min_support for support in supports)
    if limits.levels.get("per_class_recall") and limits.per_class_alpha is None and unjudged:
        notes.append(
            f"{unjudged} of {len(supports)} classes have fewer than {limits.min_support} records and are "
            "not judged by per_class_recall."
        )
    return notes


def _slice_json(part: Slice) -> dict[str, Any]:
    values = {name: figure.as_json()["value"] for name, figure in part.figures.items()}
    return {
        "slice": part.name,
        "records": part.records,
        **{name: value for name, value in values.items() if value is not None and math.isfinite(value)},
    }


def _serving_json(serving: ServingCheck) -> dict[str, Any]:
    return {
        "figures": serving.figures,
        "checks": [{"name": f.name, "passed": f.passed, "detail": f.detail} for f in serving.findings],
    }
