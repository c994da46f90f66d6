"""Compare two models on the same records: how good each is, and which answers change."""

import contextlib
import heapq
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mlplatform.components.model_validator.errors import NotComparableError, NothingToEvaluateError
from mlplatform.components.model_validator.records import Record, Records
from mlplatform.components.model_validator.report import features_shown, read_examples
from mlplatform.components.model_validator.settings import Question
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.examples_folder import list_shards
from mlplatform.datasets.reference import version_reference
from mlplatform.evaluation.errors import UnreadableAnswerError
from mlplatform.evaluation.kind import Figure, Metric, Outputs, Scored
from mlplatform.prediction.served_model import ServedModel, ServedSignature, brief, values_of
from mlplatform.progress import track
from mlplatform.reports.compare_page import ChangedRecord, ComparePage, write_compare_page
from mlplatform.reports.thumbnails import small_picture
from mlplatform.taxonomy import Taxonomy
from mlplatform.tfx_io.artifacts import fetched
from mlplatform.vision.examples import IMAGE

TRAIN = "train"
MOST_CHANGES = 60  # of each kind that are kept
# What becomes of a record, for models A and B.
ONLY_A, ONLY_B, NEITHER = "only A is right", "only B is right", "another wrong answer"
_SAME = 1e-9  # errors that differ by less are the same


@dataclass(frozen=True, order=True)
class Change:
    """A record that the two models answer otherwise; ordered by how confident the wrong answer is.

    Attributes:
        surprise: Of the wrong answer, as its kind gives it; the larger one where both are wrong.
        from_end: Its place among the records, from 0, negated.
        item_id: What a person finds it by; empty where it has none.
        truth: The truth in words.
        answer_a: The answer of model A, in words.
        answer_b: That of model B.
    """

    surprise: float
    from_end: int
    item_id: str
    truth: str
    answer_a: str
    answer_b: str

    @property
    def place(self) -> int:
        """Its place among the records, from 0."""
        return -self.from_end


