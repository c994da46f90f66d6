"""Keeps `gc` and `forget` away from a dataset while it is read, where the reader may say so."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mlplatform.datasets.storage import Storage

_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def reading(storage: Storage, dataset: str) -> Iterator[None]:
    """Hold a dataset while the block reads it. Who may only read does without: readers need no permission."""
    with ExitStack() as held:
        try:
            held.enter_context(storage.hold(dataset, alone=False))
        except OSError as error:
            if error.errno not in _NOT_ALLOWED:
                raise
        yield
