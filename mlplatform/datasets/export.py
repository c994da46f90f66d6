"""Exports a version as Parquet: one file per split, one column per feature.

The records are read twice: the first time says which types the columns need.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplatform.datasets.checkout import live_records
from mlplatform.datasets.errors import MixedTypesError, NotExamplesError
from mlplatform.datasets.format.columns import Column, columns
from mlplatform.datasets.format.live import Live
from mlplatform.datasets.format.manifest import Manifest, PackFacts
from mlplatform.datasets.format.pack import read_index
from mlplatform.datasets.format.pack_records import read_batches
from mlplatform.datasets.format.tfrecord import Int64s
from mlplatform.datasets.line import Line
from mlplatform.datasets.notes import record_copy
from mlplatform.datasets.reading import reading
from mlplatform.datasets.whole_folder import whole_folder
from mlplatform.progress import track

if TYPE_CHECKING:
    from mlplatform.arrow import pa

_LARGEST_EXACT = 2**53  # integers up to here are float64 without loss


@dataclass
class _Needs:
    """What the records so far ask of a feature's column.

    Attributes:
        first: Pack and row of the first record of each kind: `bytes`, `float32` or `int64`, and `large int64`
            for integers that no float64 holds exactly.
        is_list: A record has not exactly one value.
        is_text: All byte strings so far are UTF-8.
    """

    first: dict[str, tuple[PackFacts, int]] = field(default_factory=dict)
    is_list: bool = False
    is_text: bool = True

    def add(self, column: Column, pack: PackFacts, rows: Int64s) -> None:
        for kind, part in column.parts.items():
            self.first.setdefault(kind, (pack, int(rows[part.records[0]])))
            self.is_list |= bool((np.diff(part.lists.offsets) != 1).any())
            values = part.lists.values
            if kind == "bytes":
                self.is_text = self.is_text and _is_text(values)
            elif kind == "int64":
                numbers = values.to_numpy()
                is_large = (numbers > _LARGEST_EXACT) | (numbers < -_LARGEST_EXACT)
                if "large int64" not in self.first and is_large.any():
                    at = np.searchsorted(part.lists.offsets, np.argmax(is_large), "right") - 1
                    self.first["large int64"] = pack, int(rows[part.records[at]])
        self.is_list |= bool(column.is_empty.any())

    def conflict(self) -> tuple[str, str] | None:
        """Return two kinds that no column holds together."""
        kinds = self.first.keys()
        if "bytes" in kinds and len(kinds) > 1:
            return "bytes", "float32" if "float32" in kinds else "int64"
        return ("float32", "large int64") if {"float32", "large int64"} <= kinds else None

    def type(self) -> "pa.DataType":
        """Return the column's type."""
        from mlplatform.arrow import pa

        kinds = self.first.keys()
        if "bytes" in kinds:
            value = pa.string() if self.is_text else pa.binary()
        elif "float32" in kinds:
            value = pa.float64() if "int64" in kinds else pa.float32()
        else:
            value = pa.int64() if "int64" in kinds else pa.null()
        return pa.list_(value) if self.is_list else value


def export(line: Line, manifest: Manifest, folder: str | os.PathLike[str]) -> Path:
    """Write a version as Parquet; see `DatasetStore.export`."""
    from mlplatform.arrow import pa

    with whole_folder(folder) as (partial, target), reading(line.storage, line.dataset):
        live = live_records(line, manifest)
        needs = _needs(line, manifest, live)
        schema = pa.schema([(name, needs[name].type()) for name in sorted(needs)])
        partial.mkdir()
        _write(line, manifest, live, partial, schema)
    record_copy(line, manifest, "export", str(target))
    return target


def _needs(line: Line, manifest: Manifest, live: Live) -> dict[str, _Needs]:
    needs: dict[str, _Needs] = {}
    total = sum(rows.distinct for rows in live.values())
    with track("read column types", total) as bar:
        for split in manifest.splits:
            for pack, rows, _, found in _batches(line, manifest, live, split):
                for name, column in found.items():
                    needs.setdefault(name, _Needs()).add(column, pack, rows)
                bar.advance(rows.size)
    for name, need in needs.items():
        if (conflict := need.conflict()) is not None:
            places = [need.first[kind] for kind in conflict]
            records = [
                read_index(line.storage, line.dataset, pack).ids[row : row + 1].names()[0]
                for pack, row in places
            ]
            raise MixedTypesError(line.dataset, name, conflict, records)
    return needs


def _write(line: Line, manifest: Manifest, live: Live, folder: Path, schema: "pa.Schema") -> None:
    from mlplatform.arrow import pa, pq

    total = sum(rows.records for rows in live.values())
    with track("export records", total) as bar:
        for split in sorted(manifest.splits):
            with pq.ParquetWriter(folder / f"{split}.parquet", schema) as writer:
                for _, rows, copies, found in _batches(line, manifest, live, split):
                    arrays = [
                        found[name].array(kind) if name in found else pa.nulls(rows.size, kind)
                        for name, kind in zip(schema.names, schema.types, strict=True)
                    ]
                    table = pa.table(arrays, schema=schema) if arrays else _no_columns(rows.size)
                    if (copies > 1).any():
                        table = table.take(np.repeat(np.arange(rows.size), copies))
                    writer.write_table(table)
                    bar.advance(int(copies.sum()))


def _batches(
    line: Line, manifest: Manifest, live: Live, split: str
) -> Iterator[tuple[PackFacts, Int64s, Int64s, dict[str, Column]]]:
    """Yield some records of a split at a time: their pack, rows, copies, and features."""
    packs = {pack.name: pack for pack in manifest.packs}
    for (owner, name), mine in live.items():
        if owner != split:
            continue
        copies = mine.copies()
        for batch in read_batches(line.storage, line.dataset, packs[name], np.flatnonzero(copies)):
            found, is_plain = columns(batch.buffer, batch.starts, batch.ends)
            if not is_plain.all():
                raise NotExamplesError(line.dataset, name, int(np.count_nonzero(~is_plain)))
            yield packs[name], batch.rows, copies[batch.rows], found


def _no_columns(records: int) -> "pa.Table":
    """Return a table of records without any feature."""
    from mlplatform.arrow import pa

    return pa.table({"": pa.nulls(records)}).select([])


def _is_text(values: Any) -> bool:
    from mlplatform.arrow import pa

    try:
        values.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True
