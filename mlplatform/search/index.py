"""An index that is open: verified, mapped from disk, and searched."""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.search.engines import (
    ExactEngine,
    FaissEngine,
    SearchEngine,
    blocks_of,
    decoder,
    open_faiss,
    parameters_of,
)
from mlplatform.search.errors import (
    EmbeddingMismatchError,
    GoldenPhotoError,
    IndexDamagedError,
    ItemNotFoundError,
)
from mlplatform.search.filters import Filter, FilterValues
from mlplatform.search.live import Live
from mlplatform.search.manifest import (
    FAISS,
    GOLDEN,
    ID_OFFSETS,
    ID_ORDER,
    ITEM_IDS,
    ITEM_ROWS,
    MANIFEST_FILE,
    PHOTOS,
    VECTORS,
    IndexManifest,
    read_manifest,
    verify_files,
)

Array = NDArray[Any]
Embed = Callable[[Sequence[bytes]], Array]  # photos to float32 (photos, dimensions)

LENGTH_TOLERANCE = 5e-3  # of a vector's length, as float16 rounds it
GOLDEN_COSINE, GOLDEN_SCORE = 0.999, 2e-3
_MARGIN = 5


@dataclass(frozen=True)
class Found:
    """One answer: item ids, the best first, and their scores (cosine)."""

    item_ids: list[str]
    scores: list[float]


class ItemIds:
    """The ids of all entries, on disk: `item_ids.utf8` from `id_offsets[n]` to `id_offsets[n + 1]`."""

    def __init__(self, text: Array, offsets: Array, order: Array) -> None:
        # Single elements of a memoryview cost less than those of an array, let alone of np.memmap.
        self._text, self._offsets, self._order = text.data, offsets.data, order.data

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def raw(self, entry: int) -> bytes:
        """Return an entry's id."""
        return bytes(self._text[self._offsets[entry] : self._offsets[entry + 1]])

    def all(self) -> list[bytes]:
        """Return the ids of all entries."""
        text, bounds = self._text.tobytes(), self._offsets.tolist()
        return [text[start:end] for start, end in itertools.pairwise(bounds)]

    def __getitem__(self, entry: int) -> str:
        return self.raw(entry).decode()

    def entries(self, item_id: str) -> list[int]:
        """Return the entries of an item, none where there is none."""
        wanted = item_id.encode()
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.raw(self._order[middle]) < wanted:
                low = middle + 1
            else:
                high = middle
        found = []
        while low < len(self) and self.raw(self._order[low]) == wanted:
            found.append(self._order[low])
            low += 1
        return found


