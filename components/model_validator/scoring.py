"""Ask an exported model about every photo of the evaluation splits; keep little of each answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from mlplatform.components.model_validator.errors import ModelNotLoadableError, UnsupportedExamplesError
from mlplatform.exported_model.contents import read_labels
from mlplatform.progress import track
from mlplatform.vision.examples import IMAGE, ITEM_ID, LABEL, read_records, turn_webp
from mlplatform.vision.signatures import TOP

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


@dataclass(frozen=True)
class Classifier:
    """A loaded image classifier.

    Attributes:
        labels: Its class names, in the order of its probabilities.
        model: The SavedModel; its signatures hold its variables weakly, so it must live as long as they.
    """

    labels: list[str]
    model: Any

    def probabilities(self, examples: Sequence[bytes]) -> NDArray[np.float32]:
        """Return float32 probabilities (batch, classes) of serialized image Examples."""
        answer = self.model.signatures["serving_default"](examples=tf.constant(list(examples)))
        found: NDArray[np.float32] = answer["probabilities"].numpy()
        return found


# What TensorFlow raises for a SavedModel with missing or damaged files, or with operations that it does not
# know. Exhausted memory, refused permission and a failing disk are not among them: they say nothing of the
# model.
_DAMAGED = (
    ValueError,
    KeyError,
    TypeError,
    DecodeError,
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.UnimplementedError,
)


def load_classifier(model_dir: Path) -> Classifier:
    """Load the SavedModel of an image classifier.

    Raises:
        ModelNotLoadableError: TensorFlow cannot load it.
        OSError: Its files cannot be read, or its class names are missing.
    """
    try:
        model = tf.saved_model.load(str(model_dir))
    except _DAMAGED as error:
        raise ModelNotLoadableError(str(model_dir), brief(error)) from error
    except OSError as error:
        # The loader's own "file does not exist" and "cannot parse file" have no number; those of a disk have.
        if error.errno is not None:
            raise
        raise ModelNotLoadableError(str(model_dir), brief(error)) from error
    return Classifier(read_labels(model_dir), model)


def brief(error: BaseException) -> str:
    """Return an error's kind and the beginning of its text, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300].rstrip('.')}"


def score_photos(classifier: Classifier, files: Sequence[str], description: str) -> Answers:
    """Return the answers of `serving_default` to all Examples in `files`.

    Args:
        classifier: The model.
        files: TFRecord files of image Examples.
        description: What the progress line says.

    Raises:
        UnsupportedExamplesError: An Example has no photo or no label.
    """
    labels = classifier.labels
    place = {label: number for number, label in enumerate(labels)}
    truths: list[str] = []
    item_ids: list[str] = []
    parts: list[tuple[NDArray[Any], ...]] = []
    webp_photos = 0
    with track(description, unit="photos") as bar:
        for batch in _batches(files):
            webp_photos += sum(photo.was_webp for photo in batch)
            probabilities = classifier.probabilities([photo.example for photo in batch])
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
    place = 0
    for records in read_records(files).batch(BATCH_PHOTOS).prefetch(1).as_numpy_iterator():
        yield [_photo(record, place + number) for number, record in enumerate(records)]
        place += len(records)


def _photo(record: bytes, place: int) -> _Photo:
    example = parse_photo(record, place)
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


def parse_photo(record: bytes, place: int) -> tf.train.Example:
    """Return an Example that has a photo and a label.

    Args:
        record: The serialized Example.
        place: Its place in the evaluation splits, from 0, for the error.

    Raises:
        UnsupportedExamplesError: It has none, or it is no Example.
    """
    try:
        example = tf.train.Example.FromString(record)
    except DecodeError as error:
        raise UnsupportedExamplesError(f"a record (number {place + 1}) that is not an Example") from error
    features = example.features.feature
    missing = [name for name in (IMAGE, LABEL) if not (name in features and features[name].bytes_list.value)]
    if missing:
        raise UnsupportedExamplesError(
            f"an Example (record {place + 1}) with no {' and no '.join(map(repr, missing))}; it has "
            f"{_described(example) or 'no features'}"
        )
    return example


def _described(example: tf.train.Example) -> str:
    features = sorted(example.features.feature.items())
    words = [f"{name!r} ({(f.WhichOneof('kind') or 'empty').removesuffix('_list')})" for name, f in features]
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")


def check_examples(files: Sequence[str]) -> None:
    """See that the first Example of the files has a photo and a label.

    Raises:
        UnsupportedExamplesError: It has none.
    """
    for record in read_records(files).take(1).as_numpy_iterator():
        parse_photo(record, 0)


def _best(probabilities: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the places of the highest values of each row, best first; equal ones in the order of classes."""
    rough = np.sort(np.argpartition(-probabilities, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(probabilities, rough, axis=1), axis=1, kind="stable")
    return np.take_along_axis(rough, order, axis=1).astype(np.int64)
