"""Search in this process, with a pushed model and its index, as a server would."""

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import DatasetNotFoundError, VersionNotFoundError
from mlplatform.registry import ModelStore
from mlplatform.registry.version_files import fetched
from mlplatform.reports.page import picture, write_page
from mlplatform.reports.thumbnails import thumbnail
from mlplatform.search.errors import NoIndexError, UnindexableVectorError
from mlplatform.search.fingerprint import INDEX_FOLDER, embedding_fingerprint
from mlplatform.search.index import LENGTH_TOLERANCE, SearchIndex, open_index
from mlplatform.search.live import Follower, Live
from mlplatform.search.segments import Segment, Segments, Value
from mlplatform.serving.saved_model import load
from mlplatform.serving.search import (
    FILTER,
    ITEM_IDS,
    SCORES,
    SEARCH_IMAGE_BYTES,
    Searches,
    attach_index,
    embedding_run,
)
from mlplatform.serving.servable import Servable, signature_not_found
from mlplatform.serving.status import StatusError, invalid_argument


@dataclass(frozen=True)
class OpenSearch:
    """A pushed version that searches in this process."""

    version: int
    servable: Servable
    searches: Searches

    def nearest(self, photo: bytes, count: int, condition: str = "") -> list[dict[str, Any]]:
        """Return the items nearest to a photo, the best first: `item_id`, `score`, and their columns.

        Raises:
            StatusError: The photo cannot be decoded, the filter cannot be meant, or `count` is more than an
                answer of this index holds.
        """
        most = self.searches.index.manifest.results
        if count > most:
            raise invalid_argument(f"an answer of this index has {most} items at most; asked for {count}")
        signature = self.servable.signature(SEARCH_IMAGE_BYTES, signature_not_found)
        photos = np.empty(1, np.object_)
        photos[0] = photo
        outputs = signature.run({"image_bytes": photos, FILTER: np.array([condition.encode()], np.object_)})
        live = self.searches.live()
        pairs = zip(outputs[ITEM_IDS][0].tolist(), outputs[SCORES][0].tolist(), strict=True)
        named = [(raw.decode(), score) for raw, score in pairs if raw][:count]
        return [{"item_id": name, "score": score, **self._columns(name, live)} for name, score in named]

    def _columns(self, item_id: str, live: Live) -> Mapping[str, Value]:
        return live.attributes(item_id) if item_id in live else self.searches.index.attributes(item_id)


@contextmanager
def open_search(models_dir: str, reference: str) -> Iterator[OpenSearch]:
    """Load a pushed version with its index.

    Args:
        models_dir: Folder or URL of pushed models.
        reference: NAME, or NAME@VERSION.

    Raises:
        ModelNotFoundError: There is no such model.
        ModelVersionNotFoundError: It has no such version.
        NoIndexError: It carries no index.
        StatusError: It cannot be loaded, or its index does not fit.
    """
    store = ModelStore(models_dir)
    name, _, wanted = reference.partition("@")
    version = store.version(name, wanted or "latest")
    with fetched(version.url) as folder:
        servable = load(folder, name, version.version)
        searches = attach_index(servable, store.base_path(name))
        if searches is None:
            raise NoIndexError(f"{name}@{version.version}")
        yield OpenSearch(version.version, servable, searches)


@contextmanager
def pushed_index(models_dir: str, reference: str) -> Iterator[tuple[Path, SearchIndex, Live]]:
    """Open a pushed index, and what was added and removed since; its model, in the folder, is not loaded.

    Raises:
        ModelNotFoundError: There is no such model.
        ModelVersionNotFoundError: It has no such version.
        NoIndexError: It carries no index.
        IndexDamagedError: It is not as it was written.
        EmbeddingMismatchError: It is another model's.
    """
    store = ModelStore(models_dir)
    name, _, wanted = reference.partition("@")
    version = store.version(name, wanted or "latest")
    with fetched(version.url) as folder:
        index = open_index(folder / INDEX_FOLDER)
        fingerprint = embedding_fingerprint(folder)
        index.check_model(fingerprint)
        segments = Segments(store.base_path(name))
        live = Follower(segments, index.manifest.segment, fingerprint, index.columns).now()
        yield folder, index, live


