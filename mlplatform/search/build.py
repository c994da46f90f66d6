"""Build an index from vectors: choose its kind, tune it, write it, open it again and measure that."""

import hashlib
import json
import platform
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.files import write_json
from mlplatform.search.engines import (
    SCANNED_UP_TO,
    ExactEngine,
    FaissEngine,
    SearchEngine,
    build_faiss,
    cells_for,
    choose_kind,
    load_faiss,
    write_faiss,
)
from mlplatform.search.errors import TooFewQueriesError, UnindexableVectorError
from mlplatform.search.filters import FilterValues, column_of
from mlplatform.search.fingerprint import file_digest
from mlplatform.search.index import LENGTH_TOLERANCE, SearchIndex, open_index
from mlplatform.search.manifest import (
    FAISS,
    FORMAT_VERSION,
    GOLDEN,
    ID_OFFSETS,
    ID_ORDER,
    ITEM_IDS,
    ITEM_ROWS,
    MANIFEST_FILE,
    PHOTOS,
    VECTORS,
)
from mlplatform.search.recall import cost_of, exact_truth, lower_bound, mean_average_precision, recall_of

Array = NDArray[Any]

LEAST_QUERIES = 200  # held-out queries below which an approximate index cannot be judged
LEAST_OF_A_SLICE = 50
_COST_QUERIES = 200
_PROBES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
_CANDIDATES = {"ivf": (2, 3, 6), "pq": (10, 30)}


