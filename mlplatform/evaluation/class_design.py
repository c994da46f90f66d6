"""Finds what the design of the classes makes hard: classes that look alike, and those that are two things."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.evaluation.kind import Array
from mlplatform.evaluation.tests_of_chance import (
    benjamini_hochberg,
    fisher_combined,
    log_hypergeometric_tail,
    poisson_tails,
)

LOOKED_AT = 5  # first answers of a record
EACH_WAY = 0.01  # largest p-value of either way
FALSE_DISCOVERIES = 0.05  # share of the proposed pairs that chance may explain
_BITS = 32
_WAITING = 1 << 16  # codes that may wait before equal ones are counted; as many as are known, where more are
KEPT_RECORDS = 64  # of a class, whose first answers are kept to see whether they are of two kinds
_LEAST_RECORDS = 12  # of a class, before its records can be of two kinds
_LEAST_SIDE = 0.2  # share of the records of a class that have a class among their first answers
_MOST_BOTH = 0.25  # of the records that would have both of two classes by chance
_NONE = -1

Int64s = npt.NDArray[np.int64]
_Rows = tuple[Array, Array, Array]  # of records: classes, first answers, what chooses them


class Neighbours:
    """Counts which classes are among a record's first answers beside its own.

    Memory grows with the number of different pairs of classes, at most the square of the classes.
    """

    def __init__(self) -> None:
        self._codes, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._waiting: list[Int64s] = []
        self._waiting_size = 0

    def add(self, truth: Array, best: Array) -> None:
        """Count a batch.

        Args:
            truth: int [n]: classes of the records.
            best: int [n, k]: best classes of the answers, best first; those after `LOOKED_AT` are ignored.
        """
        answers = best[:, :LOOKED_AT].astype(np.int64)
        codes = (truth.astype(np.int64)[:, None] << _BITS) | answers
        self._wait(codes[answers != truth[:, None]])

    def _wait(self, codes: Int64s) -> None:
        self._waiting.append(codes)
        self._waiting_size += codes.size
        if self._waiting_size >= max(_WAITING, len(self._codes)):
            self._compact()

    def _compact(self) -> None:
        codes, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *self._waiting]), return_counts=True)
        self._waiting, self._waiting_size = [], 0
        self._codes, self._counts = _summed(
            np.concatenate([self._codes, codes]), np.concatenate([self._counts, counts])
        )

    def merge(self, other: "Neighbours", places: Int64s) -> None:
        """Add what another one counted.

        Args:
            other: It.
            places: int [classes of the other]: the place here of each of its classes.
        """
        truth, answers, counts = other.counted()
        codes = (places[truth] << _BITS) | places[answers]
        self._compact()
        self._codes, self._counts = _summed(
            np.concatenate([self._codes, codes]), np.concatenate([self._counts, counts])
        )

    def counted(self) -> tuple[Int64s, Int64s, Int64s]:
        """Return the pairs as three arrays: the record's class, the other class, how often that was."""
        self._compact()
        return self._codes >> _BITS, self._codes & ((1 << _BITS) - 1), self._counts


def _summed(codes: Int64s, counts: Int64s) -> tuple[Int64s, Int64s]:
    found, inverse = np.unique(codes, return_inverse=True)
    return found, np.bincount(inverse.reshape(-1), counts, minlength=len(found)).astype(np.int64)


@dataclass(frozen=True)
class LookAlikes:
    """Two classes that the model takes for each other, both ways and more often than chance does.

    Attributes:
        one: A class.
        other: The other.
        one_as_other: Records of the first that have the second among their first `LOOKED_AT` answers.
        one_records: Records of the first.
        other_as_one: The other way round.
        other_records: Records of the second.
        log_p: Natural logarithm of the p-value of both ways together.
    """

    one: str
    other: str
    one_as_other: int
    one_records: int
    other_as_one: int
    other_records: int
    log_p: float

    @property
    def closeness(self) -> float:
        """How regularly either is taken for the other, 0 to 1: few records count for less."""
        ways = (self.one_as_other, self.one_records), (self.other_as_one, self.other_records)
        first, second = (count / (records + 2) for count, records in ways)
        return float((first * second) ** 0.5)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**self.__dict__, "closeness": round(self.closeness, 4)}


