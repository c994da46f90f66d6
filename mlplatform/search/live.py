"""What was added and removed since an index was built, in memory."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.search.filters import Filter, FilterValues, column_of
from mlplatform.search.segments import Segment, Segments, Value

Array = NDArray[Any]
Embed = Callable[[Sequence[bytes]], Array]


@dataclass(frozen=True)
class _Item:
    vectors: Array  # float32 (photos, dimensions)
    columns: Mapping[str, Value]


@dataclass(frozen=True)
class Live:
    """Items beside an index; never changed, but replaced.

    Attributes:
        segment: Number of the last segment that it contains.
        hides: Items whose entries in the index no longer count: they were removed, or added anew.
    """

    segment: int
    hides: frozenset[str] = frozenset()
    _items: Mapping[str, _Item] = field(default_factory=dict)
    _ids: Sequence[str] = ()  # per row of the next
    _vectors: Array | None = None
    _columns: Mapping[str, FilterValues] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._items

    def with_segment(
        self,
        segment: Segment,
        number: int,
        fingerprint: str,
        kinds: Mapping[str, FilterValues],
        embed: Embed | None,
    ) -> "Live":
        """Return this with one more segment.

        Args:
            segment: The segment.
            number: Its number.
            fingerprint: The embedding that is served.
            kinds: The columns of the index, by name.
            embed: Embeds photos of items that were added with another model; None leaves these out.
        """
        items = dict(self._items)
        hides = self.hides | frozenset(segment.item_ids)
        for item_id in segment.item_ids:
            items.pop(item_id, None)
        if not segment.is_removal:
            vectors: Array | None = segment.vectors
            if segment.fingerprint != fingerprint:
                vectors = embed(segment.photos) if embed is not None else None
            if vectors is not None:
                for place, item_id in enumerate(segment.item_ids):
                    before = items.get(item_id)  # several photos of an item in one segment
                    parts = [*([before.vectors] if before else []), vectors[place : place + 1]]
                    values = {name: column[place] for name, column in segment.columns.items()}
                    items[item_id] = _Item(np.concatenate(parts).astype(np.float32), values)
        ids = [item_id for item_id, item in items.items() for _ in item.vectors]
        columns = {
            name: _like(kinds[name].kind, [items[item_id].columns.get(name) for item_id in ids])
            for name in kinds
        }
        found = np.concatenate([item.vectors for item in items.values()]) if items else None
        return Live(number, hides, items, ids, found, columns)

    def scores(self, query: Array, condition: Filter | None) -> Iterator[tuple[str, float]]:
        """Yield each item that passes, with its score, once per photo."""
        if self._vectors is None:
            return
        passing = condition.passing(self._columns, len(self._ids)) if condition else None
        scores = self._vectors @ query
        rows = range(len(self._ids)) if passing is None else np.flatnonzero(passing).tolist()
        for row in rows:
            yield self._ids[row], float(scores[row])

    def items(self) -> Iterator[tuple[str, Array, Mapping[str, Value]]]:
        """Yield id, vector and columns of each item, once per photo."""
        for item_id, item in self._items.items():
            for vector in item.vectors:
                yield item_id, vector, item.columns

    def vector(self, item_id: str) -> Array:
        """Return the vector of an item's first photo."""
        return np.asarray(self._items[item_id].vectors[0])

    def attributes(self, item_id: str) -> dict[str, Value]:
        """Return the columns of an item."""
        return dict(self._items[item_id].columns)


def _like(kind: str, values: Sequence[Value]) -> FilterValues:
    """Return values as a column of a known kind; what does not fit counts as missing."""
    if kind == "text":
        column = column_of([None if value is None else str(value) for value in values])
        return (
            column if column.kind == "text" else FilterValues("text", np.full(len(values), -1, np.int32), ())
        )
    numbers = [value if isinstance(value, int | float) else None for value in values]
    return column_of([None if n is None else (int(n) if kind == "int" else float(n)) for n in numbers])


class Follower:
    """Keeps `Live` up to the last segment. Safe to use from any thread.

    Args:
        segments: Where they are written.
        start: The last segment that the index contains.
        fingerprint: The embedding that is served.
        columns: The columns of the index.
        embed: Embeds photos that were added with another model.
        interval_s: Seconds between two looks; 0 looks at each use, which costs a look for one file name.
    """

    def __init__(
        self,
        segments: Segments,
        start: int,
        fingerprint: str,
        columns: Mapping[str, FilterValues],
        embed: Embed | None = None,
        *,
        interval_s: float = 0.0,
    ) -> None:
        self._segments, self._fingerprint, self._columns, self._embed = segments, fingerprint, columns, embed
        self._live = Live(start)
        self._interval_s, self._next_look = interval_s, 0.0
        self._lock = threading.Lock()

    @property
    def last(self) -> Live:
        """What was known at the last look."""
        return self._live

    def now(self) -> Live:
        """Return what was added and removed up to now.

        Raises:
            SegmentDamagedError: A segment cannot be read.
            StoreAccessError: Their place cannot be reached.
        """
        if self._interval_s and time.monotonic() < self._next_look:
            return self._live
        with self._lock:
            while (segment := self._segments.read(self._live.segment + 1)) is not None:
                number = self._live.segment + 1
                self._live = self._live.with_segment(
                    segment, number, self._fingerprint, self._columns, self._embed
                )
            self._next_look = time.monotonic() + self._interval_s
        return self._live
