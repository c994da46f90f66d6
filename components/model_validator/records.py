"""The records that a model is judged on: Examples with their truths, ids and slices, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from mlplatform.components.model_validator.errors import UnsupportedExamplesError
from mlplatform.components.model_validator.settings import Question
from mlplatform.evaluation.kind import Value
from mlplatform.prediction.served_model import features_in_words, values_of
from mlplatform.vision.examples import IMAGE, ITEM_ID, read_records, turn_webp

BATCH_PHOTOS, BATCH_ROWS = 32, 256
_ID_FEATURES = (ITEM_ID, "id", "path")


@dataclass(frozen=True)
class Record:
    """One record.

    Attributes:
        place: Its place in its part of the evaluation splits, from 0.
        example: The Example as it is sent to the model: without its truth, which no client knows.
        truth: Values of the label's feature.
        item_id: What a person finds it by; empty where it has none.
        slices: Its values by the question's slices.
        was_webp: Its photo was WebP, which was turned into PNG as this TensorFlow cannot read it.
        part: The part of the evaluation splits that its place counts in, from 0.
    """

    place: int
    example: tf.train.Example
    truth: tuple[Value, ...]
    item_id: str
    slices: tuple[str, ...]
    was_webp: bool = False
    part: int = 0


class Records:
    """Reads the records of the evaluation splits, as often as they are asked for."""

    def __init__(
        self,
        files: Sequence[str],
        question: Question,
        transform_dir: Path | None = None,
        *,
        part: int = 0,
    ) -> None:
        """Read nothing yet.

        Args:
            files: TFRecord files of Examples.
            question: Where the truth stands, and what slices there are.
            transform_dir: Transform's output; label and slices may then be features that it makes.
            part: Which part of all evaluation files these are, from 0.
        """
        self.files, self._question, self._part = files, question, part
        self.read = 0  # records that `batches` has yielded
        self._derived = _Derived(transform_dir, question) if transform_dir else None

    def batches(self) -> Iterator[list[Record]]:
        """Yield the records in the files' order.

        Raises:
            UnsupportedExamplesError: A record is not an Example, or has no truth.
        """
        first = self.samples(1)
        size = BATCH_PHOTOS if first and IMAGE in first[0].features.feature else BATCH_ROWS
        place = 0
        for batch in read_records(self.files).batch(size).prefetch(1).as_numpy_iterator():
            found = self._records(batch, place)
            self.read += len(found)
            yield found
            place += len(batch)

    def samples(self, count: int) -> list[tf.train.Example]:
        """Return the first Examples, at most `count`, as they are sent to the model.

        Raises:
            UnsupportedExamplesError: A record is not an Example, or has no truth.
        """
        batch = list(read_records(self.files).take(count).as_numpy_iterator())
        return [record.example for record in self._records(batch, 0)] if batch else []

    def _records(self, batch: Sequence[bytes], place: int) -> list[Record]:
        examples = [self._parsed(record, place + number) for number, record in enumerate(batch)]
        derived = self._derived.values(batch) if self._derived else {}

        def values(number: int, name: str) -> Sequence[Any]:
            return derived[name][number] if name in derived else values_of(examples[number], name)

        label = self._question.label
        found = []
        for number, example in enumerate(examples):
            truth = tuple(values(number, label))
            if not truth and label not in example.features.feature:
                raise self._without_truth(example, place + number)
            slices = tuple(
                ", ".join(f"{name} = {_in_words(values(number, name))}" for name in names)
                for names in self._question.slices
            )
            was_webp = bool(values_of(example, IMAGE)) and turn_webp(example)
            item_id = _item_id(example)
            example.features.feature.pop(label, None)
            found.append(
                Record(
                    place + number,
                    example,
                    truth,
                    item_id,
                    slices,
                    was_webp,
                    self._part,
                )
            )
        return found

    def _parsed(self, record: bytes, place: int) -> tf.train.Example:
        try:
            return tf.train.Example.FromString(record)
        except DecodeError as error:
            found = f"a record (number {place + 1}) that is not an Example"
            raise UnsupportedExamplesError(self._question.label, found) from error

    def _without_truth(self, example: tf.train.Example, place: int) -> UnsupportedExamplesError:
        label = self._question.label
        found = f"an Example (record {place + 1}) without it; it has {features_in_words(example)}"
        return UnsupportedExamplesError(label, found)


class _Derived:
    """Features that Transform makes of the raw ones."""

    def __init__(self, transform_dir: Path, question: Question) -> None:
        # Here, as most pipelines judge by what the Examples hold.
        import tensorflow_transform as tft

        output = tft.TFTransformOutput(str(transform_dir))
        self._spec = output.raw_feature_spec()
        wanted = {question.label, *(name for names in question.slices for name in names)}
        self._names = sorted((wanted - self._spec.keys()) & output.transformed_feature_spec().keys())
        self._layer = output.transform_features_layer()

    def values(self, records: Sequence[bytes]) -> dict[str, list[Sequence[Any]]]:
        """Return the values of those features that are wanted and that the records do not hold."""
        if not self._names:
            return {}
        made = self._layer(tf.io.parse_example(tf.constant(list(records)), self._spec))
        found = {}
        for name in self._names:
            column = made[name]
            dense = tf.sparse.to_dense(column) if isinstance(column, tf.SparseTensor) else column
            found[name] = [np.ravel(row).tolist() for row in dense.numpy()]
        return found


def _item_id(example: tf.train.Example) -> str:
    for name in _ID_FEATURES:
        values = values_of(example, name)
        if values:
            return _in_words(values)
    return ""


def _in_words(values: Sequence[Any]) -> str:
    if not values:
        return "(missing)"
    texts = [
        v.decode("utf-8", "replace") if isinstance(v, bytes) else f"{v:g}" if isinstance(v, float) else str(v)
        for v in values[:5]
    ]
    return " ".join(texts)[:100]
