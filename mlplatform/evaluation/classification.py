"""One class per record: accuracies, classes, confusions, calibration."""

import copy
import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from mlplatform.evaluation.class_design import (
    LOOKED_AT,
    LookAlikes,
    Neighbourhoods,
    Neighbours,
    TwoThings,
    clusters,
    look_alikes,
    two_things,
)
from mlplatform.evaluation.errors import UnreadableAnswerError, UnreadableLabelError
from mlplatform.evaluation.kind import Array, Figure, Metric, Outputs, PartOfRecords, Scored, Truths, Value
from mlplatform.evaluation.outputs import column, described, is_number, numbers, sigmoid, softmax
from mlplatform.evaluation.statistics import SCORE_BINS, area_under_roc, mean, score_bin, share
from mlplatform.reports.sections import Cell, Matrix, Section, Table
from mlplatform.taxonomy import LEVELS, Taxonomy

TOP = 10  # best classes of an answer that are looked at; a class beyond them has the rank NOT_FOUND
NOT_FOUND = TOP
CONFUSED_PAIRS = 50
_BINS = 10
_LEAST_PROBABILITY = 1e-7
_CLASSES_SHOWN, _PAIRS_SHOWN, _MATRIX_CLASSES = 60, 20, 10
_NAME = "classification"
_SCORES = ("probabilities", "scores", "logits", "logistic")
_NAMES = ("classes", "class_names")
# Answers whose best scores differ by less than this are the same.
_SAME = 1e-6
_MIN_CONSTANT = 10  # records, before the same answer to all of them means anything
_TAIL = 0.2  # share of the classes, those with fewest records, that make the tail
_PROPOSALS, _PROPOSALS_SHOWN, _CLUSTERS_SHOWN, _TWO_THINGS_SHOWN = 500, 60, 20, 20
_SUPPORTS = (1, 2, 5, 10, 20, 50, 100)  # from which on classes are shown together

Self = TypeVar("Self", bound="Classification")


def _levels() -> dict[str, Metric]:
    """Return the metrics of the levels of a taxonomy."""
    found = {}
    for level in LEVELS:
        name = level.replace("_", " ")
        found[f"{level}_top_1"] = Metric(f"top-1 by {name}", f"first answer right by {name}")
        found[f"{level}_top_5"] = Metric(f"top-5 by {name}", f"among the first five by {name}")
    return found


class Classification:
    """One class per record.

    A model's answer is read from `probabilities`, `scores` or `logits` [batch, classes] with the class names
    of `assets/labels.txt`, from `classes` and `scores` [batch, k] as TensorFlow Serving's Classify gives
    them, or from one probability [batch] or [batch, 1] of the second of two classes. Without names the
    classes are numbered from 0.
    """

    signatures = ("serving_default",)
    metrics: Mapping[str, Metric] = {
        "top_1": Metric("top-1", "first answer right"),
        "top_3": Metric("top-3", "among the first three"),
        "top_5": Metric("top-5", "among the first five"),
        "balanced_recall": Metric("balanced recall", "mean recall of the classes"),
        "per_class_recall": Metric("recall of the worst class", "recall of the worst class"),
        "per_class_top_5": Metric("top-5 of the worst class", "among the first five, of the worst class"),
        "tail_top_1": Metric("top-1 of the rarest fifth of the classes", "first answer right, rarest fifth"),
        "tail_top_5": Metric(
            "top-5 of the rarest fifth of the classes", "among the first five, rarest fifth"
        ),
        **_levels(),
        "auc": Metric("AUC", "area under the ROC curve"),
        "log_loss": Metric("log loss", "log loss", is_higher_better=False, high=math.inf),
        "expected_calibration_error": Metric(
            "expected calibration error", "expected calibration error", is_higher_better=False
        ),
    }
    primary, tolerance = "top_1", 0.02
    taxonomy: Taxonomy | None = None

    def with_taxonomy(self: Self, taxonomy: Taxonomy) -> Self:
        """Return the kind for classes of a taxonomy.

        Names that were given up count as those that took their place, for records and models alike, and
        figures are computed for each of its levels: an answer with the same group, or below the same node,
        is right there.
        """
        made = copy.copy(self)
        made.taxonomy = taxonomy
        return made

    def tally(
        self, names: Sequence[str], *, output: str | None = None, min_support: int = 20
    ) -> "ClassTally":
        """Return an empty tally."""
        return ClassTally(names, output, min_support, self.taxonomy)

    def change(self, better: int, worse: int) -> str:
        """Say how many records are answered otherwise."""
        return f"{worse} records that it answered right are now wrong, {better} the other way round"


