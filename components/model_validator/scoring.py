"""Ask a model, and its baseline, about every record; keep what does not grow with records times classes.

A plain loop over some of the records. What it found of all parts of the records can be merged, in any order
(`scoring_on_beam`).
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from mlplatform.components.model_validator.errors import NotAnsweredError
from mlplatform.components.model_validator.records import Record, Records
from mlplatform.components.model_validator.settings import Question
from mlplatform.evaluation.errors import UnreadableAnswerError
from mlplatform.evaluation.kind import Figure, Kind, Outputs, Scored, Tally
from mlplatform.prediction.served_model import ServedModel, ServedSignature, brief
from mlplatform.progress import track

MISTAKES, MISTAKES_OF_PAIR = 24, 6
LARGEST_SLICES = 1000  # values of one slice that are measured
_SAME = 1e-9  # errors that differ by less are the same

Write = Callable[[Sequence[Record], Scored], None]


@dataclass(frozen=True, order=True)
class WrongAnswer:
    """A record that is answered wrong; ordered by how surprising that is, then by its place from the end.

    Attributes:
        surprise: As its kind gives it.
        from_end: The part of the records that it is in, and its place there, both from 0, negated.
        item_id: What a person finds it by; empty where it has none.
        truth: The truth in words.
        answer: The answer in words.
    """

    surprise: float
    from_end: tuple[int, int]
    item_id: str
    truth: str
    answer: str

    @property
    def where(self) -> tuple[int, int]:
        """The part of the records that it is in, and its place there, both from 0."""
        return -self.from_end[0], -self.from_end[1]


class WrongAnswers:
    """The most surprising mistakes, of all records and of each confusion of two classes."""

    def __init__(self) -> None:
        self._all: list[WrongAnswer] = []
        self._of_pair: dict[tuple[str, str], list[WrongAnswer]] = {}
        self._pairs: Counter[tuple[str, str]] = Counter()

    def add(self, records: Sequence[Record], scored: Scored) -> None:
        """Look at a batch."""
        for row in np.flatnonzero(scored.surprise > 0).tolist():
            record, surprise = records[row], float(scored.surprise[row])
            if not scored.pairs and len(self._all) == MISTAKES and surprise <= self._all[0].surprise:
                continue
            from_end = (-record.part, -record.place)
            mistake = WrongAnswer(surprise, from_end, record.item_id, scored.truth(row), scored.answer(row))
            _keep(self._all, mistake, MISTAKES)
            if scored.pairs:
                pair = (mistake.truth, mistake.answer)
                self._pairs[pair] += 1
                _keep(self._of_pair.setdefault(pair, []), mistake, MISTAKES_OF_PAIR)

    def merge(self, other: "WrongAnswers") -> None:
        """Add those of another part of the records."""
        for mistake in other._all:
            _keep(self._all, mistake, MISTAKES)
        self._pairs.update(other._pairs)
        for pair, mistakes in other._of_pair.items():
            for mistake in mistakes:
                _keep(self._of_pair.setdefault(pair, []), mistake, MISTAKES_OF_PAIR)

    @property
    def surest(self) -> list[WrongAnswer]:
        """The most surprising of all."""
        return sorted(self._all, reverse=True)

    def of_classes(self, labels: Iterable[str], most: int) -> dict[str, list[WrongAnswer]]:
        """Return those of some classes, by class, at most `most` of each."""
        found: dict[str, list[WrongAnswer]] = {label: [] for label in labels}
        for (truth, _), kept in self._of_pair.items():
            if truth in found:
                found[truth] += kept
        return {label: sorted(some, reverse=True)[:most] for label, some in found.items() if some}

    def of_pairs(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[WrongAnswer]]:
        """Return those of some confusions that there are, by (truth, answer)."""
        return {pair: sorted(self._of_pair[pair], reverse=True) for pair in pairs if pair in self._of_pair}

    def most_confused(self, count: int) -> dict[tuple[str, str], list[WrongAnswer]]:
        """Return those of the most frequent confusions, by (truth, answer)."""
        most = heapq.nsmallest(count, self._pairs.items(), lambda one: (-one[1], one[0]))
        return self.of_pairs(pair for pair, _ in most)


def _keep(heap: list[WrongAnswer], mistake: WrongAnswer, most: int) -> None:
    (heapq.heappush if len(heap) < most else heapq.heappushpop)(heap, mistake)


@dataclass(frozen=True)
class Slice:
    """The figures of the records with one value of a slice."""

    name: str
    records: int
    figures: Mapping[str, Figure]


class ScoredModel:
    """A model that is asked about records."""

    def __init__(self, model: ServedModel, kind: Kind) -> None:
        """Ask a loaded model through a signature that the kind can judge."""
        self.model, self._kind = model, kind
        self._signature: ServedSignature | None = None

    def answers(self, records: Sequence[Record]) -> Outputs:
        """Return the model's outputs for a batch.

        Raises:
            NotAnsweredError: It fails, or has no signature for such records.
        """
        examples = [record.example for record in records]
        if self._signature is None:
            self._signature, reason = self.model.judged(self._kind.signatures, examples[0])
            if self._signature is None:
                raise NotAnsweredError(records[0].place, reason)
        # A kind may ask about more than the records, such as about altered photos.
        more = getattr(self._kind, "more_outputs", None)
        # Of how many records the parts before are made is not known: theirs come before.
        place = records[0].place + (records[0].part << 32)
        try:
            outputs = self._signature.answer(examples)
            if more is not None:
                outputs = {**outputs, **more(examples, self._signature.answer, place)}
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise NotAnsweredError(records[0].place, brief(error)) from error
        wrong = [name for name, array in outputs.items() if array.ndim and len(array) != len(records)]
        if wrong:
            cause = f"output {wrong[0]!r} has {len(outputs[wrong[0]])} rows for {len(records)} records"
            raise NotAnsweredError(records[0].place, cause)
        return outputs


@dataclass
class _Slice:
    """What is measured of the records with one value of a slice."""

    tally: Tally
    records: int = 0


class Measured:
    """What is measured of one model, on all records or on a part of them."""

    def __init__(self, names: Sequence[str], question: Question, kind: Kind) -> None:
        """Begin without records; `names` are the class names that the model carries."""
        self._names, self._question, self.kind = names, question, kind
        self.tally = self._empty()
        self.records = self.webp_photos = 0
        self.mistakes = WrongAnswers()
        self._slices: dict[tuple[str, ...], dict[str, _Slice]] = {tuple(n): {} for n in question.slices}
        self._last_slices: dict[tuple[str, ...], tuple[bytes, str]] = {}  # of full ones: the largest hash
        self.unmeasured: set[tuple[str, ...]] = set()  # slices with too many values
        self._not_finite = 0
        self._not_finite_slices: Counter[str] = Counter()
        self._first_not_finite: tuple[int, int, str] | None = None

    def _empty(self) -> Tally:
        question = self._question
        return self.kind.tally(self._names, output=question.output, min_support=question.limits.min_support)

    def add(self, records: Sequence[Record], outputs: Outputs) -> Scored:
        """Measure the answers to a batch.

        Raises:
            NotAnsweredError: The outputs are no answer of the kind.
        """
        try:
            scored = self.tally.add(outputs, [record.truth for record in records])
        except UnreadableAnswerError as error:
            raise NotAnsweredError(records[0].place, str(error)) from error
        self.records += len(records)
        self.webp_photos += sum(record.was_webp for record in records)
        self.mistakes.add(records, scored)
        self._add_slices(records, outputs)
        self._look_for_not_finite(records, scored)
        return scored

    def merge(self, other: "Measured") -> None:
        """Add what was measured of the same model on another part of the records."""
        self.tally.merge(other.tally)
        self.records += other.records
        self.webp_photos += other.webp_photos
        self.mistakes.merge(other.mistakes)
        self.unmeasured |= other.unmeasured
        for names, parts in other._slices.items():
            for name, part in parts.items():
                found = self._slice(names, name)
                if found is not None:
                    found.tally.merge(part.tally)
                    found.records += part.records
        self._not_finite += other._not_finite
        self._not_finite_slices.update(other._not_finite_slices)
        firsts = [one for one in (self._first_not_finite, other._first_not_finite) if one is not None]
        self._first_not_finite = min(firsts, default=None)

    def _add_slices(self, records: Sequence[Record], outputs: Outputs) -> None:
        for number, names in enumerate(self._slices):
            rows_of: dict[str, list[int]] = {}
            for row, record in enumerate(records):
                rows_of.setdefault(record.slices[number], []).append(row)
            for name, rows in rows_of.items():
                found = self._slice(names, name)
                if found is None:
                    continue
                found.records += len(rows)
                part = {key: array[rows] if array.ndim else array for key, array in outputs.items()}
                found.tally.add(part, [records[row].truth for row in rows])

    def _slice(self, names: tuple[str, ...], name: str) -> _Slice | None:
        """Return what is measured of a slice's value; None for one beyond those with the smallest hashes.

        These are the same for every part of the records, so that each of them has all of its records.
        """
        parts = self._slices[names]
        if name not in parts:
            if len(parts) == LARGEST_SLICES:
                self.unmeasured.add(names)
                if names not in self._last_slices:
                    self._last_slices[names] = max((_hash(known), known) for known in parts)
                if _hash(name) > self._last_slices[names][0]:
                    return None
                del parts[self._last_slices.pop(names)[1]]
            parts[name] = _Slice(self._empty())
        return parts[name]

    def _look_for_not_finite(self, records: Sequence[Record], scored: Scored) -> None:
        for row in np.flatnonzero(np.isnan(scored.error)).tolist():
            record = records[row]
            self._not_finite += 1
            self._not_finite_slices.update(record.slices)
            if self._first_not_finite is None:
                name = record.item_id or f"number {record.place + 1}"
                self._first_not_finite = (record.part, record.place, name)

    def slices(self) -> list[Slice]:
        """Return the slices, those with most records first."""
        found = [
            (name, part.records, part.tally)
            for parts in self._slices.values()
            for name, part in parts.items()
        ]
        return [
            Slice(name, records, tally.figures())
            for name, records, tally in sorted(found, key=lambda one: (-one[1], one[0]))
        ]

    def faults(self) -> list[str]:
        """Return why the model cannot be good, whatever the thresholds are."""
        faults = list(self.tally.faults())
        if self._first_not_finite is not None:
            all_of = [n for n, count in self._not_finite_slices.items() if count == self._not_finite]
            where = f", all of them with {', '.join(all_of)}" if all_of else ""
            faults.append(
                f"the answers to {self._not_finite} of {self.records} records are not finite numbers, such "
                f"as that to record {self._first_not_finite[2]}{where}"
            )
        return faults


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


class Comparison:
    """Counts records that one model answers better than the other."""

    def __init__(self) -> None:
        self.better = self.worse = 0

    def add(self, new: Scored, old: Scored) -> None:
        """Compare a batch; no finite answer is worse than any."""
        one, other = (np.where(np.isnan(s.error), np.inf, s.error) for s in (new, old))
        self.better += int((one < other - _SAME).sum())
        self.worse += int((one > other + _SAME).sum())


@dataclass
class Scores:
    """What was found of a model and its baseline, on all records or on a part of them."""

    new: Measured
    old: Measured | None
    compared: Comparison

    def merge(self, other: "Scores") -> None:
        """Add what was found on another part of the records."""
        self.new.merge(other.new)
        if self.old is not None and other.old is not None:
            self.old.merge(other.old)
        self.compared.better += other.compared.better
        self.compared.worse += other.compared.worse


def score(
    records: Records,
    question: Question,
    new: ScoredModel,
    *,
    old: ScoredModel | None = None,
    on_error: Callable[[Exception], Exception] | None = None,
    write: Write | None = None,
) -> Scores:
    """Ask both models about all records.

    Args:
        records: What they are asked about.
        question: What they are to answer.
        new: The model that is judged.
        old: The baseline, if there is one.
        on_error: Makes the error to raise of what fails while the baseline is asked.
        write: Takes each batch and its scores.

    Raises:
        NotAnsweredError: The judged model does not answer.
        UnsupportedExamplesError: A record has no truth.
        UnreadableLabelError: A record's truth cannot be one of the kind.
    """
    kind = question.find_kind()
    of_new = Measured(new.model.names, question, kind)
    of_old = Measured(old.model.names, question, kind) if old is not None else None
    scores = Scores(of_new, of_old, Comparison())
    with track("evaluate the model", unit="records") as bar:
        for batch in records.batches():
            scored = of_new.add(batch, new.answers(batch))
            if old is not None and of_old is not None:
                scores.compared.add(scored, _add_old(old, of_old, batch, on_error))
            if write:
                write(batch, scored)
            bar.advance(len(batch))
    return scores


def _add_old(
    old: ScoredModel,
    measured: Measured,
    batch: Sequence[Record],
    on_error: Callable[[Exception], Exception] | None,
) -> Scored:
    try:
        return measured.add(batch, old.answers(batch))
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
