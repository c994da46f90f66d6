"""ML Metadata for several processes at once."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tfx.orchestration import metadata


class LockedMetadata(metadata.Metadata):
    """TFX's handle of ML Metadata, one process at a time: SQLite answers others with 'database is locked'.

    The kernel gives the lock back when its holder dies.
    """

    def __init__(self, connection_config: Any, lock: Path | None) -> None:
        super().__init__(connection_config)
        self._users: int = 0  # as TFX counts them; its store is there while there are any
        self._store: Any = None
        self._lock, self._descriptor = lock, -1
        self._open_store: Any = None

    def __enter__(self) -> "LockedMetadata":
        if self._users == 0 and self._lock is not None:
            self._descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        if self._users == 0 and self._open_store is not None:
            self._store, self._users = self._open_store, 1
            return self
        super().__enter__()
        if getattr(self._connection_config, "sqlite", None) and self._connection_config.HasField("sqlite"):
            self._open_store = self._store  # opening it again takes longer than what a node does with it
        return self

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let others use the database during work that does not need it; between transactions only."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        try:
            yield
        finally:
            if self._descriptor >= 0:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        super().__exit__(exc_type, exc_value, exc_tb)
        if self._users == 0 and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
