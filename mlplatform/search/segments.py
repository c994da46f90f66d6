"""Items added and removed since an index was built: numbered files that are written once, and never changed.

    <models_dir>/<model>/live/000000000001.npz

Each is durable before its writer says so, and its number is taken by whoever creates it first. Numbers have
no gaps, so that a reader who has seen number n looks for n + 1 alone.
"""

import io
import itertools
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplatform.search.errors import SegmentDamagedError
from mlplatform.storage import open_storage
from mlplatform.storage.urls import join

Array = NDArray[Any]
Value = str | int | float | None

FOLDER = "live"
_NAME = re.compile(r"[0-9]{12}\.npz")


@dataclass(frozen=True)
class Segment:
    """One change: items that were added, or that were removed.

    Attributes:
        fingerprint: The embedding of `vectors`; empty where items were removed.
        item_ids: The items.
        vectors: float32 (items, dimensions), of those that were added; else (0, 0).
        photos: Their photos, encoded: another model embeds them anew.
        columns: Their values by column, one per item.
        is_removal: The items were removed.
    """

    fingerprint: str
    item_ids: Sequence[str]
    vectors: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    photos: Sequence[bytes] = ()
    columns: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    is_removal: bool = False


class Segments:
    """The segments of one model.

    Args:
        base_path: The model's folder below the folder of models, a local path or a URL.
    """

    def __init__(self, base_path: str) -> None:
        self.url = join(base_path, FOLDER)
        self._storage = open_storage(base_path)
        self._local = self._storage.local(FOLDER)

    def newest(self) -> int:
        """Return the number of the last segment; 0 where there is none."""
        return max(
            (int(name[:12]) for name in self._storage.names(FOLDER) if _NAME.fullmatch(name)), default=0
        )

    def append(self, segment: Segment) -> int:
        """Write a segment; when this returns it survives a power cut. Returns its number.

        Raises:
            StoreAccessError: It cannot be written.
        """
        data = _packed(segment)
        number = self.newest() + 1
        while not self._storage.create(_path(number), data):  # another writer was quicker
            number += 1
        return number

    def read(self, number: int) -> Segment | None:
        """Return a segment; None where there is none of this number yet.

        Raises:
            SegmentDamagedError: It is not what was written.
        """
        # What a server looks for at each request.
        if self._local is not None and not os.path.exists(f"{self._local}/{_name(number)}"):  # noqa: PTH110
            return None
        try:
            data = self._storage.read(_path(number))
        except FileNotFoundError:
            return None
        return _unpacked(data, join(self.url, _name(number)))


def _name(number: int) -> str:
    return f"{number:012d}.npz"


def _path(number: int) -> str:
    return f"{FOLDER}/{_name(number)}"


def _packed(segment: Segment) -> bytes:
    head = {
        "fingerprint": segment.fingerprint,
        "item_ids": list(segment.item_ids),
        "columns": {name: list(values) for name, values in segment.columns.items()},
        "is_removal": segment.is_removal,
    }
    sizes = [len(photo) for photo in segment.photos]
    stream = io.BytesIO()
    np.savez(
        stream,
        head=np.frombuffer(json.dumps(head).encode(), np.uint8),
        vectors=np.asarray(segment.vectors, np.float32),
        photos=np.frombuffer(b"".join(segment.photos), np.uint8),
        offsets=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
    )
    return stream.getvalue()


def _unpacked(data: bytes, place: str) -> Segment:
    try:  # each array in the file has a checksum of its own
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            head = json.loads(arrays["head"].tobytes())
            content, offsets, vectors = arrays["photos"].tobytes(), arrays["offsets"], arrays["vectors"]
        photos = [content[a:b] for a, b in itertools.pairwise(offsets.tolist())]
        segment = Segment(
            str(head["fingerprint"]),
            list(head["item_ids"]),
            vectors,
            photos,
            head["columns"],
            head["is_removal"],
        )
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise SegmentDamagedError(place, str(error) or type(error).__name__) from error
    count = 0 if segment.is_removal else len(segment.item_ids)
    if len(vectors) != count or len(photos) != count or not np.isfinite(vectors).all():
        raise SegmentDamagedError(place, "its arrays do not fit its items")
    return segment
