"""Photos of a dataset version that look alike: sent twice, scaled, compressed again, slightly cropped.

Each photo has a hash of 128 bits: the signs of the lowest frequencies of a small grey copy ("perceptual
hash"). Photos whose hashes differ in at most `NEAR` bits look alike. Of the eight parts of two such hashes at
least one differs in one bit at most, so only photos with such parts are compared. A photo of one plain colour
has no hash: all of them would look alike.
"""

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlplatform.datasets.examples_folder import list_shards, open_records
from mlplatform.datasets.format.features import decode, record_features
from mlplatform.datasets.format.tfrecord import read_windows
from mlplatform.datasets.store import DatasetStore
from mlplatform.exif import upright

NEAR = 15
_BYTES, _PARTS = 16, 8
_DECODED_PX = 64  # a JPEG is decoded at the smallest scale that has this many
_SIDE = 32
_LEAST_RANGE = 12  # of grey values 0 to 255, between the darkest and the brightest part of a photo
_PAIRS_AT_ONCE = 1 << 22
_PHOTO = "image/encoded"
# The type II discrete cosine transform, unscaled, and the places of its lowest frequencies but the mean.
_COSINES = np.cos(np.pi * np.outer(np.arange(16), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE))
_LOWEST = np.argsort(np.add.outer(np.arange(16), np.arange(16)).ravel(), kind="stable")[1 : 8 * _BYTES + 1]
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


@dataclass(frozen=True)
class StoredPhoto:
    """A photo of a version.

    Attributes:
        split: Its split.
        item_id: Its item; empty where it has none.
        label: Its class; empty where it has none.
        content: The encoded photo; empty where it was not asked for.
    """

    split: str
    item_id: str
    label: str
    content: bytes = b""


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
        photos: Photos that were compared.
        unreadable: Records whose photo cannot be decoded, or is of one plain colour.
        groups: Photos that look alike, directly or through another one; the largest group first.
    """

    photos: int
    unreadable: int
    groups: list[list[StoredPhoto]]


def find_duplicates(
    store: DatasetStore,
    dataset: str,
    version: str = "latest",
    *,
    near: int = NEAR,
    with_content: bool = False,
) -> Duplicates:
    """Compare all photos of a version.

    Args:
        store: The store.
        dataset: The dataset's name.
        version: `v3`, a tag, or `latest`.
        near: Bits of 128 that may differ, 0 to `NEAR`.
        with_content: Return the encoded photos of the groups.

    Raises:
        DatasetNotFoundError: There is no such dataset.
        VersionNotFoundError: It has no such version.
    """
    with tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch:
        folder = store.checkout(dataset, version, Path(scratch) / "records")
        photos: list[StoredPhoto] = []
        hashes: list[bytes] = []
        unreadable = 0
        for photo in _photos(folder):
            found = photo_hash(photo.content)
            if found is None:
                unreadable += 1
            else:
                photos.append(replace(photo, content=photo.content if with_content else b""))
                hashes.append(found)
    groups = [[photos[place] for place in group] for group in alike(hashes, near)]
    return Duplicates(len(photos), unreadable, groups)


def photo_hash(encoded: bytes) -> bytes | None:
    """Return the hash of an encoded photo, 16 bytes; None where it cannot be decoded, or is of one colour."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.draft("L", (_DECODED_PX, _DECODED_PX))
            grey = upright(image, encoded).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
            small = np.asarray(grey, np.float64)
    except Exception:  # noqa: BLE001 - image readers trip over broken bytes in any way
        return None
    if np.ptp(small) < _LEAST_RANGE:
        return None
    frequencies = _COSINES @ small @ _COSINES.T
    return np.packbits(frequencies.ravel()[_LOWEST] > 0).tobytes()


def alike(hashes: Sequence[bytes], near: int = NEAR) -> list[list[int]]:
    """Return groups of places whose hashes differ in at most `near` bits from another one of the group.

    Args:
        hashes: 16 bytes each.
        near: 0 to `NEAR`.

    Returns:
        Groups of at least two, the largest first, places ascending.
    """
    if not 0 <= near <= NEAR:
        raise ValueError(f"near is {near}; it can be 0 to {NEAR}")
    if not hashes:
        return []
    packed = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, _BYTES)
    unique, place_of = np.unique(packed, axis=0, return_inverse=True)
    place_of = place_of.ravel()  # NumPy 2.0 gives it another shape
    leader = np.arange(len(unique))

    def root(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = int(leader[place])
        return place

    for one, other in _near_pairs(unique, near):
        leader[root(one)] = root(other)
    groups: dict[int, list[int]] = {}
    for place, number in enumerate(place_of.tolist()):
        groups.setdefault(root(number), []).append(place)
    found = [group for group in groups.values() if len(group) > 1]
    return sorted(found, key=lambda group: (-len(group), group))


def _near_pairs(hashes: NDArray[Any], near: int) -> Iterator[tuple[int, int]]:
    """Yield the places of distinct hashes (n, 16) that differ in at most `near` bits; some repeatedly."""
    parts = hashes.view(">u2").astype(np.int64)  # (n, 8)
    changes = [0, *(1 << bit for bit in range(16))] if near >= _PARTS else [0]
    for part in range(_PARTS):
        values = parts[:, part]
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        for change in changes:
            low = np.searchsorted(ordered, values ^ change)
            counts = np.searchsorted(ordered, values ^ change, "right") - low
            ends = np.cumsum(counts)
            start = 0
            while start < len(values):  # as many rows as have so many pairs together, one at least
                done = ends[start - 1] if start else 0
                end = max(start + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, "right")))
                some = counts[start:end]
                one = np.repeat(np.arange(start, end), some)
                within = np.arange(len(one)) - np.repeat(ends[start:end] - some - done, some)
                other = order[np.repeat(low[start:end], some) + within]
                one, other = one[one < other], other[one < other]
                is_near = _ONES[hashes[one] ^ hashes[other]].sum(axis=1) <= near
                yield from zip(one[is_near].tolist(), other[is_near].tolist(), strict=True)
                start = end


def _photos(folder: Path) -> Iterator[StoredPhoto]:
    _, shards = list_shards(folder)
    for shard in shards:
        with open_records(shard) as stream:
            for window in read_windows(stream, shard.path):
                for start, end in zip(window.starts.tolist(), window.ends.tolist(), strict=True):
                    features = record_features(window.buffer[start:end].tobytes())
                    photo, item_id, label = (_first(features, name) for name in (_PHOTO, "item_id", "label"))
                    yield StoredPhoto(shard.split, _text(item_id), _text(label), photo)


def _first(features: dict[str, bytes], name: str) -> bytes:
    values = decode(features[name]) if name in features else []
    return values[0] if values and isinstance(values[0], bytes) else b""


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