@dataclass(frozen=True)
class IndexEntry:
    """One item to index.

    Attributes:
        item_id: Its id; not empty.
        row: Its vector.
        photo: First half of the sha256 of its photo, 16 bytes.
        columns: FilterValues that searches can be filtered by.
        is_query: It is held out: the index is measured with it, itself left out.
    """

    item_id: str
    row: int
    photo: bytes
    columns: Mapping[str, str | int | float | None] = field(default_factory=dict)
    is_query: bool = False


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """How to build an index.

    Attributes:
        kind: `auto`, `exact`, `ivf` or `pq`.
        goal: Recall of the nearest ten that the probe is tuned to.
        results: Items in a served answer.
        label: The column with the class, for figures by class; empty for none.
    """

    kind: str = "auto"
    goal: float = 0.98
    results: int = 50
    label: str = "label"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where an index comes from; goes into its manifest as it is."""

    fingerprint: str
    records: int
    duplicates: int = 0
    rejected: int = 0
    removed: int = 0
    dataset: str = ""
    segment: int = 0


@dataclass(frozen=True)
class GoldenPhotos:
    """Photos that are looked at again wherever the index is loaded."""

    photos: Sequence[bytes]
    vectors: Array
    item_ids: Sequence[str]


def write_index(
    folder: Path,
    vectors: Array,
    entries: Sequence[IndexEntry],
    golden: GoldenPhotos,
    source: Source,
    plan: BuildPlan | None = None,
) -> SearchIndex:
    """Write an index, which appears in one step, and return it as it is read from disk.

    Args:
        folder: Where it goes; must not exist.
        vectors: float32 (rows, dimensions), each of length 1, no two alike.
        entries: At least one per vector.
        golden: At least one photo.
        source: Where it comes from.
        plan: How to build it.

    Raises:
        UnindexableVectorError: A vector is not finite, or not of length 1.
        TooFewQueriesError: It is to be approximate, and too few entries are held out to judge it by.
        MissingExtraError: It is to be approximate, and faiss is not installed.
    """
    plan = plan or BuildPlan()
    _check_vectors(vectors)
    entries = sorted(entries, key=lambda entry: (entry.row, entry.item_id))
    queries = _queries(vectors, entries, plan.label)
    kind = choose_kind(len(vectors)) if plan.kind == "auto" else plan.kind
    if kind != "exact" and len(queries.own) < LEAST_QUERIES:
        raise TooFewQueriesError(len(queries.own), LEAST_QUERIES)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    aside.mkdir(parents=True)
    try:
        columns = _write_entries(aside, vectors, entries)
        _write_golden(aside, golden)
        stored = np.load(aside / VECTORS, mmap_mode="r")
        parameters, tuned = _write_engine(aside, kind, stored, vectors, queries, plan)
        manifest = {
            "format_version": FORMAT_VERSION,
            "fingerprint": source.fingerprint,
            "dimensions": vectors.shape[1],
            "metric": "cosine",
            "rows": len(vectors),
            "entries": len(entries),
            "kind": kind,
            "parameters": parameters,
            "results": plan.results,
            "columns": columns,
            "counts": {
                "records": source.records,
                "indexed": len(vectors),
                "duplicates": source.duplicates,
                "rejected": source.rejected,
                "removed": source.removed,
            },
            "dataset": source.dataset,
            "segment": source.segment,
            "library": _library(kind),
            "report": {},
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
                for path in sorted(aside.iterdir())
            },
        }
        write_json(aside / MANIFEST_FILE, manifest, is_synced=True)
        # What is measured is what lies on the disk, opened as a server opens it.
        index = open_index(aside)
        manifest["report"] = {**tuned, **_measured(index, vectors, queries, entries, plan)}
        write_json(aside / MANIFEST_FILE, manifest, is_synced=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return open_index(folder)


def _check_vectors(vectors: Array) -> None:
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))
    if len(wrong):
        place = int(wrong[0])
        raise UnindexableVectorError(place, f"has the length {lengths[place]:.3g}")


@dataclass(frozen=True)
class _Queries:
    own: Array  # row that each query is itself
    labels: Sequence[str]
    vectors: Array


def _queries(vectors: Array, entries: Sequence[IndexEntry], label: str) -> _Queries:
    held = {entry.row: entry for entry in entries if entry.is_query}
    own = np.array(sorted(held), np.int64)
    labels = [str(held[row].columns.get(label) or "") for row in own.tolist()]
    return _Queries(own, labels, vectors[own].astype(np.float32))


def _write_entries(folder: Path, vectors: Array, entries: Sequence[IndexEntry]) -> dict[str, Any]:
    np.save(folder / VECTORS, vectors.astype(np.float16))
    raw = [entry.item_id.encode() for entry in entries]
    (folder / ITEM_IDS).write_bytes(b"".join(raw))
    np.save(
        folder / ID_OFFSETS, np.concatenate([[0], np.cumsum([len(text) for text in raw])]).astype(np.int64)
    )
    np.save(folder / ITEM_ROWS, np.array([entry.row for entry in entries], np.int32))
    order = sorted(range(len(raw)), key=lambda place: (raw[place], entries[place].row))
    np.save(folder / ID_ORDER, np.array(order, np.int32))
    np.save(folder / PHOTOS, np.frombuffer(b"".join(e.photo for e in entries), np.uint8).reshape(-1, 16))
    columns: dict[str, Any] = {}
    for number, name in enumerate(sorted({name for entry in entries for name in entry.columns})):
        column = column_of([entry.columns.get(name) for entry in entries])
        file = f"column-{number:03d}.npy"
        np.save(folder / file, column.values)
        columns[name] = {"kind": column.kind, "file": file}
        if column.kind == "text":
            columns[name]["dictionary"] = dictionary = f"column-{number:03d}.json"
            (folder / dictionary).write_text(json.dumps(list(column.dictionary)), "utf-8")
    return columns


def _write_golden(folder: Path, golden: GoldenPhotos) -> None:
    sizes = [len(photo) for photo in golden.photos]
    np.savez(
        folder / GOLDEN,
        content=np.frombuffer(b"".join(golden.photos), np.uint8),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        vectors=np.asarray(golden.vectors, np.float32),
        item_ids=np.array(list(golden.item_ids), np.str_),
    )


def _write_engine(
    folder: Path, kind: str, stored: Array, vectors: Array, queries: _Queries, plan: BuildPlan
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write the approximate index, if it is to be one; return its parameters, and how they were chosen."""
    if kind == "exact":
        return {}, {}
    cells = cells_for(len(vectors))
    subvectors = _subvectors(vectors.shape[1]) if kind == "pq" else 0
    index = build_faiss(stored, kind, cells, subvectors)
    write_faiss(index, folder / FAISS)
    half = np.arange(0, len(queries.own), 2)  # the others are for the report
    truth = exact_truth(vectors, queries.vectors[half], queries.own[half])
    parameters = {"cells": cells}
    if subvectors:
        parameters["subvectors"] = subvectors
    tried = []
    # The cheapest first: cells cost more than candidates.
    for probe in [p for p in _PROBES if p <= cells] or [1]:
        for candidates in _CANDIDATES[kind]:
            engine = FaissEngine(index, stored, probe, candidates)
            shares = recall_of(engine, vectors, queries.vectors[half], truth, queries.own[half])
            tried.append({"probe": probe, "candidates": candidates, "recall_at_10": float(shares.mean())})
            if lower_bound(shares) >= plan.goal:
                return {**parameters, "probe": probe, "candidates": candidates}, {"tuning": tried}
    best = max(tried, key=lambda one: one["recall_at_10"])
    chosen = {"probe": int(best["probe"]), "candidates": int(best["candidates"])}
    return {**parameters, **chosen}, {"tuning": tried}


