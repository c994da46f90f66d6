"""Vectors, ids and columns for another engine: Parquet, or a feed."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlplatform.search.index import SearchIndex
from mlplatform.search.live import Live

_BATCH = 10_000
_NAMESPACE = "item"


def export_items(index: SearchIndex, live: Live, target: Path, form: str) -> int:
    """Write every item that a search finds, in one step: `parquet`, or `vespa` (JSON lines).

    Args:
        index: The index.
        live: What was added and removed since it was built.
        target: The file; replaced if it is there.
        form: `parquet` has the columns `item_id`, `vector` (float32 list) and those of the index; `vespa` is
            a feed of `put` operations with the fields `item_id`, `embedding` and those columns.

    Returns:
        The number of rows: one per photo of an item.
    """
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        count = (_to_parquet if form == "parquet" else _to_vespa)(index, live, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return count


def rows_of(index: SearchIndex, live: Live) -> Iterator[dict[str, Any]]:
    """Yield `item_id`, `vector` (float32) and the columns of every photo of an item that a search finds."""
    for entry in range(index.manifest.entries):
        item_id = index.ids[entry]
        if item_id not in live.hides:
            vector = np.asarray(index.vectors[int(index.item_rows[entry])], np.float32)
            columns = {name: column.at(entry) for name, column in index.columns.items()}
            yield {"item_id": item_id, "vector": vector, **columns}
    for item_id, vector, known in live.items():
        yield {"item_id": item_id, "vector": vector, **{name: known.get(name) for name in index.columns}}


def _to_parquet(index: SearchIndex, live: Live, target: Path) -> int:
    from mlplatform.arrow import pa, pq  # heavy, and for this form alone

    kinds = {"text": pa.string(), "int": pa.int64(), "float": pa.float64()}
    fields = [pa.field("item_id", pa.string()), pa.field("vector", pa.list_(pa.float32()))]
    fields += [pa.field(name, kinds[column.kind]) for name, column in index.columns.items()]
    schema = pa.schema(fields, metadata={"embedding_fingerprint": index.manifest.fingerprint})
    count = 0
    with pq.ParquetWriter(str(target), schema) as writer:
        for batch in _batches(rows_of(index, live)):
            columns = [[row[name] for row in batch] for name in schema.names]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
            count += len(batch)
    return count


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _to_vespa(index: SearchIndex, live: Live, target: Path) -> int:
    count = 0
    with target.open("w", encoding="utf-8") as file:
        for row in rows_of(index, live):
            vector = [round(float(number), 6) for number in row.pop("vector")]
            fields = {name: value for name, value in row.items() if value is not None}
            document = {
                "put": f"id:{_NAMESPACE}:{_NAMESPACE}::{row['item_id']}-{count}",
                "fields": {**fields, "embedding": {"values": vector}},
            }
            file.write(json.dumps(document) + "\n")
            count += 1
    return count