@dataclass(frozen=True)
class _Read:
    """Answers to n records.

    Attributes:
        best: int [n, k]: best classes, best first.
        scores: float [n, k]: their scores.
        probabilities: float [n, classes]; None where only the best classes are known.
    """

    best: Array
    scores: Array
    probabilities: Array | None


@dataclass(frozen=True)
class ClassFigures:
    """One class.

    Attributes:
        label: Its name.
        support: Its records.
        right: Those that are answered right.
        in_five: Those that have it among the first five answers.
        recall: Share of them that are answered right.
        precision: Share of the records answered with this class that are of it; None where there are none.
        top_5: Share of its records that have it among the first five answers.
        mistaken_for: The class that its records are most often taken for; empty where none is.
    """

    label: str
    support: int
    right: int
    in_five: int
    recall: Figure
    precision: float | None
    top_5: float
    mistaken_for: str

    def as_json(self) -> dict[str, Any]:
        """Return the class as JSON values."""
        return {**self.__dict__, "recall": self.recall.as_json()}


class ClassTally:
    """Measures classes; memory grows with the number of classes, and of different confusions."""

    def __init__(
        self, names: Sequence[str], output: str | None, min_support: int, taxonomy: Taxonomy | None = None
    ) -> None:
        self._output, self._min_support = output, min_support
        self._taxonomy = taxonomy or Taxonomy()
        self._names = [self._taxonomy.current(name) for name in names]
        self._place: dict[str, int] = {}
        for place, name in enumerate(self._names):
            self._place.setdefault(name, place)
        # Where several of an older model's classes are one now, their place is the first one's.
        self._joined = np.array([self._place[name] for name in self._names], np.int64)
        self._has_names = self._names_are_all = bool(names)
        self._has_digits = any(name.isdecimal() for name in names)
        self._known = len(self._names)  # classes beyond are of records only: the model cannot answer them
        self.records = self._not_finite = 0
        self._hits = np.zeros(NOT_FOUND + 1, np.int64)  # records by rank of their class
        self._support, self._right, self._in_five, self._answered = (np.zeros(0, np.int64) for _ in range(4))
        self._confused: Counter[tuple[int, int]] = Counter()
        self._loss = self._squared_loss = 0.0
        self._bin_records, self._bin_right = np.zeros(_BINS, np.int64), np.zeros(_BINS, np.int64)
        self._bin_confidence = np.zeros(_BINS)
        self._ranked: Array | None = None  # [2, SCORE_BINS]: records by class and score; for two classes
        self._lowest, self._highest = math.inf, -math.inf
        self._neighbours, self._neighbourhoods = Neighbours(), Neighbourhoods()
        self._design: tuple[int, list[LookAlikes], list[TwoThings]] = (0, [], [])
        self._nodes: dict[tuple[str, str], int] = {}  # numbers of the nodes of all levels
        self._node_of = {level: np.zeros(0, np.int64) for level in self._taxonomy.levels}  # by class
        self._level_hits = {level: np.zeros(NOT_FOUND + 1, np.int64) for level in self._node_of}

    def finite(self, outputs: Outputs) -> Array:
        """Return which records have finite scores."""
        return np.asarray(np.isfinite(self._read(outputs).scores).all(axis=1))

    def answers(self, outputs: Outputs) -> Sequence[str]:
        """Return the first class of each record."""
        return [self._names[place] for place in self._read(outputs).best[:, 0].tolist()]

    def add(self, outputs: Outputs, truths: Truths) -> Scored:
        """Measure a batch."""
        read = self._read(outputs)
        truth = np.array([self._class_of(values) for values in truths], np.int64)
        is_finite = np.isfinite(read.scores).all(axis=1)
        hits = read.best == truth[:, None]
        ranks = np.where(hits.any(axis=1), hits.argmax(axis=1), NOT_FOUND)
        self._count(_Read(read.best[is_finite], read.scores[is_finite], _rows(read.probabilities, is_finite)),
                    truth[is_finite], ranks[is_finite])  # fmt: skip
        self._not_finite += int((~is_finite).sum())
        wrong = (ranks > 0).astype(np.float64)
        return Scored(
            error=np.where(is_finite, wrong, np.nan),
            surprise=np.where(is_finite, wrong * np.maximum(read.scores[:, 0], 1e-12), 0.0),
            truth=lambda row: self._names[truth[row]],
            answer=lambda row: self._names[read.best[row, 0]],
            pairs=True,
            columns={"rank": ranks, "label": np.array([self._names[t] for t in truth], object)},
        )

    def _count(self, read: _Read, truth: Array, ranks: Array) -> None:
        if not len(truth):
            return
        classes = len(self._names)
        first, is_right = read.best[:, 0], ranks == 0
        self.records += len(truth)
        self._hits += np.bincount(ranks, minlength=NOT_FOUND + 1)
        self._support = _added(self._support, truth, classes)
        self._right = _added(self._right, truth[is_right], classes)
        self._in_five = _added(self._in_five, truth[ranks < 5], classes)
        self._answered = _added(self._answered, first, classes)
        self._confused.update(zip(truth[~is_right].tolist(), first[~is_right].tolist(), strict=True))
        self._neighbours.add(truth, read.best)
        self._neighbourhoods.add(truth, read.best, read.scores)
        for level, hits in self._level_hits.items():
            nodes = self._nodes_of_classes(level)
            found = nodes[read.best] == nodes[truth][:, None]
            hits += np.bincount(
                np.where(found.any(axis=1), found.argmax(axis=1), NOT_FOUND), minlength=NOT_FOUND + 1
            )
        loss = -np.log(np.clip(self._probability_of(read, truth, ranks), _LEAST_PROBABILITY, 1.0))
        self._loss += float(loss.sum())
        self._squared_loss += float((loss**2).sum())
        confidence = read.scores[:, 0].astype(np.float64)
        bins = np.clip((confidence * _BINS).astype(np.int64), 0, _BINS - 1)
        self._bin_records += np.bincount(bins, minlength=_BINS)
        self._bin_right += np.bincount(bins[is_right], minlength=_BINS)
        self._bin_confidence += np.bincount(bins, confidence, minlength=_BINS)
        self._lowest = min(self._lowest, float(confidence.min()))
        self._highest = max(self._highest, float(confidence.max()))
        if self._known == 2 and read.best.shape[1] == 2:
            self._rank(read, truth)

    def merge(self, other: "ClassTally") -> None:
        """Add another tally; classes that only records have lie at other places in it."""
        places = np.array([self._merged_place(name) for name in other._names], np.int64)
        self._has_names |= other._has_names
        self._names_are_all |= other._names_are_all
        self._known = max(self._known, other._known) if self._names_are_all else len(self._names)
        self.records += other.records
        self._not_finite += other._not_finite
        self._hits += other._hits
        size = len(self._names)
        self._support = _moved(self._support, other._support, places, size)
        self._right = _moved(self._right, other._right, places, size)
        self._in_five = _moved(self._in_five, other._in_five, places, size)
        self._answered = _moved(self._answered, other._answered, places, size)
        for (truth, answer), count in other._confused.items():
            self._confused[int(places[truth]), int(places[answer])] += count
        self._merge_design(other, places)
        self._loss += other._loss
        self._squared_loss += other._squared_loss
        self._bin_records += other._bin_records
        self._bin_right += other._bin_right
        self._bin_confidence += other._bin_confidence
        self._lowest, self._highest = min(self._lowest, other._lowest), max(self._highest, other._highest)
        if other._ranked is not None:
            self._ranked = other._ranked + (0 if self._ranked is None else self._ranked)

    def _merged_place(self, name: str) -> int:
        if name not in self._place:
            self._place[name] = len(self._names)
            self._names.append(name)
        return self._place[name]

    def _nodes_of_classes(self, level: str) -> Array:
        """Return the number of each class's node at a level."""
        known = self._node_of[level]
        if len(known) < len(self._names):
            more = [self._taxonomy.node(name, level) for name in self._names[len(known) :]]
            numbers = [self._nodes.setdefault(node, len(self._nodes)) for node in more]
            self._node_of[level] = np.concatenate([known, np.array(numbers, np.int64)])
        return self._node_of[level]

    def _merge_design(self, other: "ClassTally", places: Array) -> None:
        """Add what another tally of the same taxonomy found of the design of the classes.

        Args:
            other: It.
            places: int [classes of the other]: the place here of each of its classes.
        """
        self._neighbours.merge(other._neighbours, places)
        self._neighbourhoods.merge(other._neighbourhoods, places)
        for level, hits in other._level_hits.items():
            self._level_hits[level] += hits

    def _rank(self, read: _Read, truth: Array) -> None:
        """Count records by the score of the second class."""
        if self._ranked is None:
            self._ranked = np.zeros((2, SCORE_BINS), np.int64)
        bins = score_bin(np.where(read.best[:, 0] == 1, read.scores[:, 0], read.scores[:, 1]))
        for place in (0, 1):
            self._ranked[place] += np.bincount(bins[truth == place], minlength=SCORE_BINS)

    def _probability_of(self, read: _Read, truth: Array, ranks: Array) -> Array:
        rows = np.arange(len(truth))
        known = truth < self._known
        if read.probabilities is not None:
            return np.where(known, read.probabilities[rows, np.where(known, truth, 0)], 0.0)
        found = ranks < read.scores.shape[1]
        return np.where(found, read.scores[rows, np.where(found, ranks, 0)], 0.0)

    def _read(self, outputs: Outputs) -> _Read:
        named = next((n for n in _NAMES if n in outputs and not is_number(outputs[n])), None)
        if self._output is None and "probabilities" not in outputs and named is not None:
            return self._read_named(outputs, named)
        name, found = numbers(outputs, _NAME, _SCORES, self._output)
        found = found.astype(np.float64) if found.dtype.itemsize < 4 else found
        if found.ndim == 1 or found.shape[1:] == (1,):
            return self._best(_of_two(column(found, _NAME, name), name))
        if found.ndim != 2:
            raise UnreadableAnswerError(_NAME, described(outputs), "Answer [batch, classes].")
        return self._best(_probabilities(found, name))

    def _read_named(self, outputs: Outputs, named: str) -> _Read:
        """Read `classes` and `scores`, in any order, as TensorFlow Serving's Classify gives them."""
        classes = outputs[named]
        name, scores = numbers(outputs, _NAME, ("scores",), None)
        if classes.ndim == 1:
            classes, scores = classes[:, None], scores.reshape(len(scores), -1)
        if classes.shape != scores.shape or classes.ndim != 2:
            remedy = f"{named!r} and {name!r} must have the same shape, [batch, classes]."
            raise UnreadableAnswerError(_NAME, described(outputs), remedy)
        texts, inverse = np.unique(classes.astype(bytes), return_inverse=True)
        places = np.array([self._answerable(text.decode("utf-8", "replace")) for text in texts], np.int64)
        ids = places[inverse.reshape(classes.shape)]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        best = np.take_along_axis(ids, order, axis=1)
        return _Read(best, np.take_along_axis(scores, order, axis=1).astype(np.float64), None)

    def _answerable(self, name: str) -> int:
        """Return the place of a class that the model names in its answers."""
        self._has_names = True
        name = self._taxonomy.current(name)
        if name not in self._place:
            self._place[name] = len(self._names)
            self._names.append(name)
        if not self._names_are_all:
            self._known = len(self._names)
        return self._place[name]

    def _best(self, probabilities: Array) -> _Read:
        count = probabilities.shape[1]
        if not self._names:
            self._names_are_all = True
            self._names = [str(number) for number in range(count)]
            self._place = {name: place for place, name in enumerate(self._names)}
            self._known = count
        if count != self._known:
            raise UnreadableAnswerError(
                _NAME,
                f"it has {count} scores per record, and the model names {self._known} classes",
                "Correct assets/labels.txt: one class name a line, in the order of the scores.",
            )
        if len(self._place) < len(self._names) and len(self._joined) == count:
            probabilities = _summed(probabilities, self._joined)
        best = _best(probabilities, min(TOP, count))
        return _Read(best, np.take_along_axis(probabilities, best, axis=1), probabilities)

    def _class_of(self, values: Sequence[Value]) -> int:
        if len(values) != 1:
            raise UnreadableLabelError(
                _NAME, f"it has {len(values)} values", "A record has one class; several are kind multi_label."
            )
        name = self._taxonomy.current(class_name(values[0]))
        if name not in self._place:
            if not self._has_names and self._names and not name.isdecimal():
                raise UnreadableLabelError(
                    _NAME,
                    f"{name[:80]!r}, while the model numbers its classes 0 to {len(self._names) - 1}",
                    "Export the model with its class names in assets/labels.txt, one a line in the order of "
                    "its scores, or let it answer `classes`.",
                )
            number = -1 if isinstance(values[0], bytes) or self._has_digits else int(values[0])
            if 0 <= number < self._known:
                return number  # a class given by its place among the names
            self._place[name] = len(self._names)
            self._names.append(name)
        return self._place[name]

    def figures(self) -> Mapping[str, Figure]:
        """Return the metrics."""
        records = self.records
        if not records:
            return {}
        common = int(self._support.argmax())
        naive = {"naive": float(self._support.max() / records), "naive_answer": repr(self._names[common])}
        classes = [c for c in self.classes if c.support]
        judged = [c for c in classes if c.support >= self._min_support]
        with_support = [c.recall.value for c in classes]
        tail = sorted(classes, key=lambda c: (c.support, c.label))[: math.ceil(_TAIL * len(classes))]
        of_tail = sum(c.support for c in tail)
        top_1 = share(int(self._hits[0]), records)
        found = {
            "top_1": Figure(top_1.value, top_1.low, top_1.high, **naive),  # type: ignore[arg-type]
            "top_3": share(int(self._hits[:3].sum()), records),
            "top_5": share(int(self._hits[:5].sum()), records),
            "balanced_recall": Figure(
                float(np.mean(with_support)),
                naive=1 / len(with_support) if len(with_support) > 1 else None,
                naive_answer=repr(self._names[common]),
            ),
            "per_class_recall": Figure(
                min((c.recall.value for c in judged), default=math.nan),
                parts=self._parts("recall", classes, [c.right for c in classes]),
            ),
            "per_class_top_5": Figure(
                min((c.top_5 for c in judged), default=math.nan),
                parts=self._parts("top-5", classes, [c.in_five for c in classes]),
            ),
            "tail_top_1": share(sum(c.right for c in tail), of_tail),
            "tail_top_5": share(sum(c.in_five for c in tail), of_tail),
            **{f"{level}_top_1": share(int(hits[0]), records) for level, hits in self._level_hits.items()},
            **{
                f"{level}_top_5": share(int(hits[:5].sum()), records)
                for level, hits in self._level_hits.items()
            },
            "log_loss": mean(self._loss, self._squared_loss, records),
            "expected_calibration_error": Figure(
                float(np.abs(self._bin_confidence - self._bin_right).sum() / records)
            ),
        }
        if self._ranked is not None:
            found["auc"] = Figure(area_under_roc(self._ranked[1], self._ranked[0]), naive=0.5,
                                  naive_answer="the same score")  # fmt: skip
        return found

    def _parts(self, words: str, classes: Sequence[ClassFigures], hits: Sequence[int]) -> list[PartOfRecords]:
        return [
            PartOfRecords(
                f"{words} of class {one.label!r}",
                count / one.support,
                count,
                one.support,
                is_supported=one.support >= self._min_support,
                name=one.label,
            )
            for one, count in zip(classes, hits, strict=True)
        ]

    @property
    def classes(self) -> list[ClassFigures]:
        """Every class that has records or was answered, the most certainly bad first.

        That is the one whose recall is lowest at the upper end of its 95 % interval, so that a class with one
        record is not before one with a hundred.
        """
        worst: dict[int, tuple[int, str]] = {}
        for (truth, answer), count in self._confused.items():
            worst[truth] = max(worst.get(truth, (0, "")), (count, self._names[answer]))
        size = len(self._names)
        support, right, in_five, answered = (
            np.pad(counts, (0, size - len(counts))).tolist()
            for counts in (self._support, self._right, self._in_five, self._answered)
        )
        found = [
            ClassFigures(
                label=self._names[place],
                support=support[place],
                right=right[place],
                in_five=in_five[place],
                recall=share(right[place], support[place]),
                precision=right[place] / answered[place] if answered[place] else None,
                top_5=in_five[place] / support[place] if support[place] else 0.0,
                mistaken_for=worst.get(place, (0, ""))[1],
            )
            for place in range(size)
            if support[place] or answered[place]
        ]
        return sorted(found, key=lambda c: (c.support == 0, c.recall.high, c.recall.value, c.label))

    @property
    def unknown_labels(self) -> dict[str, int]:
        """Records of classes that the model does not know, by class; they count as wrong."""
        if not self._names_are_all:
            return {}
        return {
            self._names[place]: int(self._support[place])
            for place in range(self._known, len(self._support))
            if self._support[place]
        }

    def confused_pairs(self, most: int) -> list[tuple[str, str, int, float]]:
        """Return the most frequent confusions: truth, answer, records, share of the class."""
        return [
            (self._names[truth], self._names[answer], count, count / int(self._support[truth]))
            for (truth, answer), count in heapq.nsmallest(
                most, self._confused.items(), lambda one: (-one[1], *(self._names[p] for p in one[0]))
            )
        ]

    def details(self) -> Mapping[str, Any]:
        """Return classes, confusions, and classes that the model does not know."""
        pairs = self.confused_pairs(CONFUSED_PAIRS)
        alike = self.look_alikes
        return {
            "unknown_labels": self.unknown_labels,
            "classes": [c.as_json() for c in self.classes],
            "confused_pairs": [
                {"truth": truth, "answer": answer, "records": count, "share_of_truth": part}
                for truth, answer, count, part in pairs
            ],
            "look_alikes": [pair.as_json() for pair in alike[:_PROPOSALS]],
            "clusters": clusters(alike),
            "two_things": [one.as_json() for one in self.two_things[:_PROPOSALS]],
            "without_records": self.without_records,
        }

    @property
    def look_alikes(self) -> list[LookAlikes]:
        """Pairs of classes that are taken for each other both ways beyond chance and are in no group yet."""
        return self._found_of_design()[1]

    @property
    def two_things(self) -> list[TwoThings]:
        """Classes whose records are of two kinds, each near another class."""
        return self._found_of_design()[2]

    def _found_of_design(self) -> tuple[int, list[LookAlikes], list[TwoThings]]:
        """Return of how many records it was found, and what; gate and report ask for it several times."""
        if self._design[0] != self.records:
            found = look_alikes(self._neighbours, self._names, self._support)
            group = self._taxonomy.groups and (lambda name: self._taxonomy.node(name, LEVELS[0]))
            alike = [pair for pair in found if not group or group(pair.one) != group(pair.other)]
            self._design = self.records, alike, two_things(self._neighbourhoods, self._names)
        return self._design

    @property
    def without_records(self) -> list[str]:
        """Classes that the model knows and no record is of: nothing is known of them."""
        support = np.pad(self._support, (0, len(self._names) - len(self._support)))
        return sorted({name for name in self._names[: self._known] if not support[self._place[name]]})

    def sections(self) -> Sequence[Section]:
        """Return the table of classes, where the worst ones go, and the confusions."""
        classes = self.classes
        pairs = self.confused_pairs(_PAIRS_SHOWN)
        left_out = max(len(classes) - _CLASSES_SHOWN, 0)
        found: list[Section] = []
        if len(classes) > _MATRIX_CLASSES:
            found.append(self._by_support(classes))
        if classes:
            found.append(
                Table(
                    "Classes, worst first",
                    [
                        "Class",
                        "Records#",
                        "Recall#",
                        "",
                        "95 %#",
                        "Precision#",
                        "Among five#",
                        "Mostly taken for",
                    ],
                    [_class_row(c) for c in classes[:_CLASSES_SHOWN]],
                    note=f"{left_out:,} better classes are in metrics.json." if left_out else "",
                )
            )
        matrix = self.matrix(_MATRIX_CLASSES)
        if matrix.labels:
            found.append(matrix)
        if pairs:
            rows: list[list[Cell | str]] = [
                [t, Cell(a, tone="bad"), str(count), f"{100 * part:.1f} %"] for t, a, count, part in pairs
            ]
            columns = ["A record of", "is answered", "Records#", "Share of the class#"]
            found.append(Table("What it confuses most", columns, rows))
        found += self._proposals()
        if self.records:
            found.append(self._calibration())
        return found

    def _by_support(self, classes: Sequence[ClassFigures]) -> Table:
        """Return how good rare and frequent classes are."""
        rows: list[list[Cell | str]] = []
        for low, high in zip(_SUPPORTS, [*_SUPPORTS[1:], math.inf], strict=True):
            some = [c for c in classes if low <= c.support < high]
            records = sum(c.support for c in some)
            if not some:
                continue
            name = (
                f"{low} or more"
                if high == math.inf
                else f"{low}"
                if high == low + 1
                else f"{low} to {high - 1}"
            )
            cells: list[Cell | str] = [name, f"{len(some):,}", f"{records:,}"]
            for hits in (sum(c.right for c in some), sum(c.in_five for c in some)):
                figure = share(hits, records)
                low_end, high_end = figure.low or 0.0, figure.high or 0.0
                cells += [
                    f"{100 * figure.value:.1f} %",
                    Cell(f"{100 * low_end:.0f} % to {100 * high_end:.0f} %", tone="soft"),
                ]
            rows.append(cells)
        without = len(self.without_records)
        return Table(
            "Rare and frequent classes",
            [
                "Records of a class",
                "Classes#",
                "Records#",
                "First answer right#",
                "95 %#",
                "Among five#",
                "95 %#",
            ],
            rows,
            note=f"{without:,} classes of the model have no record here: nothing is known of them."
            if without
            else "",
        )

    def _proposals(self) -> list[Section]:
        """Return classes that may have to be one, or a group, or two."""
        return [*self._alike(), *self._two_things()]

    def _two_things(self) -> list[Section]:
        """Return classes that may have to be two."""
        two = self.two_things
        if not two:
            return []
        left_out = len(two) - _TWO_THINGS_SHOWN
        return [
            Table(
                "Classes that may be two things",
                [
                    "Class",
                    "Some are like",
                    "Others like",
                    "Records#",
                    "Like the first#",
                    "Like the other#",
                    "Both#",
                ],
                [
                    [c.label, c.one, c.other, *map(str, (c.records, c.as_one, c.as_other, c.as_both))]
                    for c in two[:_TWO_THINGS_SHOWN]
                ],
                text=f"Two other classes are among the first {LOOKED_AT} answers to many of its records, "
                "and to the same ones less often than chance would have it. Look at its photos: a class "
                "that holds two things may be split, in the dataset's taxonomy.",
                note=f"{left_out:,} more are in metrics.json." if left_out > 0 else "",
            )
        ]

    def _alike(self) -> list[Section]:
        """Return pairs and clusters of classes that the model confuses."""
        alike = self.look_alikes
        if not alike:
            return []

        def way(count: int, records: int) -> str:
            return f"{count:,} of {records:,}"

        left_out = len(alike) - _PROPOSALS_SHOWN
        found: list[Section] = [
            Table(
                "Classes that it confuses both ways",
                ["Class", "and", "Closeness#", "First, with the second#", "Second, with the first#"],
                [
                    [
                        pair.one,
                        pair.other,
                        f"{pair.closeness:.2f}",
                        way(pair.one_as_other, pair.one_records),
                        way(pair.other_as_one, pair.other_records),
                    ]
                    for pair in alike[:_PROPOSALS_SHOWN]
                ],
                text=f"Each is among the first {LOOKED_AT} answers to the other's records, both ways and "
                "beyond chance. Classes that mean the same may be merged, and those that a photo does not "
                "distinguish be declared a group, in the dataset's taxonomy.",
                note=f"{left_out:,} more pairs are in metrics.json." if left_out > 0 else "",
            )
        ]
        if joined := clusters(alike):
            rows = [[str(len(labels)), ", ".join(labels)] for labels in joined[:_CLUSTERS_SHOWN]]
            found.append(Table("Clusters of such classes", ["Classes#", "Their names"], rows))
        return found

    def _calibration(self) -> Table:
        """Return how often answers are right, by their confidence."""
        rows: list[list[Cell | str]] = []
        for number in range(_BINS):
            records = int(self._bin_records[number])
            if records:
                right = share(int(self._bin_right[number]), records)
                rows.append(
                    [
                        f"{100 * number // _BINS} % to {100 * (number + 1) // _BINS} %",
                        f"{records:,}",
                        f"{100 * self._bin_confidence[number] / records:.1f} %",
                        f"{100 * right.value:.1f} %",
                        Cell(
                            f"{100 * (right.low or 0):.0f} % to {100 * (right.high or 0):.0f} %", tone="soft"
                        ),
                    ]
                )
        return Table(
            "Calibration",
            ["Confidence", "Records#", "Mean confidence#", "Right#", "95 %#"],
            rows,
            text="Of a calibrated model, answers are right as often as its confidence says.",
        )

    def matrix(self, size: int) -> Matrix:
        """Return how records of the classes with most wrong answers are answered, at most `size` classes."""
        wrong: Counter[int] = Counter()
        for (truth, _), count in self._confused.items():
            wrong[truth] += count
        places = sorted(wrong, key=lambda place: (-wrong[place], self._names[place]))[:size]
        counts = [
            [int(self._right[t]) if t == a and t < len(self._right) else self._confused[t, a] for a in places]
            for t in places
        ]
        others = [int(self._support[t]) - sum(row) for t, row in zip(places, counts, strict=True)]
        text = (
            f"The {len(places)} classes with most wrong answers: a row is what a record is, a column what "
            "the model answers, in records."
        )
        return Matrix("Where the worst classes go", text, [self._names[p] for p in places], counts, others)

    def notes(self) -> Sequence[str]:
        """Tell of classes that the model does not know."""
        unknown = self.unknown_labels
        if not unknown:
            return []
        names = ", ".join(f"{label} ({count})" for label, count in sorted(unknown.items())[:5])
        return [f"{len(unknown)} classes are unknown to the model; counted as wrong: {names}"]

    def faults(self) -> Sequence[str]:
        """Say so where every record gets the same answer, or the model knows none of their classes."""
        classes = int((self._support > 0).sum())
        if self.records < _MIN_CONSTANT or classes < 2:
            return []
        if self._hits[:NOT_FOUND].sum() == 0 and len(self.unknown_labels) == classes:
            names = ", ".join(repr(name) for name in sorted(self.unknown_labels)[:3])
            known = ", ".join(repr(name) for name in self._names[: min(self._known, 3)])
            return [f"the model knows none of the records' classes ({names}, ...); its own are {known}, ..."]
        if int((self._answered > 0).sum()) == 1 and self._highest - self._lowest < _SAME:
            name = self._names[int(self._answered.argmax())]
            return [
                f"the model gives the same answer, {name!r} with a score of {self._highest:.4f}, to all "
                f"{self.records} records: it does not look at them"
            ]
        return []


