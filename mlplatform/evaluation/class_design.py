"""Finds what the design of the classes makes hard: classes that a model cannot distinguish."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.evaluation.kind import Array
from mlplatform.evaluation.tests_of_chance import benjamini_hochberg, fisher_combined, poisson_tails

LOOKED_AT = 5  # first answers of a record
EACH_WAY = 0.01  # largest p-value of either way
FALSE_DISCOVERIES = 0.05  # share of the proposed pairs that chance may explain
_BITS = 32
_WAITING = 1 << 16  # codes that may wait before equal ones are counted; as many as are known, where more are

Int64s = npt.NDArray[np.int64]


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
    logs = poisson_tails(counts, support[truth] * rate[answer])
    # Each pair is there once for each way: the other way is looked up.
    codes = truth * size + answer
    order = np.argsort(codes)
    back = answer * size + truth
    place = np.searchsorted(codes[order], back).clip(max=len(codes) - 1)
    other = order[place]
    rows = np.flatnonzero((codes[other] == back) & (truth < answer))
    rows = rows[np.maximum(logs[rows], logs[other[rows]]) <= math.log(EACH_WAY)]
    joint = fisher_combined(logs[rows], logs[other[rows]])
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
