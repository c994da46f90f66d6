"""Which split a record belongs to."""

import hashlib
from collections.abc import Mapping
from itertools import accumulate


def split_of(key: str, weights: Mapping[str, int]) -> str:
    """Return the split that a stable hash of `key` chooses: the same key, the same split, for ever.

    Only the proportions of the weights matter, so 8 to 2 divides as 4 to 1 does.

    Args:
        key: What stays together: an item id, a seller id.
        weights: Splits in their order, with their weights, each above 0.
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") * sum(weights.values()) >> 64
    return next(name for name, end in zip(weights, accumulate(weights.values()), strict=True) if place < end)