class SearchIndex:
    """An open index. Safe to search from any thread; `open_index` makes it."""

    def __init__(
        self,
        folder: Path,
        manifest: IndexManifest,
        engine: SearchEngine,
        vectors: Array,
        ids: ItemIds,
        item_rows: Array,
        columns: Mapping[str, FilterValues],
    ) -> None:
        self.folder, self.manifest, self.vectors = folder, manifest, vectors
        self.ids, self.item_rows, self.columns = ids, item_rows, columns
        self.engine = engine
        # Where every row has one entry, rows and entries are the same.
        self._is_one_to_one = manifest.rows == manifest.entries

    def search(
        self, query: Array, count: int, condition: Filter | None = None, live: Live | None = None
    ) -> Found:
        """Return the items nearest to a vector; as many as there are, up to `count`.

        Args:
            query: float32 (dimensions,), of length 1.
            count: Items wanted.
            condition: What they must be like.
            live: What was added and removed since the index was built.

        Raises:
            FilterError: The filter names a column that there is not, or values of another kind.
        """
        passing = condition.passing(self.columns, self.manifest.entries) if condition else None
        excluded = condition.excluded if condition else frozenset()
        hidden = live.hides if live is not None else frozenset()
        best = self._nearest(query, count, passing, excluded | hidden)
        if live is not None and len(live):
            for item_id, score in live.scores(query, condition):
                if item_id not in excluded:
                    best[item_id] = max(score, best.get(item_id, -math.inf))
        ranked = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:count]
        return Found([item for item, _ in ranked], [score for _, score in ranked])

    def _nearest(
        self, query: Array, count: int, passing: Array | None, skipped: frozenset[str]
    ) -> dict[str, float]:
        """Return the best score of the nearest items, at least `count` of them where there are so many."""
        allowed = self.rows_of(passing)
        available = self.manifest.rows if allowed is None else int(np.count_nonzero(allowed))
        wanted = count + min(len(skipped), 4 * count) + (0 if self._is_one_to_one else _MARGIN)
        while True:
            best: dict[str, float] = {}
            if not available:
                return best
            rows, scores = self.engine.nearest(query, min(wanted, available), allowed)
            for row, score in zip(rows, scores, strict=True):
                for entry in self._entries(row):
                    if passing is None or passing[entry]:
                        item_id = self.ids[entry]
                        if item_id not in skipped and score > best.get(item_id, -math.inf):
                            best[item_id] = score
            if len(best) >= count or wanted >= available:
                return best
            wanted *= 4

    def rows_of(self, passing: Array | None) -> Array | None:
        """Return which rows have an entry that passes, bool (rows,); None where all do."""
        if passing is None or self._is_one_to_one:
            return passing
        allowed = np.zeros(self.manifest.rows, np.bool_)
        allowed[self.item_rows[passing]] = True
        return allowed

    def _entries(self, row: int) -> Sequence[int]:
        if self._is_one_to_one:
            return (row,)
        first, last = np.searchsorted(self.item_rows, [row, row + 1])
        return range(int(first), int(last))

    def vector(self, item_id: str) -> Array:
        """Return the vector of an item's first photo, float32 (dimensions,), of length 1.

        Raises:
            ItemNotFoundError: There is none.
        """
        entries = self.ids.entries(item_id)
        if not entries:
            raise ItemNotFoundError(item_id)
        vector = np.asarray(self.vectors[int(self.item_rows[entries[0]])], np.float32)
        return np.asarray(vector / np.linalg.norm(vector))

    def attributes(self, item_id: str) -> dict[str, str | int | float | None]:
        """Return the columns of an item's first entry; none where the index does not hold it."""
        entries = self.ids.entries(item_id)
        return {name: column.at(entries[0]) for name, column in self.columns.items()} if entries else {}

    def check_model(self, fingerprint: str) -> None:
        """See that the model with this embedding fingerprint made the vectors.

        Raises:
            EmbeddingMismatchError: It did not.
        """
        if fingerprint != self.manifest.fingerprint:
            raise EmbeddingMismatchError(str(self.folder), self.manifest.fingerprint, fingerprint)

    def check_golden(self, embed: Embed) -> None:
        """See that the model, as it is served here, gives golden photos their vectors and finds their items.

        Raises:
            GoldenPhotoError: It does not.
        """
        golden = read_golden(self.folder, self.manifest)
        found = np.asarray(embed(golden.photos), np.float32)
        if found.shape != golden.vectors.shape:
            raise GoldenPhotoError(str(self.folder), 0, f"the model gives {list(found.shape[1:])} numbers")
        for place, (vector, wanted) in enumerate(zip(found, golden.vectors, strict=True)):
            length = float(np.linalg.norm(vector))
            cosine = float(vector @ wanted) / max(length * float(np.linalg.norm(wanted)), 1e-12)
            if not (cosine >= GOLDEN_COSINE and abs(length - 1) <= LENGTH_TOLERANCE):
                problem = f"the vector has length {length:.3f}, and cosine {cosine:.4f} to the stored one"
                raise GoldenPhotoError(str(self.folder), place, problem)
            answer = self.search(vector, 10)
            scores = dict(zip(answer.item_ids, answer.scores, strict=True))
            # Near-duplicates may change places, the item itself cannot be missing.
            least = max(answer.scores, default=0.0) - GOLDEN_SCORE
            if scores.get(golden.item_ids[place], -1.0) < least:
                first = answer.item_ids[0] if answer.item_ids else "nothing"
                problem = f"{first!r} is found first instead of {golden.item_ids[place]!r}"
                raise GoldenPhotoError(str(self.folder), place, problem)


