"""How rows are found: exactly with NumPy, or through cells of codes with faiss and an exact second look."""

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlplatform.errors import MissingExtraError
from mlplatform.search.errors import IndexDamagedError

Array = NDArray[Any]

EXACT_UP_TO = 100_000  # rows below which an index saves nothing that a person could notice
CELLS_UP_TO = 5_000_000  # rows above which 8-bit codes take too much memory
SCANNED_UP_TO = 16_384  # passing rows up to which a filtered search scans these alone
_LEAST_SEEN = 1000  # passing rows that a filtered search through cells sees at least
_BLOCK = 16_384  # rows that are turned into float32 at a time
_FEW = 250  # rows up to which preparing the quicker ways takes longer than they save
_SEED = 1234


class SearchEngine(Protocol):
    """Finds rows."""

    def nearest(self, query: Array, count: int, allowed: Array | None) -> tuple[list[int], list[float]]:
        """Return the nearest rows, the best first, and their scores.

        Args:
            query: float32 (dimensions,), of length 1.
            count: How many, at least 1. Of rows that score as the last one does, an exact engine gives all.
            allowed: bool (rows,); None allows all.

        Returns:
            Rows and scores; fewer than `count` only where there are no more.
        """


def choose_kind(rows: int) -> str:
    """Return the kind of index that so many rows need."""
    if rows <= EXACT_UP_TO:
        return "exact"
    return "ivf" if rows <= CELLS_UP_TO else "pq"


