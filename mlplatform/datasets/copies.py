"""Copies of shards that are made while they are read, so that no byte is read twice.

For a dataset without records: its shards become packs as they are, and reach the disk while others are read.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mlplatform.datasets.examples_folder import Shard
from mlplatform.files import EarlyWriter
from mlplatform.storage import Storage, naming

_SYNCED_AT_ONCE = 4


class Copies:
    """Files that hold what was read of shards; those that nobody takes are deleted."""

    def __init__(self, storage: Storage, dataset: str) -> None:
        self._storage, self._dataset = storage, dataset
        self._lock, self._is_closed = threading.Lock(), False
        self._partials: set[Path] = set()
        self._synced: dict[str, tuple[Path, Future[None]]] = {}
        self._syncing = ThreadPoolExecutor(_SYNCED_AT_ONCE)

    @contextmanager
    def of(self, shard: Shard) -> Iterator[EarlyWriter | None]:
        """Open the copy of a shard, for all its bytes; None once the copies are closed."""
        with self._lock:  # a thread that reads on after another failed must leave no file
            if self._is_closed:
                file = None
            else:
                partial = self._storage.aside(self._dataset)
                self._partials.add(partial)
                file = open(partial, "wb")  # noqa: SIM115 - closed below
        if file is None:
            yield None
            return
        with file:
            yield EarlyWriter(file)
        with self._lock:
            if not self._is_closed:
                self._synced[shard.path] = partial, self._syncing.submit(_sync, partial)

    def take(self, shard: Shard) -> Path | None:
        """Return the copy of a shard, which is the caller's from then on; None where there is none."""
        partial, synced = self._synced.pop(shard.path, (None, None))
        if partial is not None and synced is not None:
            self._partials.remove(partial)
            with naming(partial):
                synced.result()
        return partial

    def close(self) -> None:
        """Delete the copies that nobody took."""
        with self._lock:
            self._is_closed = True
            for partial in self._partials:
                partial.unlink(missing_ok=True)
        self._syncing.shutdown(cancel_futures=True)


def _sync(partial: Path) -> None:
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