@dataclass(frozen=True)
class Golden:
    """Photos, the vectors that the model gave them when the index was built, and the items they are of."""

    photos: list[bytes]
    vectors: Array
    item_ids: list[str]


def read_golden(folder: Path, manifest: IndexManifest) -> Golden:
    """Return the golden photos of an index.

    Raises:
        IndexDamagedError: They are not readable.
    """
    try:
        with np.load(folder / GOLDEN, allow_pickle=False) as arrays:
            content, offsets, vectors = arrays["content"], arrays["offsets"], arrays["vectors"]
            item_ids = [str(item) for item in arrays["item_ids"]]
    except Exception as error:  # zipfile and NumPy raise many
        raise IndexDamagedError(str(folder), GOLDEN, f"is not readable ({error})") from error
    photos = [content[a:b].tobytes() for a, b in itertools.pairwise(offsets)]
    is_whole = vectors.shape == (len(photos), manifest.dimensions) and len(item_ids) == len(photos) >= 1
    if not is_whole or not np.isfinite(vectors).all():
        raise IndexDamagedError(str(folder), GOLDEN, "holds no photos with vectors of this index")
    return Golden(photos, vectors.astype(np.float32), item_ids)


def open_index(folder: Path, *, is_verified: bool = False) -> SearchIndex:
    """Open an index: digests first, so that no library reads what its builder did not write.

    Args:
        folder: The folder.
        is_verified: The digests of all files were compared already.

    Raises:
        NoIndexError: There is no index in the folder.
        IndexDamagedError: It is not as it was written, or cannot be an index.
        MissingExtraError: It is of a kind that needs faiss, and that is not installed.
    """
    manifest = read_manifest(folder)
    if not is_verified:
        verify_files(folder, manifest)
    reading = _Reading(folder, manifest)
    vectors = reading.vectors()
    ids, rows = reading.ids()
    columns = {name: reading.column(name) for name in manifest.columns}
    cells, probe, candidates = parameters_of(manifest.parameters)
    engine: SearchEngine
    if manifest.kind == "exact":
        engine = ExactEngine(vectors)
    else:
        index = open_faiss(folder, FAISS, manifest.rows, manifest.dimensions, cells)
        engine = FaissEngine(index, vectors, probe, candidates)
    return SearchIndex(folder, manifest, engine, vectors, ids, rows, columns)


