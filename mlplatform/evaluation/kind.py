"""What every kind of answer can do: the protocol that gate, report and comparison of models ask."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from mlplatform.reports.sections import Section

Array = NDArray[Any]
Outputs = Mapping[str, Array]  # a signature's outputs by name; the first dimension of each is the batch
Value = bytes | int | float  # a value of a tf.Example's feature
Truths = Sequence[Sequence[Value]]  # per record, the values of the label's feature


@dataclass(frozen=True)
class Metric:
    """A figure of quality that thresholds can name.

    Attributes:
        words: What reasons call it.
        title: What the report calls it.
        is_higher_better: Which way is better.
        low: Smallest value that it can have.
        high: Largest value that it can have; for infinity a change beside a baseline is a share of the
            baseline's value, else a difference.
    """

    words: str
    title: str
    is_higher_better: bool = True
    low: float = 0.0
    high: float = 1.0

    @property
    def is_bounded(self) -> bool:
        """It lies within fixed bounds, so that differences of it mean the same for every model."""
        return math.isfinite(self.high)

    def is_worse(self, value: float, limit: float) -> bool:
        """`value` does not reach `limit`; NaN reaches nothing."""
        return not (value >= limit if self.is_higher_better else value <= limit)


@dataclass(frozen=True)
class PartOfRecords:
    """A part of a figure that is judged by itself, such as the recall of one class.

    Attributes:
        words: What reasons call it.
        value: Its value.
        hits: Its records that are answered rightly, where the value is their share.
        records: Its records; 0 where the value is no share of records.
        is_supported: It has enough records to be judged by its value.
        name: What waivers call it, such as the class; empty where that is `words`.
    """

    words: str
    value: float
    hits: int = 0
    records: int = 0
    is_supported: bool = True
    name: str = ""


@dataclass(frozen=True)
class Figure:
    """The value of a metric.

    Attributes:
        value: The value.
        low: Lower end of its 95 % interval; None where none is known.
        high: Upper end.
        naive: What an answer that does not look at the record would get; None where that says nothing.
        naive_answer: That answer, in words.
        parts: What a threshold judges instead of the value, where it judges parts; those with few records
            are among them.
    """

    value: float
    low: float | None = None
    high: float | None = None
    naive: float | None = None
    naive_answer: str = ""
    parts: Sequence[PartOfRecords] | None = None

    def as_json(self) -> dict[str, float | None]:
        """Return value and interval; None for what is not measured."""
        value = None if math.isnan(self.value) else self.value
        return {"value": value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Scored:
    """How single records of a batch of n are answered.

    Attributes:
        error: float64 [n]: 0 for a right answer, more for a worse one; NaN where the answer is not a finite
            number. Two models are compared by it.
        surprise: float64 [n]: order in which wrong answers are shown, the highest first; 0 is not shown.
        truth: The truth of a record of the batch, in words.
        answer: Its answer, in words.
        pairs: Truth and answer are classes, so that records with the same two belong together.
        columns: What TensorFlow Model Analysis is given of each record; empty where it is given nothing.
    """

    error: Array
    surprise: Array
    truth: Callable[[int], str]
    answer: Callable[[int], str]
    pairs: bool = False
    columns: Mapping[str, Array] | None = None


class Tally(Protocol):
    """Measures answers batch by batch. Its memory does not grow with records times classes."""

    def finite(self, outputs: Outputs) -> Array:
        """Return, bool [n], which records of a batch have an answer of finite numbers.

        Raises:
            UnreadableAnswerError: The outputs are no answer of this kind.
        """
        ...

    def add(self, outputs: Outputs, truths: Truths) -> Scored:
        """Measure a batch; records whose answer is not finite count for no metric.

        Raises:
            UnreadableAnswerError: The outputs are no answer of this kind.
            UnreadableLabelError: A truth cannot be one of this kind.
        """
        ...

    def answers(self, outputs: Outputs) -> Sequence[str]:
        """Return the answer to each record of a batch in words, as the model gives it without any truth.

        Raises:
            UnreadableAnswerError: The outputs are no answer of this kind, or it has no words.
        """
        ...

    def merge(self, other: Any) -> None:
        """Add what another tally of the same model has measured on other records.

        Whatever the order in which the tallies of all parts are merged, the figures are those of one tally of
        all records, up to the rounding of sums.

        Args:
            other: A tally that the same kind made with the same arguments; is not changed.
        """
        ...

    def figures(self) -> Mapping[str, Figure]:
        """Return the metrics that these answers have, by name."""
        ...

    def details(self) -> Mapping[str, Any]:
        """Return what else was found, as JSON values."""
        ...

    def sections(self) -> Sequence[Section]:
        """Return what the report shows of it."""
        ...

    def notes(self) -> Sequence[str]:
        """Return what is worth knowing and is no reason to reject the model."""
        ...

    def faults(self) -> Sequence[str]:
        """Return why the model cannot be good, whatever the thresholds are, one sentence each."""
        ...


class Kind(Protocol):
    """A kind of answer, such as a class or a number. A class without arguments implements it.

    Attributes:
        signatures: Signatures to ask, the first that the model has.
        metrics: Metrics by name.
        primary: The metric that may not fall behind the baseline's, where no threshold says otherwise.
        tolerance: By how much it may: a difference, or a share of the baseline's where it has no bounds.
    """

    @property
    def signatures(self) -> Sequence[str]: ...

    @property
    def metrics(self) -> Mapping[str, Metric]: ...

    @property
    def primary(self) -> str: ...

    @property
    def tolerance(self) -> float: ...

    def tally(self, names: Sequence[str], *, output: str | None = None, min_support: int = 20) -> Tally:
        """Return an empty tally.

        Args:
            names: Class names that the model carries, in the order of its scores; empty where it has none.
            output: Name of the output that is the answer; None finds it by its name and shape.
            min_support: Records that a part, such as a class, needs to be judged by itself.
        """
        ...

    def change(self, better: int, worse: int) -> str:
        """Say how many records a model answers better, and worse, than its baseline."""
        ...
