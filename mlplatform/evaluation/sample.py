"""A sample of records that do not fit into memory, and of parts of them that different workers read."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlplatform.evaluation.kind import Array


class Sample:
    """At most `size` of many rows, each as likely as any other.

    Each row draws a random number, and those with the smallest are kept: the sample of two parts is that of
    all of their rows, in whatever order parts are merged.
    """

    def __init__(self, size: int) -> None:
        """Begin without rows.

        Args:
            size: Most rows to keep, at least 1.
        """
        self._size = size
        self._draws = np.zeros(0)
        self._rows: list[Any] = []
        self._random: np.random.Generator | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, rows: Sequence[Any]) -> None:
        """Add rows; two parts with other first rows draw other numbers."""
        if not rows:
            return
        if self._random is None:
            self._random = np.random.default_rng(zlib.crc32(repr(rows[0]).encode()))
        self._take(self._random.random(len(rows)), rows)

    def merge(self, other: "Sample") -> None:
        """Add the rows of another part."""
        self._take(other._draws, other._rows)

    def _take(self, draws: Array, rows: Sequence[Any]) -> None:
        if len(self._rows) == self._size:
            chosen = np.flatnonzero(draws < self._draws[-1])
            draws, rows = draws[chosen], [rows[place] for place in chosen]
        if not rows:
            return
        draws, rows = np.concatenate([self._draws, draws]), [*self._rows, *rows]
        order = np.argsort(draws, kind="stable")[: self._size]
        self._draws, self._rows = draws[order], [rows[place] for place in order]

    @property
    def rows(self) -> list[Any]:
        """The rows, in the order of their draws."""
        return self._rows