def _subvectors(dimensions: int) -> int:
    """Return the bytes of a product code: a quarter of the dimensions, or the next that divides them."""
    return next(m for m in range(max(dimensions // 4, 1), 0, -1) if dimensions % m == 0)


def _measured(
    index: SearchIndex, vectors: Array, queries: _Queries, entries: Sequence[IndexEntry], plan: BuildPlan
) -> dict[str, Any]:
    """Measure an opened index with the queries that it was not tuned with."""
    if not len(queries.own) or len(vectors) < 2:
        return {"queries": 0}
    kept = np.arange(len(queries.own))
    if index.manifest.kind != "exact":
        kept = kept[1::2]
    asked, own = queries.vectors[kept], queries.own[kept]
    labels = [queries.labels[place] for place in kept.tolist()]
    truth = exact_truth(vectors, asked, own)
    shares = recall_of(index.engine, vectors, asked, truth, own)
    exact: SearchEngine = ExactEngine(vectors)
    cost, base = cost_of(index.engine, asked[:_COST_QUERIES]), cost_of(exact, asked[:_COST_QUERIES])
    report: dict[str, Any] = {
        "queries": len(kept),
        "recall_at_10": float(shares.mean()),
        "recall_at_10_low": lower_bound(shares),
        "by_label": _by_label(shares, labels),
        "filtered": _filtered(index, vectors, asked, own),
        "cpu_p50_ms": 1000 * cost.p50_s,
        "cpu_p99_ms": 1000 * cost.p99_s,
        "exact_cpu_p50_ms": 1000 * base.p50_s,
        "cpu_of_exact": cost.p50_s / base.p50_s if base.p50_s else None,
    }
    if plan.label in index.columns:
        names: dict[int, str] = {}
        for entry in entries:
            names.setdefault(entry.row, str(entry.columns.get(plan.label) or ""))
        row_labels = [names[row] for row in range(len(vectors))]
        figure = mean_average_precision(
            vectors, row_labels, asked, [row_labels[row] for row in own.tolist()], own
        )
        report["class_map_at_10"] = None if np.isnan(figure) else figure
    return report


def _by_label(shares: Array, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    names = np.asarray(labels)
    found = {}
    for name in sorted({*labels}):
        part = shares[names == name]
        if name and len(part) >= LEAST_OF_A_SLICE:
            found[name] = {"queries": len(part), "recall_at_10": float(part.mean()), "low": lower_bound(part)}
    return found


def _filtered(index: SearchIndex, vectors: Array, queries: Array, own: Array) -> dict[str, dict[str, float]]:
    """Measure the recall under the most and the least frequent text of each column, and half of numbers."""
    if index.manifest.kind == "exact":  # a filter leaves fewer rows, which are all looked at
        return {}
    found: dict[str, dict[str, float]] = {}
    sample = slice(0, LEAST_QUERIES)
    for name, column in index.columns.items():
        for text, passing in _examples_of(column):
            allowed = index.rows_of(passing)
            rows = np.flatnonzero(allowed) if allowed is not None else np.zeros(0, np.int64)
            if len(rows) <= SCANNED_UP_TO:  # scanned as a whole
                continue
            place = {row: number for number, row in enumerate(rows.tolist())}
            mine = np.array([place.get(row, -1) for row in own[sample].tolist()], np.int64)
            truth = exact_truth(vectors[rows], queries[sample], mine)
            shares = recall_of(index.engine, vectors, queries[sample], truth, own[sample], allowed)
            found[f"{name} = {text}"] = {
                "passing": len(rows) / len(vectors),
                "recall_at_10": float(shares.mean()),
                "low": lower_bound(shares),
            }
    return found


def _examples_of(column: FilterValues) -> list[tuple[str, Array]]:
    if column.kind == "text":
        counts = np.bincount(column.values[column.values >= 0], minlength=len(column.dictionary))
        codes = {int(counts.argmax()), int(counts.argmin())} if len(counts) else set()
        return [(column.dictionary[code], column.values == code) for code in sorted(codes)]
    middle = float(np.nanmedian(column.values))
    return [(f"at most {middle:g}", np.asarray(column.values <= middle))]


def _library(kind: str) -> str:
    if kind == "exact":
        return f"numpy {np.__version__}"
    return f"faiss {load_faiss().__version__}, Python {platform.python_version()}"


def photo_digest(photo: bytes) -> bytes:
    """Return what an index knows a photo by: the first 16 bytes of its sha256."""
    return hashlib.sha256(photo).digest()[:16]