class _Reading:
    """Reads the arrays of an index and sees that they fit each other."""

    def __init__(self, folder: Path, manifest: IndexManifest) -> None:
        self._folder, self._manifest = folder, manifest

    def _damaged(self, name: str, problem: str) -> IndexDamagedError:
        return IndexDamagedError(str(self._folder), name, problem)

    def _array(self, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        try:
            array = np.load(self._folder / name, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise self._damaged(name, f"is not an array ({error})") from error
        if not isinstance(array, np.ndarray) or array.dtype != np.dtype(dtype) or array.shape != shape:
            found = f"{getattr(array, 'dtype', '?')} {list(getattr(array, 'shape', ()))}"
            raise self._damaged(name, f"is {found}, and should be {dtype} {list(shape)}")
        return array

    def vectors(self) -> Array:
        manifest = self._manifest
        found = self._array(VECTORS, "float16", (manifest.rows, manifest.dimensions))
        start, decode = 0, None if manifest.kind == "exact" else decoder(manifest.dimensions)
        for block in blocks_of(found, decode=decode):
            lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
            wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))  # NaN is wrong, too
            if len(wrong):
                text = (
                    f"holds a vector of length {lengths[wrong[0]]:.3g} (row {start + wrong[0]}) instead of 1"
                )
                raise self._damaged(VECTORS, text)
            start += len(block)
        return found

    def ids(self) -> tuple[ItemIds, Array]:
        entries, rows = self._manifest.entries, self._manifest.rows
        offsets = self._array(ID_OFFSETS, "int64", (entries + 1,))
        size = self._manifest.files[ITEM_IDS].bytes
        if offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) <= 0).any():
            raise self._damaged(ID_OFFSETS, "does not divide the ids, or leaves one empty")
        text = np.memmap(self._folder / ITEM_IDS, np.uint8, "r", shape=(size,))
        order = self._array(ID_ORDER, "int32", (entries,))
        item_rows = self._array(ITEM_ROWS, "int32", (entries,))
        steps = np.diff(item_rows)
        if (
            item_rows[0] != 0
            or item_rows[-1] != rows - 1
            or steps.min(initial=0) < 0
            or steps.max(initial=0) > 1
        ):
            raise self._damaged(ITEM_ROWS, f"does not lead to each of the {rows} vectors, in their order")
        seen = np.zeros(entries, np.bool_)
        if order.min() < 0 or order.max() >= entries:
            raise self._damaged(ID_ORDER, "names entries that there are not")
        seen[order] = True
        if not seen.all():
            raise self._damaged(ID_ORDER, "does not name each entry once")
        ids = ItemIds(text, offsets, order)
        self._check_order(ids, order, item_rows)
        return ids, item_rows

    def _check_order(self, ids: ItemIds, order: Array, item_rows: Array) -> None:
        """See that the ids are sorted and no entry stands there twice; of many, at a sample of places."""
        count = len(order)
        named: Sequence[bytes] | None = ids.all() if count <= 200_000 else None
        places = range(1, count) if named else np.linspace(1, count - 1, 20_000, dtype=int).tolist()
        for place in places:
            one, other = int(order[place - 1]), int(order[place])
            before, after = (named[one], named[other]) if named else (ids.raw(one), ids.raw(other))
            if before > after:
                raise self._damaged(ID_ORDER, "is not in the order of the ids")
            if before == after and item_rows[one] == item_rows[other]:
                raise self._damaged(
                    ITEM_IDS, f"holds {after.decode('utf-8', 'replace')!r} twice for one vector"
                )

    def column(self, name: str) -> FilterValues:
        manifest = self._manifest
        column = manifest.columns[name]
        dtype = {"text": "int32", "int": "int64", "float": "float64"}[column.kind]
        values = self._array(column.file, dtype, (manifest.entries,))
        if column.kind != "text":
            return FilterValues(column.kind, values)
        try:
            dictionary = json.loads((self._folder / str(column.dictionary)).read_bytes())
        except ValueError as error:
            raise self._damaged(str(column.dictionary), f"is not JSON ({error})") from error
        if not isinstance(dictionary, list) or not all(isinstance(text, str) for text in dictionary):
            raise self._damaged(str(column.dictionary), "is not a list of texts")
        if values.min(initial=0) < -1 or values.max(initial=-1) >= len(dictionary):
            raise self._damaged(column.file, "has codes that the dictionary does not have")
        return FilterValues("text", values, dictionary)

    def photos(self) -> Array:
        return self._array(PHOTOS, "uint8", (self._manifest.entries, 16))


def photo_digests(index: SearchIndex) -> Array:
    """Return the first half of the sha256 of each entry's photo, uint8 (entries, 16); zeros where unknown."""
    return _Reading(index.folder, index.manifest).photos()


__all__ = [
    "MANIFEST_FILE",
    "Embed",
    "Found",
    "Golden",
    "SearchIndex",
    "open_index",
    "photo_digests",
    "read_golden",
]
