"""Ask an exported model about every photo of the evaluation splits; keep little of each answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlplatform.progress import track
from mlplatform.vision.examples import ITEM_ID, LABEL, read_records, turn_webp
from mlplatform.vision.exported import TOP, read_labels

BATCH_PHOTOS = 32
NOT_FOUND = TOP  # the rank of a class that is not among the answers kept


@dataclass(frozen=True)
class Answers:
    """What a model says of n photos, in the order of the files.

    Attributes:
        labels: The model's class names.
        truths: n class names, as the Examples give them.
        item_ids: n item ids.
        ranks: int, shape (n,): place of the true class among the answers, 0 for the first; `NOT_FOUND` where
            it is not among them.
        classes: int, shape (n, k): the best classes as places in `labels`, best first.
        scores: float32, shape (n, k): their scores.
        webp_photos: How many photos are WebP, which was turned into PNG as this TensorFlow cannot read it.
    """

    labels: list[str]
    truths: list[str]
    item_ids: list[str]
    ranks: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]
    webp_photos: int

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Photos whose first answer is their class."""
        return np.equal(self.ranks, 0)


def score_photos(model_dir: Path, files: Sequence[str], description: str) -> Answers:
    """Return the answers of `serving_default` to all Examples in `files`.

    Args:
        model_dir: SavedModel of an image classifier.
        files: TFRecord files of image Examples.
        description: What the progress line says.
    """
    labels = read_labels(model_dir)
    place = {label: number for number, label in enumerate(labels)}
    serve = tf.saved_model.load(str(model_dir)).signatures["serving_default"]
    truths: list[str] = []
    item_ids: list[str] = []
    parts: list[tuple[NDArray[Any], ...]] = []
    webp_photos = 0
    with track(description, unit="photos") as bar:
        for batch in _batches(files):
            webp_photos += sum(photo.was_webp for photo in batch)
            probabilities = serve(examples=tf.constant([p.example for p in batch]))["probabilities"].numpy()
            classes = _best(probabilities, min(TOP, len(labels)))
            known = np.array([place.get(photo.truth, -1) for photo in batch])
            hits = classes == known[:, None]
            ranks = np.where(hits.any(axis=1), hits.argmax(axis=1), NOT_FOUND)
            parts.append((ranks, classes, np.take_along_axis(probabilities, classes, axis=1)))
            truths += [photo.truth for photo in batch]
            item_ids += [photo.item_id for photo in batch]
            bar.advance(len(batch))
    if not parts:
        empty = np.zeros((0, min(TOP, len(labels))))
        return Answers(labels, [], [], np.zeros(0, np.int64), empty.astype(np.int64), empty.astype("f4"), 0)
    ranks, classes, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Answers(labels, truths, item_ids, ranks, classes, scores, webp_photos)


@dataclass(frozen=True)
class _Photo:
    example: bytes
    truth: str
    item_id: str
    was_webp: bool


def _batches(files: Sequence[str]) -> Iterator[list[_Photo]]:
    for records in read_records(files).batch(BATCH_PHOTOS).prefetch(1).as_numpy_iterator():
        yield [_photo(record) for record in records]


def _photo(record: bytes) -> _Photo:
    example = tf.train.Example.FromString(record)
    features = example.features.feature
    is_turned = turn_webp(example)
    if is_turned:
        record = example.SerializeToString()
    item_id = features[ITEM_ID].bytes_list.value if ITEM_ID in features else []
    return _Photo(
        record,
        features[LABEL].bytes_list.value[0].decode(),
        item_id[0].decode() if item_id else "",
        is_turned,
    )


def _best(probabilities: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the places of the highest values of each row, best first; equal ones in the order of classes."""
    rough = np.sort(np.argpartition(-probabilities, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(probabilities, rough, axis=1), axis=1, kind="stable")
    return np.take_along_axis(rough, order, axis=1).astype(np.int64)
