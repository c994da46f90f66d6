"""Embed photos on Beam: each once per model, in shards that survive whatever ends the run."""

import atexit
import functools
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from mlplatform.search.build import photo_digest
from mlplatform.storage import open_storage

Array = NDArray[Any]
Value = str | int | float

BATCH_PHOTOS = 32
GOLDEN_PHOTOS = 16
_IMAGE, _ID = "image/encoded", "item_id"
_NOT_COLUMNS = ("image/", "item_id", "path")
_LONGEST_TEXT = 200
DIGEST_BYTES = 16


@dataclass(frozen=True)
class PhotoRecord:
    """What is known of a record before it is embedded.

    Attributes:
        item_id: Its id; empty where it has none.
        split: The split that it is in.
        photo: Digest of its photo; empty where it has none.
        columns: Values that searches can be filtered by.
    """

    item_id: str
    split: str
    photo: bytes
    columns: Mapping[str, Value]


class EmbeddedPhotos:
    """Vectors by photo and embedding, below one folder or URL; what it lacks is computed again.

    Each shard, `<fingerprint>/<name>.npz`, appears whole. Its name is made of the photos, so a piece of work
    that is done twice writes the same file.

    Args:
        url: The folder.
        fingerprint: The embedding.
    """

    def __init__(self, url: str, fingerprint: str) -> None:
        self._url, self._folder = url, fingerprint[:16]

    def write(self, digests: Sequence[bytes], vectors: Array) -> None:
        """Keep the vectors of photos; one that is not finite is that of a photo which cannot be decoded."""
        stream = io.BytesIO()
        packed = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)
        np.savez(stream, photos=packed, vectors=np.asarray(vectors, np.float32))
        name = hashlib.sha256(b"".join(digests)).hexdigest()[:32]
        open_storage(self._url).put(f"{self._folder}/{name}.npz", stream.getvalue())

    def read(self) -> dict[bytes, Array]:
        """Return all vectors by their photos' digests; a shard that cannot be read is as none."""
        storage = open_storage(self._url)
        found: dict[bytes, Array] = {}
        for name in storage.names(self._folder):
            try:
                with np.load(io.BytesIO(storage.read(f"{self._folder}/{name}")), allow_pickle=False) as shard:
                    photos, vectors = shard["photos"], shard["vectors"]
            except Exception:  # noqa: BLE001 - damaged, as a power cut leaves it: computed again
                continue
            found.update((photo.tobytes(), vector) for photo, vector in zip(photos, vectors, strict=True))
        return found


@dataclass(frozen=True)
class Work:
    """What workers need.

    Attributes:
        model_dir: SavedModel that embeds, where each worker can read it.
        url: Folder of the vectors.
        fingerprint: The embedding.
    """

    model_dir: str
    url: str
    fingerprint: str


class EmbedPhotos(beam.PTransform):
    """Embeds what is not known yet of (photo digest, photo) pairs, and keeps the vectors.

    Equal photos come together, so each is embedded once. A worker holds one shard of photos in memory.
    """

    def __init__(self, work: Work, known: Set[bytes], shards: int) -> None:
        """Remember what to do.

        Args:
            work: With which model, and where to.
            known: Digests of photos that are left out.
            shards: Number of pieces.
        """
        super().__init__()
        self._work, self._known, self._shards = work, frozenset(known), shards

    def expand(self, photos: beam.PCollection) -> beam.PCollection:
        """Embed; gives the number of photos of each shard."""
        known, shards = self._known, self._shards
        return (
            photos
            | "LeaveOutKnown" >> beam.Filter(lambda pair: pair[0] not in known)
            | "AssignShard"
            >> beam.Map(lambda pair: (int.from_bytes(pair[0][:8], "big") % shards, pair)).with_output_types(
                tuple[int, tuple[bytes, bytes]]
            )
            | beam.GroupByKey()
            | "EmbedShard" >> beam.Map(_embed_shard, self._work)
        )


def _embed_shard(shard: tuple[int, Iterable[tuple[bytes, bytes]]], work: Work) -> int:
    photos = dict(sorted(shard[1]))
    vectors = embed(work.model_dir, list(photos.values()))
    EmbeddedPhotos(work.url, work.fingerprint).write(list(photos), vectors)
    return len(photos)


def embed(model_dir: str, photos: Sequence[bytes]) -> Array:
    """Return the vectors of photos, float32 (photos, dimensions); NaN for one that cannot be decoded."""
    from mlplatform.serving.status import StatusError  # TensorFlow, only where something is to be embedded
    from mlplatform.vision.decoding import READS_WEBP
    from mlplatform.vision.examples import is_webp, webp_to_png

    run = _embedder(model_dir)
    readable = [webp_to_png(p) if not READS_WEBP and is_webp(p) else p for p in photos]
    parts: list[Array] = []
    for start in range(0, len(readable), BATCH_PHOTOS):
        batch = readable[start : start + BATCH_PHOTOS]
        try:
            parts.append(run(batch))
        except StatusError:
            parts.extend(_one_by_one(run, batch))
    width = next((part.shape[1] for part in parts if part.shape[1]), 0)
    return np.concatenate(
        [part if part.shape[1] else np.full((1, width), np.nan, np.float32) for part in parts]
    )


def _one_by_one(run: Any, batch: Sequence[bytes]) -> Iterator[Array]:
    from mlplatform.serving.status import StatusError

    for photo in batch:
        try:
            yield run([photo])
        except StatusError:
            yield np.zeros((1, 0), np.float32)


@functools.lru_cache(maxsize=1)
def _embedder(model_dir: str) -> Any:
    """Load a model as servers do; once per process."""
    from mlplatform.serving.saved_model import load
    from mlplatform.serving.search import embedding_run

    return embedding_run(load(Path(model_dir), "embedder", 1))


# While TensorFlow is still there: a session that is closed after it complains.
atexit.register(_embedder.cache_clear)


def read_record(record: bytes, split: str) -> tuple[PhotoRecord, bytes]:
    """Return what a serialized Example says, and its photo, empty where it has none."""
    from tensorflow.core.example import example_pb2

    features = example_pb2.Example.FromString(record).features.feature
    photo = _first(features, _IMAGE)
    item_id = _first(features, _ID)
    columns = {
        name: value
        for name in sorted(features)
        if not name.startswith(_NOT_COLUMNS) and (value := _value(features[name])) is not None
    }
    encoded = photo if isinstance(photo, bytes) else b""
    name = item_id.decode("utf-8", "replace") if isinstance(item_id, bytes) else str(item_id or "")
    return PhotoRecord(name, split, photo_digest(encoded) if encoded else b"", columns), encoded


def _first(features: Any, name: str) -> Any:
    values = _values(features[name]) if name in features else ()
    return values[0] if values else None


def _values(feature: Any) -> Sequence[Any]:
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else ()


def _value(feature: Any) -> Value | None:
    values = _values(feature)
    if len(values) != 1:
        return None
    if not isinstance(values[0], bytes):
        return float(values[0]) if isinstance(values[0], float) else int(values[0])
    try:
        text = values[0].decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) <= _LONGEST_TEXT else None