@dataclass
class ModelComparison:
    """What was found.

    Attributes:
        records: Records that both models were asked about.
        same: Those with the same answer of both.
        only_a_right: Those that model A answers better; of classes, those that it alone answers right.
        only_b_right: Likewise.
        by_class: Of kinds with classes, class to `a` and `b`, how many of its `records` each answers right.
        changes: Some of the records with other answers, by `ONLY_A`, `ONLY_B`, `NEITHER`.
        figures: Metrics by name, of A and B.
        metrics: What these metrics are.
    """

    records: int = 0
    same: int = 0
    only_a_right: int = 0
    only_b_right: int = 0
    by_class: dict[str, dict[str, int]] = field(default_factory=dict)
    changes: dict[str, list[Change]] = field(default_factory=dict)
    figures: dict[str, tuple[Figure | None, Figure | None]] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Records with another answer of the two."""
        return self.records - self.same

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "records": self.records,
            "same": self.same,
            "changed": self.changed,
            "only_a_right": self.only_a_right,
            "only_b_right": self.only_b_right,
            "by_class": self.by_class,
            "figures": {
                name: {
                    side: None if one is None else one.as_json() for side, one in zip("ab", pair, strict=True)
                }
                for name, pair in self.figures.items()
            },
            "changes": [
                {
                    "what": what,
                    "item_id": change.item_id or None,
                    "record": change.place,
                    "truth": change.truth,
                    "a": change.answer_a,
                    "b": change.answer_b,
                }
                for what, changes in self.changes.items()
                for change in changes
            ],
        }


class AskedModel:
    """A model, and what its answers measure."""

    def __init__(self, name: str, folder: Path, question: Question) -> None:
        self._name, self._kind = name, question.find_kind()
        self._model = ServedModel.load(folder)
        self.tally = self._kind.tally(
            self._model.names, output=question.output, min_support=question.limits.min_support
        )
        self._signature: ServedSignature | None = None

    def add(self, records: Sequence[Record]) -> Scored:
        """Ask about records and measure the answers."""
        with self._named_in_errors():
            outputs = self._outputs([record.example for record in records])
            return self.tally.add(outputs, [record.truth for record in records])

    def answers(self, examples: Sequence[tf.train.Example]) -> Sequence[str]:
        """Ask about Examples without truths; return the answers in words."""
        with self._named_in_errors():
            return self.tally.answers(self._outputs(examples))

    def _outputs(self, examples: Sequence[tf.train.Example]) -> Outputs:
        if self._signature is None:
            self._signature, reason = self._model.judged(self._kind.signatures, examples[0])
            if self._signature is None:
                raise NotComparableError(self._name, reason)
        return self._signature.answer(examples)

    @contextlib.contextmanager
    def _named_in_errors(self) -> Iterator[None]:
        try:
            yield
        except (tf.errors.OpError, ValueError, TypeError, UnreadableAnswerError) as error:
            raise NotComparableError(self._name, brief(error)) from error


def compare_models(
    a: tuple[str, Path], b: tuple[str, Path], files: Sequence[str], question: Question
) -> ModelComparison:
    """Ask two models about the same records.

    Args:
        a: Name and SavedModel of the one.
        b: Of the other.
        files: TFRecord files of Examples.
        question: What both answer, and where the truth stands.

    Raises:
        ModelNotLoadableError: A model does not load.
        NotComparableError: A model does not answer, or not as its kind should.
        NothingToEvaluateError: There are no records.
        UnsupportedExamplesError: A record has no truth.
    """
    one, other = AskedModel(*a, question), AskedModel(*b, question)
    found = ModelComparison(changes={ONLY_A: [], ONLY_B: [], NEITHER: []})
    with track("compare the models", unit="records") as bar:
        for batch in Records(files, question).batches():
            _add(found, batch, one.add(batch), other.add(batch))
            bar.advance(len(batch))
    if not found.records:
        raise NothingToEvaluateError(["that were given"])
    found.changes = {what: sorted(kept, reverse=True) for what, kept in found.changes.items() if kept}
    found.by_class = dict(sorted(found.by_class.items()))
    ones, others = one.tally.figures(), other.tally.figures()
    found.metrics = dict(question.find_kind().metrics)
    found.figures = {
        name: (ones.get(name), others.get(name)) for name in found.metrics if {name} & {*ones, *others}
    }
    return found


def _add(found: ModelComparison, batch: Sequence[Record], a: Scored, b: Scored) -> None:
    errors_a, errors_b = (np.where(np.isnan(s.error), np.inf, s.error) for s in (a, b))
    is_a_better, is_b_better = errors_a < errors_b - _SAME, errors_b < errors_a - _SAME
    found.records += len(batch)
    found.only_a_right += int(is_a_better.sum())
    found.only_b_right += int(is_b_better.sum())
    for row, record in enumerate(batch):
        truth, answers = a.truth(row), (a.answer(row), b.answer(row))
        if a.pairs:
            counts = found.by_class.setdefault(truth, {"a": 0, "b": 0, "records": 0})
            counts["a"] += bool(errors_a[row] == 0)
            counts["b"] += bool(errors_b[row] == 0)
            counts["records"] += 1
        if answers[0] == answers[1]:
            found.same += 1
            continue
        what = ONLY_A if is_a_better[row] else ONLY_B if is_b_better[row] else NEITHER
        surprise = float(max(a.surprise[row], b.surprise[row]))
        change = Change(surprise, -record.place, record.item_id, truth, *answers)
        kept = found.changes[what]
        (heapq.heappush if len(kept) < MOST_CHANGES else heapq.heappushpop)(kept, change)


@contextlib.contextmanager
def examples_of(
    place: str, store: DatasetStore, splits: Sequence[str] = ()
) -> Iterator[tuple[list[str], Taxonomy | None]]:
    """Give the TFRecord files to compare on, and the taxonomy of their classes.

    Args:
        place: A folder or URL of `Split-*` folders, or `NAME@VERSION` of the store.
        store: The dataset store.
        splits: The splits; none takes those that are not trained on, or all where there is no other.

    Raises:
        DatasetNotFoundError, VersionNotFoundError: There is no such version.
        NoSplitsError: There are no Examples in the folder.
        NothingToEvaluateError: There is no such split.
    """
    with contextlib.ExitStack() as opened:
        taxonomy, trained = None, [TRAIN]
        reference = version_reference(place)
        if reference is not None:
            manifest = store.show(reference.name, reference.version)
            if manifest.taxonomy:
                taxonomy = Taxonomy.parse(manifest.taxonomy, f"of {manifest.dataset}@{manifest.version}")
            trained = manifest.training_splits
            scratch = opened.enter_context(tempfile.TemporaryDirectory(prefix="mlplatform-"))
            folder = store.checkout(manifest.dataset, manifest.version, Path(scratch) / "examples")
        else:
            folder = opened.enter_context(fetched(place))
        known, shards = list_shards(folder)
        chosen = list(splits) or [split for split in known if split not in trained] or known
        files = [shard.path for shard in shards if shard.split in chosen]
        if not files or {*chosen} - {*known}:
            raise NothingToEvaluateError(sorted({*chosen} - {*known}) or chosen)
        yield files, taxonomy


def write_comparison(
    path: Path, found: ModelComparison, names: tuple[str, str], files: Sequence[str]
) -> Path:
    """Write the page of a comparison, with pictures of the records whose answer changes.

    Args:
        path: The HTML file.
        found: What was found.
        names: What to call the models.
        files: TFRecord files of Examples that were compared on.
    """
    changes = {what: some[:MOST_CHANGES] for what, some in found.changes.items()}
    examples = read_examples(files, {change.place for some in changes.values() for change in some})

    def shown(change: Change) -> ChangedRecord:
        example = examples[change.place]
        photos = values_of(example, IMAGE)
        return ChangedRecord(
            picture=small_picture(photos[0]) if photos else "",
            item_id=change.item_id or f"record {change.place + 1}",
            truth=change.truth,
            answer_a=change.answer_a,
            answer_b=change.answer_b,
            features=() if photos else features_shown(example),
        )

    page = ComparePage(
        names=names,
        records=found.records,
        same=found.same,
        only_a_right=found.only_a_right,
        only_b_right=found.only_b_right,
        figures=[
            (found.metrics[name].title, _value(ones), _value(others))
            for name, (ones, others) in found.figures.items()
        ],
        by_class=found.by_class,
        changes={what: [shown(change) for change in some] for what, some in changes.items()},
    )
    return write_compare_page(path, page)


def _value(figure: Figure | None) -> float | None:
    return None if figure is None or math.isnan(figure.value) else figure.value