def cells_for(rows: int) -> int:
    """Return the number of cells: a power of 2 near 1.6 times the root of the rows, each with 39 at least."""
    cells = 2 ** round(math.log2(max(1.6 * math.sqrt(rows), 1.0)))
    return int(max(1, min(cells, rows // 39)))


class ExactEngine:
    """Compares a query with every row; in memory, float32."""

    def __init__(self, vectors: Array) -> None:
        self._vectors = np.ascontiguousarray(vectors, np.float32)

    def nearest(self, query: Array, count: int, allowed: Array | None) -> tuple[list[int], list[float]]:
        if allowed is None:
            rows, scores = best_of(self._vectors @ query, count)
        else:
            passing = np.flatnonzero(allowed)
            places, scores = best_of(scores_of(self._vectors, passing, query), count)
            rows = passing[places]
        return rows.tolist(), scores.tolist()


class FaissEngine:
    """Looks into the nearest cells, then scores the best candidates exactly from the stored vectors.

    Args:
        index: A faiss index whose ids are the rows.
        vectors: float16 (rows, dimensions), as they are stored; may be mapped from disk.
        probe: Cells that a search looks into.
        candidates: Rows that are scored exactly, per row that is wanted.
    """

    def __init__(self, index: Any, vectors: Array, probe: int, candidates: int) -> None:
        self._index = index
        # Not as np.memmap, whose indexing is a call of Python: a query reads some rows, one by one.
        self._vectors = vectors.view(np.ndarray)
        self.probe, self.candidates = probe, candidates
        self._faiss, self._thread_memory = load_faiss(), threading.local()
        self._unfiltered = self._faiss.SearchParametersIVF(nprobe=probe)
        self._decode = decoder(vectors.shape[1])

    def nearest(self, query: Array, count: int, allowed: Array | None) -> tuple[list[int], list[float]]:
        rows = len(self._vectors)
        passing = rows if allowed is None else int(np.count_nonzero(allowed))
        if passing == 0:
            return [], []
        if allowed is not None and passing <= SCANNED_UP_TO:
            return self._best(query, count, np.flatnonzero(allowed))
        probe = min(-(-self.probe * rows // passing), self._index.nlist)
        wanted = min(count * self.candidates, passing)
        # Rows that pass may lie together, far from the query: the cells nearest to it then hold few of them.
        least = min(count if allowed is None else max(wanted, _LEAST_SEEN), passing)
        while True:
            found = self._candidates(query, max(wanted, least), probe, allowed)
            if len(found) >= least or probe >= self._index.nlist:
                return self._best(query, count, found[:wanted])
            probe = min(2 * probe, self._index.nlist)

    # Right after a model ran, caches are cold, and each further function of a library costs more than its
    # work: a request without a filter makes few calls.
    def _best(self, query: Array, count: int, rows: Array) -> tuple[list[int], list[float]]:
        if len(rows) <= _FEW:
            scores = np.dot(self._vectors[rows], query).tolist()  # in float32, as the query is
            order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:count]
            found = rows.tolist()
            return [found[place] for place in order], [scores[place] for place in order]
        blocks = (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))
        products = np.concatenate([self._decode(self._vectors[some]) @ query for some in blocks])
        places, best = best_of(products, count)
        return rows[places].tolist(), best.tolist()

    def _candidates(self, query: Array, wanted: int, probe: int, allowed: Array | None) -> Array:
        faiss, memory = self._faiss, self._thread_memory
        if not hasattr(memory, "ids"):
            faiss.omp_set_num_threads(1)  # a server has threads of its own; the setting is this thread's
        if not hasattr(memory, "ids") or memory.ids.shape[1] != wanted:
            memory.ids, memory.scores = np.empty((1, wanted), np.int64), np.empty((1, wanted), np.float32)
        parameters, bitmap = self._unfiltered, None
        if allowed is not None or probe != self.probe:
            parameters = faiss.SearchParametersIVF(nprobe=probe)
        if allowed is not None:
            bitmap = np.packbits(allowed, bitorder="little")  # must live as long as the search
            parameters.sel = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bitmap))
        self._index.search(query[None], wanted, params=parameters, D=memory.scores, I=memory.ids)
        del bitmap
        found: Array = memory.ids[0]  # until this thread's next search
        return found if found[-1] >= 0 else found[found >= 0]  # faiss fills up with -1


def best_of(scores: Array, count: int) -> tuple[Array, Array]:
    """Return the places of the `count` highest scores, and all that are as high as the last of them."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    order = np.argsort(-scores[places], kind="stable")
    return places[order], scores[places[order]]


def scores_of(vectors: Array, rows: Array, query: Array) -> Array:
    """Return the products of some rows with a query, float32, a block at a time."""
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = vectors[rows[start : start + _BLOCK]].astype(np.float32, copy=False)
        scores[start : start + _BLOCK] = part @ query
    return scores


def blocks_of(vectors: Array, *, decode: Callable[[Array], Array] | None = None) -> Iterator[Array]:
    """Yield the rows as float32, a block at a time.

    Args:
        vectors: float16 or float32 (rows, dimensions).
        decode: Turns float16 into float32; by default NumPy does.
    """
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        yield np.ascontiguousarray(block, np.float32) if decode is None else decode(block)


def decoder(dimensions: int) -> Callable[[Array], Array]:
    """Return what turns float16 (rows, dimensions) into float32.

    It is faiss, which uses the processor's instruction; NumPy 1 takes three times as long.
    """
    faiss = load_faiss()
    halves = faiss.ScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_fp16)
    return lambda rows: halves.decode(rows.view(np.uint8))


def load_faiss() -> Any:
    """Return the module faiss.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingExtraError("faiss-cpu", "search", "an approximate index") from error
    return faiss


def build_faiss(vectors: Array, kind: str, cells: int, subvectors: int) -> Any:
    """Return a trained and filled faiss index. The same rows give the same index.

    Args:
        vectors: float16 or float32 (rows, dimensions).
        kind: `ivf` or `pq`.
        cells: Cells of the first look.
        subvectors: Of `pq`: bytes per row; divides the dimensions.
    """
    faiss = load_faiss()
    faiss.omp_set_num_threads(1)
    rows, dimensions = vectors.shape
    coarse = faiss.IndexFlatIP(dimensions)
    if kind == "ivf":
        codes = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(coarse, dimensions, cells, codes, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexIVFPQ(coarse, dimensions, cells, subvectors, 8, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed = 10, _SEED
    sample = min(rows, max(64 * cells, 64 * 256 if kind == "pq" else 0))
    chosen = np.sort(np.random.default_rng(_SEED).choice(rows, sample, replace=False))
    index.train(np.ascontiguousarray(vectors[chosen], np.float32))
    for block in blocks_of(vectors):
        index.add(block)
    _code_centres(index)
    return index


def _code_centres(index: Any) -> None:
    """Store the centres of the cells in a byte per dimension: a query reads all of them.

    Rows were put into cells by the exact centres.
    """
    faiss = load_faiss()
    centres = index.quantizer.reconstruct_n(0, index.nlist)
    coded = faiss.IndexScalarQuantizer(index.d, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    coded.train(centres)
    coded.add(centres)
    index.quantizer, index.own_fields = coded, False
    index.referenced_objects = [coded]  # Python's to free, and not before the index


def write_faiss(index: Any, path: Path) -> None:
    """Write a faiss index to a file."""
    load_faiss().write_index(index, os.fspath(path))


def open_faiss(folder: Path, name: str, rows: int, dimensions: int, cells: int) -> Any:
    """Map a faiss index, whose digest was compared before: the library itself sees no damage.

    Raises:
        IndexDamagedError: It is another one than the manifest says.
        MissingExtraError: faiss is not installed.
    """
    faiss = load_faiss()
    try:
        index = faiss.read_index(os.fspath(folder / name), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        text = str(error).splitlines()[0][:200]
        raise IndexDamagedError(str(folder), name, f"is not a faiss index ({text})") from error
    found = {"rows": index.ntotal, "dimensions": index.d, "cells": getattr(index, "nlist", 0)}
    wanted = {"rows": rows, "dimensions": dimensions, "cells": cells}
    if found != wanted or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise IndexDamagedError(str(folder), name, f"has {found} by another metric, or not {wanted}")
    # Each search would start a thread per cell to read ahead what comparing the digests has just read.
    faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
    return index


def parameters_of(manifest: Mapping[str, int]) -> tuple[int, int, int]:
    """Return cells, probe and candidates."""
    return manifest.get("cells", 0), manifest.get("probe", 1), manifest.get("candidates", 3)
