"""Vectors, and entries of an index."""

import hashlib

import numpy as np

from mlplatform.search.build import IndexEntry

FINGERPRINT = "ab" * 32


def unit_vectors(count: int, dimensions: int = 16, seed: int = 0, clusters: int = 0) -> np.ndarray:
    """Vectors of length 1; those of `clusters` lie together."""
    random = np.random.default_rng(seed)
    found = random.normal(size=(count, dimensions))
    if clusters:
        found = (
            0.35 * found + random.normal(size=(clusters, dimensions))[random.integers(clusters, size=count)]
        )
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def entries_of(count: int, queries: int = 0) -> list[IndexEntry]:
    """One entry per vector, with two columns to filter by."""
    return [
        IndexEntry(
            f"item-{row:06d}",
            row,
            hashlib.sha256(str(row).encode()).digest()[:16],
            {"label": "odd" if row % 2 else "even", "price": row * 10},
            row < queries,
        )
        for row in range(count)
    ]
