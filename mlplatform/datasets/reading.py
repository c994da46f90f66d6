"""Keeps `gc` and `forget` away from a dataset while it is read, where the reader may say so."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from mlplatform.storage import Storage

_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def reading(storage: Storage, dataset: str) -> Iterator[None]:
    """Hold a dataset while the block reads it; who may not even open its lock reads without."""
    with ExitStack() as held:
        try:
            held.enter_context(storage.hold(dataset, alone=False))
        except OSError as error:
            if error.errno not in _NOT_ALLOWED:
                raise
            import fcntl

            lock = storage.local(f"{dataset}/lock")
            with suppress(OSError):  # a lock that may be read can be shared, though nothing may be written
                fcntl.flock(held.enter_context(open(lock or "", "rb")), fcntl.LOCK_SH)
        yield
