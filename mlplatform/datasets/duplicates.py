"""Photos of a dataset version that look alike: sent twice, scaled, compressed again, slightly cropped.

Each photo has a hash of 128 bits: where its grey values rise from pixel to pixel, along rows and columns of
a small copy ("difference hash"). Photos whose hashes differ in at most `NEAR` bits look alike. Of eight
parts of two such hashes at least one is the same, so only photos that share a part are compared.
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

NEAR = 7
_SIDE, _PARTS = 8, 8
_PHOTO = "image/encoded"


@dataclass(frozen=True)
class Photo:
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
        unreadable: Records whose photo cannot be decoded.
        groups: Photos that look alike, directly or through another one; the largest group first.
    """

    photos: int
    unreadable: int
    groups: list[list[Photo]]


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
        photos: list[Photo] = []
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
    """Return the hash of an encoded photo, 16 bytes; None where it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            grey = upright(image, encoded).convert("L")
            rows = np.asarray(grey.resize((_SIDE + 1, _SIDE), Image.Resampling.BOX), np.int16)
            columns = np.asarray(grey.resize((_SIDE, _SIDE + 1), Image.Resampling.BOX), np.int16)
    except Exception:  # noqa: BLE001 - image readers trip over broken bytes in any way
        return None
    bits = np.concatenate([(np.diff(rows, axis=1) > 0).ravel(), (np.diff(columns, axis=0) > 0).ravel()])
    return np.packbits(bits).tobytes()


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
    packed = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 2 * _SIDE)
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
    parts = hashes.view(">u2")  # (hashes, 8)
    for part in range(_PARTS):
        order = np.argsort(parts[:, part], kind="stable")
        starts = np.flatnonzero(np.diff(parts[order, part].astype(np.int64), prepend=-1))
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
            same = order[start:end]
            for number, place in enumerate(same[:-1].tolist()):
                others = same[number + 1 :]
                apart = np.unpackbits(hashes[others] ^ hashes[place], axis=1).sum(axis=1)
                yield from ((place, int(other)) for other in others[apart <= near])


def _photos(folder: Path) -> Iterator[Photo]:
    _, shards = list_shards(folder)
    for shard in shards:
        with open_records(shard) as stream:
            for window in read_windows(stream, shard.path):
                for start, end in zip(window.starts.tolist(), window.ends.tolist(), strict=True):
                    features = record_features(window.buffer[start:end].tobytes())
                    photo, item_id, label = (_first(features, name) for name in (_PHOTO, "item_id", "label"))
                    yield Photo(shard.split, _text(item_id), _text(label), photo)


def _first(features: dict[str, bytes], name: str) -> bytes:
    values = decode(features[name]) if name in features else []
    return values[0] if values and isinstance(values[0], bytes) else b""


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
