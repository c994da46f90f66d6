"""Ask a model, and its baseline, about every record; keep what does not grow with records times classes.

A plain loop in this process. A tally could be the accumulator of a Beam CombineFn: it would need to be merged
with another one, which sums of counts can and the samples of charts can by drawing again.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from mlplatform.components.model_validator.errors import NotAnsweredError
from mlplatform.components.model_validator.records import Record, Records
from mlplatform.components.model_validator.served_model import ServedModel, ServedSignature, brief
from mlplatform.components.model_validator.settings import Question
from mlplatform.evaluation.errors import UnreadableAnswerError
from mlplatform.evaluation.kind import Figure, Kind, Outputs, Scored, Tally
from mlplatform.progress import track

MISTAKES, MISTAKES_OF_PAIR = 24, 6
LARGEST_SLICES = 1000  # values of one slice that are measured
_SAME = 1e-9  # errors that differ by less are the same

Write = Callable[[Sequence[Record], Scored], None]


@dataclass(frozen=True, order=True)
class Mistake:
    """A record that is answered wrong; ordered by how surprising that is, then by its place from the end.

    Attributes:
        surprise: As its kind gives it.
        from_end: Its place among the records, from 0, negated.
        item_id: What a person finds it by; empty where it has none.
        truth: The truth in words.
        answer: The answer in words.
    """

    surprise: float
    from_end: int
    item_id: str
    truth: str
    answer: str

    @property
    def place(self) -> int:
        """Its place among the records, from 0."""
        return -self.from_end


class Mistakes:
    """The most surprising mistakes, of all records and of each confusion of two classes."""

    def __init__(self) -> None:
        self._all: list[Mistake] = []
        self._of_pair: dict[tuple[str, str], list[Mistake]] = {}
        self._pairs: Counter[tuple[str, str]] = Counter()

    def add(self, records: Sequence[Record], scored: Scored) -> None:
        """Look at a batch."""
        for row in np.flatnonzero(scored.surprise > 0).tolist():
            record, surprise = records[row], float(scored.surprise[row])
            if not scored.pairs and len(self._all) == MISTAKES and surprise <= self._all[0].surprise:
                continue
            mistake = Mistake(surprise, -record.place, record.item_id, scored.truth(row), scored.answer(row))
            _keep(self._all, mistake, MISTAKES)
            if scored.pairs:
                pair = (mistake.truth, mistake.answer)
                self._pairs[pair] += 1
                _keep(self._of_pair.setdefault(pair, []), mistake, MISTAKES_OF_PAIR)

    @property
    def surest(self) -> list[Mistake]:
        """The most surprising of all."""
        return sorted(self._all, reverse=True)

    def of_classes(self, labels: Iterable[str], most: int) -> dict[str, list[Mistake]]:
        """Return those of some classes, by class, at most `most` of each."""
        found: dict[str, list[Mistake]] = {label: [] for label in labels}
        for (truth, _), kept in self._of_pair.items():
            if truth in found:
                found[truth] += kept
        return {label: sorted(some, reverse=True)[:most] for label, some in found.items() if some}

    def most_confused(self, count: int) -> dict[tuple[str, str], list[Mistake]]:
        """Return those of the most frequent confusions, by (truth, answer)."""
        return {pair: sorted(self._of_pair[pair], reverse=True) for pair, _ in self._pairs.most_common(count)}


def _keep(heap: list[Mistake], mistake: Mistake, most: int) -> None:
    (heapq.heappush if len(heap) < most else heapq.heappushpop)(heap, mistake)


@dataclass(frozen=True)
class Slice:
    """The figures of the records with one value of a slice."""

    name: str
    records: int
    figures: Mapping[str, Figure]


class Measured:
    """What is measured of one model."""

    def __init__(self, model: ServedModel, question: Question, kind: Kind) -> None:
        self.model, self._question, self.kind = model, question, kind
        self.tally = self._empty()
        self.records = self.webp_photos = 0
        self.mistakes = Mistakes()
        self._slices: dict[str, Tally] = {}
        self._slice_records: Counter[str] = Counter()
        self._values: Counter[tuple[str, ...]] = Counter()  # values by slice
        self.unmeasured: set[tuple[str, ...]] = set()  # slices with too many of them
        self._not_finite = 0
        self._not_finite_slices: Counter[str] = Counter()
        self._first_not_finite = ""
        self._signature: ServedSignature | None = None

    def _empty(self) -> Tally:
        question = self._question
        return self.kind.tally(
            self.model.names, output=question.output, min_support=question.limits.min_support
        )

    def add(self, records: Sequence[Record]) -> Scored:
        """Ask the model about a batch and measure its answers.

        Raises:
            NotAnsweredError: It fails, or its outputs are no answer of the kind.
        """
        outputs = self._answers(records)
        truths = [record.truth for record in records]
        try:
            scored = self.tally.add(outputs, truths)
        except UnreadableAnswerError as error:
            raise NotAnsweredError(records[0].place, str(error)) from error
        self.records += len(records)
        self.webp_photos += sum(record.was_webp for record in records)
        self.mistakes.add(records, scored)
        self._add_slices(records, outputs)
        self._look_for_not_finite(records, scored)
        return scored

    def _answers(self, records: Sequence[Record]) -> Outputs:
        examples = [record.example for record in records]
        if self._signature is None:
            self._signature, reason = self.model.judged(self.kind.signatures, examples[0])
            if self._signature is None:
                raise NotAnsweredError(records[0].place, reason)
        # A kind may ask about more than the records, such as about altered photos.
        more = getattr(self.kind, "more_outputs", None)
        try:
            outputs = self._signature.answer(examples)
            if more is not None:
                outputs = {**outputs, **more(examples, self._signature.answer, records[0].place)}
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise NotAnsweredError(records[0].place, brief(error)) from error
        wrong = [name for name, array in outputs.items() if array.ndim and len(array) != len(records)]
        if wrong:
            cause = f"output {wrong[0]!r} has {len(outputs[wrong[0]])} rows for {len(records)} records"
            raise NotAnsweredError(records[0].place, cause)
        return outputs

    def _add_slices(self, records: Sequence[Record], outputs: Outputs) -> None:
        for number, names in enumerate(map(tuple, self._question.slices)):
            rows_of: dict[str, list[int]] = {}
            for row, record in enumerate(records):
                rows_of.setdefault(record.slices[number], []).append(row)
            for name, rows in rows_of.items():
                if name not in self._slices:
                    if self._values[names] == LARGEST_SLICES:
                        self.unmeasured.add(names)
                        continue
                    self._values[names] += 1
                    self._slices[name] = self._empty()
                self._slice_records[name] += len(rows)
                part = {key: array[rows] if array.ndim else array for key, array in outputs.items()}
                self._slices[name].add(part, [records[row].truth for row in rows])

    def _look_for_not_finite(self, records: Sequence[Record], scored: Scored) -> None:
        for row in np.flatnonzero(np.isnan(scored.error)).tolist():
            record = records[row]
            self._not_finite += 1
            self._not_finite_slices.update(record.slices)
            number = f"number {record.place + 1}"
            self._first_not_finite = self._first_not_finite or record.item_id or number

    def slices(self) -> list[Slice]:
        """Return the slices, those with most records first."""
        return [
            Slice(name, records, self._slices[name].figures())
            for name, records in sorted(self._slice_records.items(), key=lambda item: (-item[1], item[0]))
        ]

    def faults(self) -> list[str]:
        """Return why the model cannot be good, whatever the thresholds are."""
        faults = list(self.tally.faults())
        if self._not_finite:
            all_of = [n for n, count in self._not_finite_slices.items() if count == self._not_finite]
            where = f", all of them with {', '.join(all_of)}" if all_of else ""
            faults.append(
                f"the answers to {self._not_finite} of {self.records} records are not finite numbers, such "
                f"as that to record {self._first_not_finite}{where}"
            )
        return faults


class Comparison:
    """Counts records that one model answers better than the other."""

    def __init__(self) -> None:
        self.better = self.worse = 0

    def add(self, new: Scored, old: Scored) -> None:
        """Compare a batch; no finite answer is worse than any."""
        one, other = (np.where(np.isnan(s.error), np.inf, s.error) for s in (new, old))
        self.better += int((one < other - _SAME).sum())
        self.worse += int((one > other + _SAME).sum())


def score(
    new: Measured,
    records: Records,
    *,
    old: "Measured | None" = None,
    on_error: Callable[[Exception], Exception] | None = None,
    write: Write | None = None,
) -> Comparison:
    """Ask both models about all records.

    Args:
        new: The model that is judged.
        records: What it is asked about.
        old: The baseline, if there is one.
        on_error: Makes the error to raise of what fails while the baseline is asked.
        write: Takes each batch and its scores.

    Raises:
        NotAnsweredError: The judged model does not answer.
        UnsupportedExamplesError: A record has no truth.
        UnreadableLabelError: A record's truth cannot be one of the kind.
    """
    compared = Comparison()
    with track("evaluate the model", unit="records") as bar:
        for batch in records.batches():
            scored = new.add(batch)
            if old is not None:
                compared.add(scored, _add_old(old, batch, on_error))
            if write:
                write(batch, scored)
            bar.advance(len(batch))
    return compared


def _add_old(
    old: Measured, batch: Sequence[Record], on_error: Callable[[Exception], Exception] | None
) -> Scored:
    try:
        return old.add(batch)
    except Exception as error:
        raise (on_error(error) if on_error else error) from error


def quality_json(measured: Measured) -> dict[str, Any]:
    """Return all figures of a model as JSON values."""
    figures = measured.tally.figures()
    return {
        "records": measured.records,
        **{name: figure.as_json() for name, figure in figures.items()},
        **measured.tally.details(),
    }
