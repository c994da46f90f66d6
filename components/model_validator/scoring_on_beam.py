"""Ask a model, and its baseline, about every record on a Beam engine: a file is a piece of work.

    every file | load both models, once per worker; score its records; leave its answers for TFMA
               | merge what was found, in any order

Only what was found goes from step to step: its size depends on the number of classes, not of records. A piece
of work that runs twice leaves the same answers.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

from mlplatform.beam.accounting import check_all_left
from mlplatform.beam.gathered import WriteGathered, read_gathered
from mlplatform.beam.job_server import require_job_server
from mlplatform.beam.runners import pipeline_options
from mlplatform.beam.versions import require_versions, versions
from mlplatform.components.model_validator.errors import BaselineError, NotAnsweredError
from mlplatform.components.model_validator.records import Records
from mlplatform.components.model_validator.scoring import ScoredModel, Scores, score
from mlplatform.components.model_validator.settings import Question
from mlplatform.components.model_validator.tfma_evaluation import Answers, AnswersFile
from mlplatform.errors import MlplatformError
from mlplatform.prediction.served_model import ServedModel, brief
from mlplatform.storage import open_storage
from mlplatform.storage.urls import join, name, parent
from mlplatform.tfx_io.artifacts import fetched


@dataclass(frozen=True)
class ScoringJob:
    """What the workers need to know.

    Attributes:
        files: TFRecord files of the evaluation splits: paths that every worker sees, or URLs that its
            TensorFlow reads.
        question: What the models are to answer.
        model: Folder or URL of the SavedModel that is judged.
        baseline: Folder or URL of the one to compare with; empty for none.
        baseline_name: What errors call it.
        transform_dir: Transform's output; empty for none.
        work_dir: Folder or URL that workers write to and this process reads; the caller removes it.
    """

    files: Sequence[str]
    question: Question
    model: str
    work_dir: str
    baseline: str = ""
    baseline_name: str = ""
    transform_dir: str = ""

    def answers(self, part: object) -> str:
        """Return the file, or for `*` the pattern of the files, of the answers to a part."""
        return join(self.work_dir, f"answers-{part}")


@dataclass
class _Part:
    """What was found of some parts.

    Attributes:
        parts: How many parts these are.
        records: How many records were read of them.
        scores: What was found; None where that failed.
        failure: The first part that failed, and why.
        answers: Answers that were left for TFMA.
        has_ranks: They are of classes.
    """

    parts: int
    records: int
    scores: Scores | None
    failure: tuple[int, MlplatformError] | None = None
    answers: int = 0
    has_ranks: bool = False

    def merge(self, other: "_Part") -> "_Part":
        self.parts += other.parts
        self.records += other.records
        self.answers += other.answers
        self.has_ranks |= other.has_ranks
        failures = [one for one in (self.failure, other.failure) if one is not None]
        self.failure = min(failures, key=lambda one: one[0], default=None)
        if self.scores is not None and other.scores is not None:
            self.scores.merge(other.scores)
        self.scores = self.scores or other.scores
        return self


def score_on_beam(job: ScoringJob, beam_arguments: Sequence[str]) -> tuple[Scores, Answers]:
    """Ask both models about all records on an engine; return what was found, and the answers for TFMA.

    Args:
        job: What to do.
        beam_arguments: Beam's arguments that choose the engine.

    Raises:
        JobServerUnreachableError: The engine's job server does not answer.
        RecordsLostError: The engine lost or repeated a part.
        NotAnsweredError: The judged model does not answer.
        BaselineError: The baseline does not.
        UnsupportedExamplesError: A record has no truth.
        UnreadableLabelError: A record's truth cannot be one of the kind.
    """
    require_job_server(beam_arguments)
    found = join(job.work_dir, "scores")
    with beam.Pipeline(options=pipeline_options(beam_arguments)) as pipeline:
        _ = (
            pipeline
            | beam.Create(list(enumerate(job.files)))
            | beam.Reshuffle()
            | "Score" >> beam.ParDo(_ScorePart(job))
            | "Merge" >> beam.CombineGlobally(_Merge()).without_defaults()
            | WriteGathered(found)
        )
    [whole] = read_gathered(found) or [_Part(0, 0, None)]
    check_all_left("score the model, its files", len(job.files), whole.parts)
    if whole.failure is not None:
        raise whole.failure[1]
    check_all_left("score the model", whole.records, whole.scores.new.records)
    return whole.scores, Answers(job.answers("*"), whole.answers, whole.has_ranks)


class _ScorePart(beam.DoFn):
    """Scores the records of a file."""

    def __init__(self, job: ScoringJob) -> None:
        self._job, self._versions, self._shared = job, versions(), Shared()

    def setup(self) -> None:
        require_versions(self._versions)

    def process(self, numbered: tuple[int, str]) -> Iterator[_Part]:
        models = self._shared.acquire(lambda: _Models(self._job))  # once per worker's process
        part, file = numbered
        try:
            yield _score(part, file, self._job, models)
        except MlplatformError as error:
            # A result: an engine would try again what fails here each time.
            yield _Part(1, 0, None, (part, error))


class _Models:
    """Both models of a job, loaded."""

    def __init__(self, job: ScoringJob) -> None:
        self.places = ExitStack()
        self.new = self._load(job.model, job)
        self.old = self._load(job.baseline, job) if job.baseline else None
        transform = self.places.enter_context(fetched(job.transform_dir)) if job.transform_dir else None
        self.transform_dir = transform

    def _load(self, place: str, job: ScoringJob) -> ScoredModel:
        folder = self.places.enter_context(fetched(place))
        return ScoredModel(ServedModel.load(folder), job.question.find_kind())

    def __del__(self) -> None:
        self.places.close()


def _score(part: int, file: str, job: ScoringJob, models: _Models) -> _Part:
    def failed(error: Exception) -> Exception:
        cause = error.cause if isinstance(error, NotAnsweredError) else brief(error)
        return BaselineError(job.baseline_name, cause)

    records = Records([file], job.question, models.transform_dir, part=part)
    with tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch:
        with AnswersFile(Path(scratch) / "answers") as answers:
            try:
                scores = score(
                    records, job.question, models.new, old=models.old, on_error=failed, write=answers.write
                )
            except NotAnsweredError as error:
                where = f"{error.cause} (in {job.files[part]})"
                raise NotAnsweredError(error.place, where) from error
        if answers.records:
            # All at once, so that a second attempt changes nothing.
            place = job.answers(f"{part:05d}")
            open_storage(parent(place)).put(name(place), Path(answers.path).read_bytes())
    return _Part(1, records.read, scores, None, answers.records, answers.has_ranks)


class _Merge(beam.CombineFn):
    """Merges what was found."""

    def create_accumulator(self) -> Any:
        return None

    def add_input(self, whole: Any, part: _Part) -> Any:
        return part if whole is None else whole.merge(part)

    def merge_accumulators(self, parts: Any) -> Any:
        whole = None
        for part in parts:
            if part is not None:
                whole = self.add_input(whole, part)
        return whole

    def extract_output(self, whole: Any) -> Any:
        return whole
