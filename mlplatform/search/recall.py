"""How much of what an exact search finds an index finds, and what a query costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.search.engines import SearchEngine, best_of

Array = NDArray[Any]

DEPTH = 10
TIE = 1e-6  # scores that differ by less are the same: an exact index is not punished for duplicates
_RESAMPLES = 1000
_QUERIES_AT_ONCE = 64
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Truth:
    """What an exact search finds.

    Attributes:
        tenth: float32 (queries,): score of the tenth row, or of the last one of fewer.
        rows: The rows that were found, int64 (queries, depth).
    """

    tenth: Array
    rows: Array


def exact_truth(vectors: Array, queries: Array, own: Array | None = None, depth: int = DEPTH) -> Truth:
    """Search exactly, in float32.

    Args:
        vectors: float16 or float32 (rows, dimensions).
        queries: float32 (queries, dimensions).
        own: int (queries,): the row that a query is itself, which does not count; -1 for none.
        depth: How many rows are looked for.
    """
    tenth, found = [], []
    depth = min(depth, len(vectors) - (0 if own is None else 1))
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        part = np.ascontiguousarray(queries[start : start + _QUERIES_AT_ONCE], np.float32)
        mine = None if own is None else own[start : start + _QUERIES_AT_ONCE]
        scores, rows = _nearest(vectors, part, mine, depth)
        tenth.append(scores[:, -1])
        found.append(rows)
    return Truth(np.concatenate(tenth), np.concatenate(found))


def _nearest(vectors: Array, queries: Array, own: Array | None, depth: int) -> tuple[Array, Array]:
    best_scores = np.full((len(queries), 0), -np.inf, np.float32)
    best_rows = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = np.ascontiguousarray(vectors[start : start + _ROWS_AT_ONCE], np.float32)
        scores = queries @ block.T
        if own is not None:
            is_here = (own >= start) & (own < start + len(block))
            scores[np.flatnonzero(is_here), own[is_here] - start] = -np.inf
        rows = np.broadcast_to(np.arange(start, start + len(block)), scores.shape)
        if scores.shape[1] > depth:
            places = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
            scores, rows = np.take_along_axis(scores, places, 1), np.take_along_axis(rows, places, 1)
        best_scores = np.concatenate([best_scores, scores], axis=1)
        best_rows = np.concatenate([best_rows, rows], axis=1)
    order = np.argsort(-best_scores, axis=1, kind="stable")[:, :depth]
    return np.take_along_axis(best_scores, order, 1), np.take_along_axis(best_rows, order, 1)


def recall_of(
    engine: SearchEngine,
    vectors: Array,
    queries: Array,
    truth: Truth,
    own: Array | None = None,
    allowed: Array | None = None,
) -> Array:
    """Return the recall of each query, float64 (queries,), 0 to 1; rows that tie with the tenth are hits."""
    depth = truth.rows.shape[1]
    shares = np.zeros(len(queries))
    for place, query in enumerate(queries):
        mine = -1 if own is None else int(own[place])
        found, _ = engine.nearest(query, depth + (mine >= 0), allowed)
        rows = [row for row in found if row != mine][:depth]
        # Scored here, from the same vectors as the truth: a wrong score of the engine wins nothing.
        scores = np.asarray(vectors[rows], np.float32) @ query
        shares[place] = min(np.count_nonzero(scores >= truth.tenth[place] - TIE), depth) / depth
    return shares


def lower_bound(shares: Array, *, seed: int = 0) -> float:
    """Return the one-sided 95 % lower bound of a mean, by bootstrap over the queries."""
    if len(shares) == 0:
        return 0.0
    random = np.random.default_rng(seed)
    means = [shares[random.integers(len(shares), size=len(shares))].mean() for _ in range(_RESAMPLES)]
    return float(np.quantile(means, 0.05))


@dataclass(frozen=True)
class QueryCost:
    """CPU seconds of single queries on this thread: median and 99th percentile."""

    p50_s: float
    p99_s: float


def cost_of(engine: SearchEngine, queries: Sequence[Array] | Array, depth: int = DEPTH) -> QueryCost:
    """Measure single queries by this thread's CPU clock: on a busy machine the wall clock says nothing."""
    times = []
    for query in queries:
        started = time.thread_time()
        engine.nearest(query, depth, None)
        times.append(time.thread_time() - started)
    return QueryCost(float(np.percentile(times, 50)), float(np.percentile(times, 99)))


def mean_average_precision(
    vectors: Array, row_labels: Sequence[str], queries: Array, labels: Sequence[str], own: Array
) -> float:
    """Return how well the ten nearest rows have the query's label: precision at hits / min(10, relevant)."""
    truth = exact_truth(vectors, queries, own)
    names = np.asarray(row_labels)
    total, counts = 0.0, dict(zip(*np.unique(names, return_counts=True), strict=True))
    asked = 0
    for place, label in enumerate(labels):
        relevant = int(counts.get(label, 0)) - int(own[place] >= 0 and names[own[place]] == label)
        if relevant < 1:
            continue
        hits = names[truth.rows[place]] == label
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        total += float((precision * hits).sum()) / min(DEPTH, relevant)
        asked += 1
    return total / asked if asked else float("nan")


__all__ = [
    "DEPTH",
    "QueryCost",
    "Truth",
    "best_of",
    "cost_of",
    "exact_truth",
    "lower_bound",
    "mean_average_precision",
    "recall_of",
]
