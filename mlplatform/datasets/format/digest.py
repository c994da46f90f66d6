"""The digest of a version: the same for the same records, whatever their order and shards."""

import hashlib
import itertools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mlplatform.datasets.format.hashing import ID_BYTES, Ids
from mlplatform.datasets.format.tfrecord import Int64s, UInt64s

BUCKETS = 4096  # ids with the same first 12 bits are hashed together: a version can be hashed in parts
_BUCKET_SHIFT = np.uint64(52)


def split_digest(ids: Ids) -> bytes:
    """Return the SHA-256 that stands for a multiset of record ids, in any order."""
    return sorted_digest(ids.sorted().ids)


def sorted_digest(ids: Ids) -> bytes:
    """Return the SHA-256 that stands for a multiset of record ids, in order."""
    middle = BUCKETS // 2
    lower = int(np.searchsorted(ids.high, np.uint64(middle) << _BUCKET_SHIFT))
    with ThreadPoolExecutor(2) as threads:  # most of it is hashing, outside of Python
        halves = threads.map(bucket_digests, (ids[:lower], ids[lower:]), (0, middle), (middle, BUCKETS))
        return join_buckets(digest for half in halves for digest in half)


def bucket_bounds(high: UInt64s, first: int, last: int) -> Int64s:
    """Return where buckets begin in sorted ids, and where the last one ends.

    Args:
        high: uint64, ascending: the first 8 bytes of the ids.
        first: The first bucket.
        last: The one behind the last.

    Returns:
        int64, shape (last - first + 1,).
    """
    begins = np.searchsorted(high, np.arange(first, last, dtype=np.uint64) << _BUCKET_SHIFT)
    return np.append(begins, high.size).astype(np.int64)


def bucket_digests(ids: Ids, first: int, last: int) -> list[bytes]:
    """Return the SHA-256 of each bucket's ids; `ids` are all those of some buckets, in order."""
    data = memoryview(ids.to_bytes())
    bounds = bucket_bounds(ids.high, first, last).tolist()
    return [
        hashlib.sha256(data[ID_BYTES * begin : ID_BYTES * end]).digest()
        for begin, end in itertools.pairwise(bounds)
    ]


def join_buckets(digests: Iterable[bytes]) -> bytes:
    """Return a split's digest from those of its `BUCKETS` buckets, in order."""
    return hashlib.sha256(b"".join(digests)).digest()