def class_name(value: Value) -> str:
    """Return the name of a class that a feature's value gives; a whole number is its digits."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(int(value)) if float(value).is_integer() else str(value)


def _rows(array: Array | None, rows: Array) -> Array | None:
    return None if array is None else array[rows]


def _added(counts: Array, places: Array, size: int) -> Array:
    """Return counts with one more at each of the places; they grow to `size`."""
    return np.asarray(np.pad(counts, (0, size - len(counts))) + np.bincount(places, minlength=size))


def _moved(counts: Array, others: Array, places: Array, size: int) -> Array:
    """Return counts with others added, whose k-th stands for place `places[k]`; they grow to `size`."""
    grown = np.pad(counts, (0, size - len(counts)))
    np.add.at(grown, places[: len(others)], others)
    return np.asarray(grown)


def _summed(probabilities: Array, places: Array) -> Array:
    """Return probabilities in which those of several classes with the same place are added up there."""
    summed = np.zeros_like(probabilities)
    np.add.at(summed.T, places, probabilities.T)
    return summed


def _of_two(values: Array, name: str) -> Array:
    """Return probabilities [n, 2] from one number per record."""
    finite = values[np.isfinite(values)]
    if name == "logits":
        values = sigmoid(values)
    elif len(finite) and (finite.min() < 0 or finite.max() > 1):
        raise UnreadableAnswerError(
            _NAME,
            f"output {name!r} has one number per record, from {finite.min():.4g} to {finite.max():.4g}, "
            "which is not a probability",
            "Name the output 'logits' if it is one before the sigmoid, or set kind='regression'.",
        )
    return np.stack([1 - values, values], axis=1)


def _probabilities(values: Array, name: str) -> Array:
    """Return probabilities from an output [n, classes], which may be logits."""
    finite = values[np.isfinite(values).all(axis=1)]
    if name != "logits":
        if not len(finite) or (finite.min() >= -1e-4 and np.abs(finite.sum(axis=1) - 1).max() < 1e-2):
            return values
        if finite.min() >= 0 and finite.max() <= 1:
            raise UnreadableAnswerError(
                _NAME,
                f"the numbers of output {name!r} lie between 0 and 1 and do not sum to 1 for each record",
                "Name the output 'logits' if it is one before the softmax, or set kind='multi_label'.",
            )
    return np.where(np.isfinite(values).all(axis=1, keepdims=True), softmax(np.nan_to_num(values)), np.nan)


def _best(probabilities: Array, count: int) -> Array:
    """Return the places of the highest values of each row, best first; equal ones in the order of classes."""
    rough = np.sort(np.argpartition(-probabilities, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(probabilities, rough, axis=1), axis=1, kind="stable")
    return np.take_along_axis(rough, order, axis=1).astype(np.int64)


def _class_row(c: ClassFigures) -> list[Cell | str]:
    low, high = c.recall.low or 0.0, c.recall.high or 0.0
    return [
        c.label,
        str(c.support),
        f"{100 * c.recall.value:.1f} %" if c.support else "",
        Cell(bar=c.recall.value),
        Cell(f"{100 * low:.0f} % to {100 * high:.0f} %" if c.support else "", tone="soft"),
        f"{100 * c.precision:.1f} %" if c.precision is not None else "",
        f"{100 * c.top_5:.1f} %" if c.support else "",
        c.mistaken_for,
    ]
