"""Predictions as files: a row per record, as Parquet or as TFRecord of Examples.

TensorFlow is loaded only to write a TFRecord: whether a file can be written is known before.
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.arrow import pa, pq
from mlplatform.prediction.errors import PredictionOutputError

SUFFIXES = (".parquet", ".tfrecord")
Column = NDArray[Any]


def check_output(place: str | os.PathLike[str]) -> Path:
    """Return where predictions are to be written, as an absolute path.

    Raises:
        PredictionOutputError: Its name ends otherwise, it exists, or there is no such folder.
    """
    path = Path(place).absolute()
    if path.suffix not in SUFFIXES:
        raise PredictionOutputError(str(place), f"its name must end in {' or '.join(SUFFIXES)}")
    if path.exists():
        raise PredictionOutputError(str(place), "it exists; delete it, or give another name")
    if not path.parent.is_dir():
        raise PredictionOutputError(str(place), f"the folder {path.parent} does not exist; create it first")
    return path


class PartWriter:
    """Writes the rows of one piece; they appear all at once, when the block ends without an error."""

    def __init__(self, path: Path, constants: Mapping[str, str]) -> None:
        """Begin a part.

        Args:
            path: The file; replaced if it exists. Its suffix decides on the form.
            constants: Columns that are the same in every row.
        """
        self._path, self._constants = path, constants
        self._partial = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
        self._parquet: Any = None
        self._records: Any = None
        self.rows = 0

    def __enter__(self) -> "PartWriter":
        return self

    def write(self, keys: Sequence[str], outputs: Mapping[str, Column]) -> None:
        """Append rows: their keys, and the outputs of the model, each [rows, ...]."""
        columns: dict[str, Any] = {"key": list(keys)}
        columns |= {name: [value] * len(keys) for name, value in self._constants.items()}
        columns |= {name: _values(array) for name, array in outputs.items()}
        self.rows += len(keys)
        if self._path.suffix == ".parquet":
            table = pa.table(columns)
            self._parquet = self._parquet or pq.ParquetWriter(str(self._partial), table.schema)
            self._parquet.write_table(table)
            return
        import tensorflow as tf

        self._records = self._records or tf.io.TFRecordWriter(str(self._partial))
        for row in range(len(keys)):
            example = tf.train.Example()
            for name, values in columns.items():
                _set(example.features.feature[name], values[row])
            self._records.write(example.SerializeToString())

    def __exit__(self, kind: object, *_: object) -> None:
        for writer in (self._parquet, self._records):
            if writer is not None:
                writer.close()
        if kind is None and self.rows:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)


def _values(array: Column) -> list[Any]:
    """Return one value, or one list of values, per row; text where it is text."""
    rows = array.reshape(len(array), -1) if array.ndim > 1 else array
    found = rows.tolist()
    if array.dtype.kind in "OS":
        return [[_text(one) for one in row] if isinstance(row, list) else _text(row) for row in found]
    return list(found)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _set(feature: Any, value: Any) -> None:
    values = value if isinstance(value, list) else [value]
    if values and isinstance(values[0], str):
        feature.bytes_list.value.extend(one.encode() for one in values)
    elif values and isinstance(values[0], (bool, int, np.integer)):
        feature.int64_list.value.extend(map(int, values))
    else:
        feature.float_list.value.extend(values)


def join_parts(parts: Sequence[Path], output: Path) -> None:
    """Write the rows of parts, one after the other, to one file, which appears whole."""
    partial = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
    try:
        if output.suffix == ".parquet":
            with pq.ParquetWriter(str(partial), pq.read_schema(str(parts[0]))) as writer:
                for part in parts:
                    for batch in pq.ParquetFile(str(part)).iter_batches():
                        writer.write_batch(batch)
        else:
            with partial.open("wb") as joined:
                for part in parts:
                    joined.write(part.read_bytes())
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
