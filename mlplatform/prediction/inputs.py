"""Reads a piece of what predictions are made for: records as Examples, and why there is none."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from mlplatform.arrow import pa, pq
from mlplatform.prediction.errors import PredictionInputError
from mlplatform.prediction.pieces import Piece
from mlplatform.vision.examples import IMAGE, ITEM_ID, read_records

_ROWS = 1024  # of a Parquet file, read at a time
_KEYS = (ITEM_ID, "id", "path")


@dataclass(frozen=True)
class RejectedInput:
    """A record without a prediction.

    Attributes:
        key: What a person finds it by.
        reason: `unreadable` or `not_answered`.
        detail: What was found.
    """

    key: str
    reason: str
    detail: str


def read(piece: Piece) -> Iterator[tuple[str, tf.train.Example | RejectedInput]]:
    """Yield each record of a piece: what a person finds it by, and the Example or why there is none.

    Raises:
        PredictionInputError: A file is not what its name says.
    """
    if piece.form == "photos":
        yield from _photos(piece)
    elif piece.form == "parquet":
        yield from _rows(piece.files[0])
    else:
        yield from _examples(piece.files[0])


def _photos(piece: Piece) -> Iterator[tuple[str, tf.train.Example | RejectedInput]]:
    for file in piece.files:
        key = Path(file).relative_to(piece.root).as_posix()
        try:
            encoded = Path(file).read_bytes()
        except OSError as error:
            yield key, RejectedInput(key, "unreadable", error.strerror or str(error))
            continue
        example = tf.train.Example()
        example.features.feature[IMAGE].bytes_list.value.append(encoded)
        yield key, example


def _rows(file: str) -> Iterator[tuple[str, tf.train.Example | RejectedInput]]:
    number = 0
    try:
        table = pq.ParquetFile(file)
        for batch in table.iter_batches(_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield from _row(row, number)
    except (pa.ArrowInvalid, OSError) as error:
        raise PredictionInputError(file, f"it is not a Parquet file ({error})") from error


def _row(row: dict[str, object], number: int) -> Iterator[tuple[str, tf.train.Example | RejectedInput]]:
    example = tf.train.Example()
    key = next((str(row[name]) for name in _KEYS if row.get(name) is not None), f"row {number}")
    for name, value in row.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not values:  # as an Example without it
            continue
        feature = example.features.feature[name]
        if all(isinstance(one, (bool, int)) for one in values):
            feature.int64_list.value.extend(map(int, values))
        elif all(isinstance(one, (int, float)) for one in values):
            feature.float_list.value.extend(values)
        elif all(isinstance(one, (str, bytes)) for one in values):
            feature.bytes_list.value.extend(one.encode() if isinstance(one, str) else one for one in values)
        else:
            kinds = ", ".join(sorted({type(one).__name__ for one in values}))
            yield key, RejectedInput(key, "unreadable", f"column {name!r} holds {kinds}")
            return
    yield key, example


def _examples(file: str) -> Iterator[tuple[str, tf.train.Example | RejectedInput]]:
    number = 0
    try:
        for record in read_records([file]).as_numpy_iterator():
            number += 1
            try:
                example = tf.train.Example.FromString(record)
            except DecodeError:
                yield (
                    f"record {number}",
                    RejectedInput(f"record {number}", "unreadable", "it is not an Example"),
                )
                continue
            yield _key(example, number), example
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        found = f"it is not a TFRecord file, or cut short, after record {number} ({error.message})"
        raise PredictionInputError(file, found) from error


def _key(example: tf.train.Example, number: int) -> str:
    for name in _KEYS:
        feature = example.features.feature.get(name, None)
        if feature is not None and feature.bytes_list.value:
            return str(feature.bytes_list.value[0].decode("utf-8", "replace"))
        if feature is not None and feature.int64_list.value:
            return str(feature.int64_list.value[0])
    return f"record {number}"
