"""Exports a version as Parquet: one file per split, one column per feature."""

import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlplatform.datasets.checkout import live_records
from mlplatform.datasets.errors import CheckoutTargetError, NotExamplesError
from mlplatform.datasets.features import decode
from mlplatform.datasets.line import Line
from mlplatform.datasets.manifest import Manifest, PackFacts
from mlplatform.datasets.pack_records import Batch, read_batches
from mlplatform.datasets.walk import walk
from mlplatform.progress import Task, track


@dataclass
class _Column:
    """How a feature is written: widened when a later record needs it."""

    kind: str = "null"  # null, int64, float32, string, binary
    is_list: bool = False

    def type(self) -> Any:
        import pyarrow as pa

        value = pa.null() if self.kind == "null" else getattr(pa, self.kind)()
        return pa.list_(value) if self.is_list else value


class _SchemaGrewError(Exception):
    """A record does not fit the columns that are being written."""


def export(line: Line, manifest: Manifest, folder: str | os.PathLike[str]) -> Path:
    """Write a version as Parquet; see `DatasetStore.export`."""
    target = Path(folder).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckoutTargetError(str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    columns: dict[str, _Column] = {}
    try:
        while True:  # once more only where a later record needed wider columns
            partial.mkdir()
            try:
                _write(line, manifest, partial, columns)
                break
            except _SchemaGrewError:
                shutil.rmtree(partial)
        partial.replace(target)
    finally:
        if partial.exists():
            shutil.rmtree(partial)
    return target


def _write(line: Line, manifest: Manifest, folder: Path, columns: dict[str, _Column]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with track("export records", manifest.records) as bar:
        for split in sorted(manifest.splits):
            writer, schema = None, None
            try:
                for table in _tables(line, manifest, split, columns, bar):
                    now = pa.schema([(name, columns[name].type()) for name in sorted(columns)])
                    if schema is not None and now != schema:
                        raise _SchemaGrewError
                    if writer is None:
                        schema, writer = now, pq.ParquetWriter(folder / f"{split}.parquet", now)
                    arrays = [
                        _array(table.get(name), columns[name], now.field(name).type, table[""])
                        for name in now.names
                    ]
                    writer.write_table(pa.table(arrays, schema=now))
                if writer is None:
                    schema = pa.schema([(name, columns[name].type()) for name in sorted(columns)])
                    writer = pq.ParquetWriter(folder / f"{split}.parquet", schema)
            finally:
                if writer is not None:
                    writer.close()


def _tables(
    line: Line, manifest: Manifest, split: str, columns: dict[str, _Column], bar: Task
) -> Iterator[dict[str, Any]]:
    """Yield the features of some records at a time, by name; under "" how many records they are."""
    packs = {pack.name: pack for pack in manifest.packs}
    for (owner, name), rows in live_records(line, manifest).items():
        if owner != split:
            continue
        copies = rows.copies()
        chosen = np.flatnonzero(copies)
        for batch in read_batches(line.storage, line.dataset, packs[name], chosen):
            features = _features(line, packs[name], batch)
            for feature, values in features.items():
                _widen(columns.setdefault(feature, _Column()), values)
            times = copies[batch.rows]
            if (times > 1).any():
                index = np.repeat(np.arange(times.size), times).tolist()
                features = {
                    feature: [values[place] for place in index] for feature, values in features.items()
                }
            yield {**features, "": int(times.sum())}
            bar.advance(int(times.sum()))


def _features(line: Line, pack: PackFacts, batch: Batch) -> dict[str, list[Any]]:
    walked = walk(batch.buffer, batch.starts, batch.ends)
    if not walked.is_plain.all():
        bad = int(np.count_nonzero(~walked.is_plain))
        raise NotExamplesError(line.dataset, pack.name, bad)
    data = batch.buffer.data
    features: dict[bytes, list[Any]] = {}
    for entry in walked.entries:
        there = np.flatnonzero(entry.is_there)
        begins, sizes = entry.value[there].tolist(), entry.value_size[there].tolist()
        for record, key, begin, size in zip(there.tolist(), entry.keys(there), begins, sizes, strict=True):
            if key not in features:
                features[key] = [None] * batch.rows.size
            features[key][record] = decode(bytes(data[begin : begin + size]))
    return {key.decode("utf-8", "backslashreplace"): values for key, values in features.items()}


def _widen(column: _Column, values: list[Any]) -> None:
    for value in values:
        if value is None:
            continue
        column.is_list |= len(value) != 1
        for one in value:
            column.kind = _wider(column.kind, one)


def _wider(kind: str, value: Any) -> str:
    if isinstance(value, bytes):
        if kind == "binary":
            return kind
        try:
            value.decode()
        except UnicodeDecodeError:
            return "binary"
        return "string"
    return "float32" if isinstance(value, float) or kind == "float32" else "int64"


def _array(values: list[Any] | None, column: _Column, kind: Any, records: int) -> Any:
    import pyarrow as pa

    if values is None:
        return pa.nulls(records, kind)

    def one(value: Any) -> Any:
        return value.decode() if column.kind == "string" and isinstance(value, bytes) else value

    if column.is_list:
        rows = [None if value is None else [one(each) for each in value] for value in values]
    else:
        rows = [None if value is None else one(value[0]) for value in values]
    return pa.array(rows, kind)
