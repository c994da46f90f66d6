"""The digest of a version: the same for the same records, whatever their order and shards."""

import hashlib
import itertools
from collections.abc import Iterable, Mapping

import numpy as np

from mlplatform.datasets.hashing import Ids

BUCKETS = (
    4096  # ids with the same first 12 bits are hashed together, so that a version can be hashed in parts
)
_BUCKET_SHIFT = 52
_TITLE = b"mlplatform dataset version 1\n"
_NOTHING = hashlib.sha256().digest()


def split_digest(ids: Ids) -> bytes:
    """Return the SHA-256 that stands for a multiset of record ids, in any order."""
    ids = ids[ids.order()]
    bounds = np.searchsorted(
        ids.high, np.arange(BUCKETS, dtype=np.uint64) << np.uint64(_BUCKET_SHIFT)
    ).tolist()
    data = memoryview(ids.to_bytes())
    bounds.append(len(ids))
    return join_buckets(
        hashlib.sha256(data[16 * begin : 16 * end]).digest() if end > begin else _NOTHING
        for begin, end in itertools.pairwise(bounds)
    )


def empty_bucket() -> bytes:
    """Return the SHA-256 of a bucket without ids."""
    return _NOTHING


def bucket_digest(ids: Ids) -> bytes:
    """Return the SHA-256 of the ids of one bucket, in any order."""
    return hashlib.sha256(ids[ids.order()].to_bytes()).digest()


def join_buckets(digests: Iterable[bytes]) -> bytes:
    """Return a split's digest from those of its `BUCKETS` buckets, in order.

    An empty one is SHA-256 of nothing.
    """
    return hashlib.sha256(b"".join(digests)).digest()


def version_digest(splits: Mapping[str, tuple[int, bytes]]) -> str:
    """Return a version's digest, in hexadecimal.

    Args:
        splits: Records and digest per split.
    """
    total = hashlib.sha256(_TITLE)
    for name, (records, digest) in sorted(splits.items(), key=lambda item: item[0].encode()):
        text = name.encode()
        total.update(len(text).to_bytes(4, "little") + text + records.to_bytes(8, "little") + digest)
    return total.hexdigest()