def look_alikes(neighbours: Neighbours, names: Sequence[str], support: Array) -> list[LookAlikes]:
    """Return the pairs of classes that are taken for each other beyond chance, the closest first.

    By chance, a record would have a class among its first answers as often as the records of all other
    classes have it. Each way must exceed that with a p-value of at most `EACH_WAY`, and both together
    (Fisher's method) so far that of all pairs that are proposed, the share `FALSE_DISCOVERIES` may be chance.

    Args:
        neighbours: What was counted.
        names: Class names.
        support: int [classes]: records of each class.
    """
    truth, answer, counts = neighbours.counted()
    size, records = len(names), int(support.sum())
    if not counts.size:
        return []
    support = np.pad(support, (0, size - len(support)))
    seen = np.bincount(answer, counts, minlength=size)
    rate = seen / np.maximum(records - support, 1)
    # Each pair is there once for each way: the other way is looked up.
    codes = truth * size + answer
    order = np.argsort(codes)
    back = answer * size + truth
    place = np.searchsorted(codes[order], back).clip(max=len(codes) - 1)
    other = order[place]
    rows = np.flatnonzero((codes[other] == back) & (truth < answer))
    logs, back_logs = (
        poisson_tails(counts[way], support[truth[way]] * rate[answer[way]]) for way in (rows, other[rows])
    )
    beyond_chance = np.maximum(logs, back_logs) <= math.log(EACH_WAY)
    rows = rows[beyond_chance]
    joint = fisher_combined(logs[beyond_chance], back_logs[beyond_chance])
    classes = int((support > 0).sum())
    kept = benjamini_hochberg(joint, classes * (classes - 1) // 2, FALSE_DISCOVERIES)
    found = [
        LookAlikes(
            one=names[truth[row]],
            other=names[answer[row]],
            one_as_other=int(counts[row]),
            one_records=int(support[truth[row]]),
            other_as_one=int(counts[other[row]]),
            other_records=int(support[answer[row]]),
            log_p=float(log_p),
        )
        for row, log_p in zip(rows[kept].tolist(), joint[kept].tolist(), strict=True)
    ]
    return sorted(found, key=lambda pair: (-pair.closeness, pair.one, pair.other))


def clusters(pairs: Sequence[LookAlikes]) -> list[list[str]]:
    """Return sets of three and more classes in which each is a look-alike of at least half of the others.

    Pairs are joined the closest first; two sets are joined where most of what lies between them are pairs.
    """
    linked = {frozenset((pair.one, pair.other)) for pair in pairs}
    cluster_of: dict[str, list[str]] = {}
    for pair in pairs:
        first = cluster_of.setdefault(pair.one, [pair.one])
        second = cluster_of.setdefault(pair.other, [pair.other])
        if first is second:
            continue
        between = sum(frozenset((a, b)) in linked for a in first for b in second)
        if 2 * between >= len(first) * len(second):
            first += second
            for label in second:
                cluster_of[label] = first
    found = {id(labels): sorted(labels) for labels in cluster_of.values() if len(labels) > 2}
    return sorted(found.values(), key=lambda labels: (-len(labels), labels))


class Neighbourhoods:
    """The first answers to some records of each class, at most `KEPT_RECORDS` of each.

    Which records are kept depends on their answers alone, not on the order in which they come or on how they
    are divided into parts.
    """

    def __init__(self) -> None:
        self._kept: _Rows = np.zeros(0, np.int64), np.zeros((0, LOOKED_AT), np.int64), np.zeros(0, np.uint64)
        self._waiting: list[_Rows] = []
        self._waiting_size = 0

    def add(self, truth: Array, best: Array, scores: Array) -> None:
        """Keep a batch.

        Args:
            truth: int [n]: classes of the records.
            best: int [n, k]: best classes of the answers, best first; those after `LOOKED_AT` are ignored.
            scores: float [n, k]: their scores.
        """
        answers = np.full((len(truth), LOOKED_AT), _NONE, np.int64)
        columns = min(best.shape[1], LOOKED_AT)
        answers[:, :columns] = best[:, :columns]
        self._wait((truth.astype(np.int64), answers, _draws(scores)))

    def merge(self, other: "Neighbourhoods", places: Int64s) -> None:
        """Add what another one kept.

        Args:
            other: It.
            places: int [classes of the other]: the place here of each of its classes.
        """
        truth, answers, draws = other.kept()
        if len(truth):
            moved = np.where(answers == _NONE, _NONE, places[answers])
            self._wait((places[truth], moved, draws))

    def kept(self) -> _Rows:
        """Return what is kept, by class: the records' classes, first answers, and what chose them."""
        if self._waiting:
            truth, answers, draws = (
                np.concatenate(parts) for parts in zip(self._kept, *self._waiting, strict=True)
            )
            order = np.lexsort((draws, truth))
            truth, answers, draws = truth[order], answers[order], draws[order]
            starts = np.flatnonzero(np.diff(truth, prepend=_NONE))
            place = np.arange(len(truth)) - np.repeat(starts, np.diff(starts, append=len(truth)))
            chosen = place < KEPT_RECORDS
            self._kept = truth[chosen], answers[chosen], draws[chosen]
            self._waiting, self._waiting_size = [], 0
        return self._kept

    def _wait(self, rows: _Rows) -> None:
        self._waiting.append(rows)
        self._waiting_size += len(rows[0])
        if self._waiting_size >= max(_WAITING, len(self._kept[0])):
            self.kept()


def _draws(scores: Array) -> Array:
    """Return a number for each record, uint64 [n], that is as if it were drawn: a hash of its best scores."""
    pair = np.zeros((len(scores), 2), np.float32)
    pair[:, : min(scores.shape[1], 2)] = scores[:, :2]
    mixed = pair.view(np.uint64)[:, 0]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


@dataclass(frozen=True)
class TwoThings:
    """A class whose records are of two kinds: some are near one class, others near another, few near both.

    Attributes:
        label: The class.
        one: A class that is among the first `LOOKED_AT` answers to some of its records.
        other: A class that is among those to others.
        as_one: Records with the first one.
        as_other: Records with the other one.
        as_both: Records with both.
        records: Records of the class that were looked at.
        log_p: Natural logarithm of the probability that so few have both where the two have nothing to do
            with each other.
    """

    label: str
    one: str
    other: str
    as_one: int
    as_other: int
    as_both: int
    records: int
    log_p: float

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return dict(self.__dict__)


def two_things(neighbourhoods: Neighbourhoods, names: Sequence[str]) -> list[TwoThings]:
    """Return the classes that may be two things, the surest first.

    A class is proposed where two others are each among the first answers to many of its records, and so
    rarely to the same ones that chance does not explain it; of all that are proposed, the share
    `FALSE_DISCOVERIES` may be chance.

    Args:
        neighbourhoods: What was kept.
        names: Class names.
    """
    truth, answers, _ = neighbourhoods.kept()
    if not len(truth):
        return []
    starts = np.flatnonzero(np.diff(truth, prepend=_NONE))
    tests = 0
    found: list[TwoThings] = []
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(truth)], strict=True):
        if end - start >= _LEAST_RECORDS:
            place = int(truth[start])
            pairs, best = _sides(place, answers[start:end], names)
            tests += pairs
            found += [best] if best else []
    kept = benjamini_hochberg([one.log_p for one in found], tests, FALSE_DISCOVERIES)
    proposed = [one for one, is_kept in zip(found, kept.tolist(), strict=True) if is_kept]
    return sorted(proposed, key=lambda one: (one.log_p, one.label))


def _sides(place: int, answers: Array, names: Sequence[str]) -> tuple[int, TwoThings | None]:
    """Return how many pairs of classes lie near a class's records, and the pair that divides them best."""
    records = len(answers)
    near, counts = np.unique(answers, return_counts=True)
    near = near[(counts >= _LEAST_SIDE * records) & (near != place) & (near != _NONE)]
    has = (answers[:, :, None] == near).any(axis=1).astype(np.int64)
    together, each = has.T @ has, has.sum(axis=0)
    best = None
    for a, b in zip(*np.triu_indices(len(near), 1), strict=True):
        one, other, both = int(each[a]), int(each[b]), int(together[a, b])
        if both <= _MOST_BOTH * one * other / records:
            log_p = log_hypergeometric_tail(both, one, other, records)
            if best is None or log_p < best.log_p:
                pair = names[near[a]], names[near[b]]
                best = TwoThings(names[place], *pair, one, other, both, records, log_p)
    return len(near) * (len(near) - 1) // 2, best
