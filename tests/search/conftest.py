"""Vectors, and small indexes of them."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.search.build import BuildPlan, GoldenPhotos, IndexEntry, Source, write_index
from mlplatform.search.index import SearchIndex


@pytest.fixture(scope="session")
def samples() -> Any:
    """The module `samples`."""
    spec = importlib.util.spec_from_file_location("search_samples", Path(__file__).with_name("samples.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_index(tmp_path: Path, samples: Any) -> Callable[..., SearchIndex]:
    """Write an index of vectors, and open it."""

    def make(
        vectors: np.ndarray, entries: Sequence[IndexEntry] | None = None, name: str = "index", **plan: Any
    ) -> SearchIndex:
        entries = samples.entries_of(len(vectors)) if entries is None else entries
        golden = GoldenPhotos([b"photo"], vectors[:1], [entries[0].item_id])
        source = Source(
            fingerprint=samples.FINGERPRINT, records=len(entries), duplicates=len(entries) - len(vectors)
        )
        return write_index(tmp_path / name, vectors, entries, golden, source, BuildPlan(**plan))

    return make