def add_items(models_dir: str, name: str, items: Sequence[tuple[str, bytes, Mapping[str, Value]]]) -> int:
    """Embed photos with the newest version of a model and add them to its index.

    Args:
        models_dir: Folder or URL of pushed models.
        name: The model's name.
        items: Item id, encoded photo, and values by column.

    Returns:
        The number of the segment that holds them: when this returns, every server finds them.

    Raises:
        NoIndexError: The newest version carries no index.
        StatusError: A photo cannot be decoded.
    """
    store = ModelStore(models_dir)
    version = store.version(name, "latest")
    with fetched(version.url) as folder:
        if not (folder / INDEX_FOLDER).is_dir():
            raise NoIndexError(f"{name}@{version.version}")
        run = embedding_run(load(folder, name, version.version))
        vectors = np.concatenate([_vector(run, item_id, photo) for item_id, photo, _ in items])
        fingerprint = embedding_fingerprint(folder)
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))
    if len(wrong):
        raise UnindexableVectorError(int(wrong[0]), f"has the length {lengths[wrong[0]]:.3g}")
    names = sorted({column for _, _, values in items for column in values})
    segment = Segment(
        fingerprint,
        [item_id for item_id, _, _ in items],
        vectors,
        [photo for _, photo, _ in items],
        {column: [values.get(column) for _, _, values in items] for column in names},
    )
    return Segments(store.base_path(name)).append(segment)


def _vector(run: Any, item_id: str, photo: bytes) -> Any:
    try:
        return run([photo])
    except StatusError as error:
        raise StatusError(error.code, f"item {item_id!r}: {error}") from error


def write_answers(
    path: Path,
    title: str,
    results: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    found: OpenSearch,
    datasets: str,
) -> Path:
    """Write a page with photos and the items that were found for them.

    Args:
        path: The HTML file.
        title: Its title.
        results: Files of photos, and what `OpenSearch.nearest` gave for each.
        found: What found them.
        datasets: The dataset store, which has the photos of the items that the index was built of.
    """
    wanted = {item["item_id"] for _, items in results for item in items}
    photos = _photos_of(wanted, found.searches.index.manifest.dataset, datasets)
    answers = [
        {
            "photo": photo,
            "picture": _thumbnail(Path(photo).read_bytes()),
            "found": [_card(item, photos) for item in items],
        }
        for photo, items in results
    ]
    return write_page(path, "search_answers.html", title=title, answers=answers)


def _photos_of(item_ids: Collection[str], dataset: str, datasets: str) -> dict[str, bytes]:
    """Return the first photo of each item that the dataset version has."""
    name, _, version = dataset.partition("@")
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch:
        try:
            folder = DatasetStore(datasets).checkout(name, version, Path(scratch) / "records")
        except (DatasetNotFoundError, VersionNotFoundError):  # built elsewhere, or deleted since
            return {}
        for file in sorted(folder.glob("Split-*/*")):
            kind = "GZIP" if file.suffix == ".gz" else ""
            for record in tf.data.TFRecordDataset(str(file), kind).as_numpy_iterator():
                features = tf.train.Example.FromString(record).features.feature
                item_id = b"".join(features["item_id"].bytes_list.value[:1]).decode()
                if item_id in item_ids and item_id not in found:
                    found[item_id] = b"".join(features["image/encoded"].bytes_list.value[:1])
    return found


def _card(item: Mapping[str, Any], photos: Mapping[str, bytes]) -> dict[str, Any]:
    columns = [(k, v) for k, v in item.items() if k not in ("item_id", "score") and v is not None]
    photo = photos.get(item["item_id"])
    shown = _thumbnail(photo) if photo else ""
    return {"item_id": item["item_id"], "score": item["score"], "picture": shown, "columns": columns}


def _thumbnail(photo: bytes) -> str:
    small = thumbnail(photo, 192)
    return picture(small) if small else ""
