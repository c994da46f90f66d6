"""Reads image Examples (`image/encoded`, `label`, `item_id`) from TFRecord files as a stream."""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from PIL import Image

from mlplatform.errors import MlplatformError
from mlplatform.exif import upright
from mlplatform.progress import track
from mlplatform.vision.decoding import READS_WEBP, decode_image

IMAGE, LABEL, ITEM_ID = "image/encoded", "label", "item_id"
ReadLabels = Callable[[tf.Tensor], tf.Tensor]
_FEATURES = {
    IMAGE: tf.io.FixedLenFeature([], tf.string),
    LABEL: tf.io.FixedLenFeature([], tf.string, default_value=""),
    ITEM_ID: tf.io.FixedLenFeature([], tf.string, default_value=""),
}


class UnreadablePhotoError(MlplatformError):
    """Photos that the ingest accepted cannot be decoded by TensorFlow."""

    def __init__(self, item_ids: Sequence[str]) -> None:
        super().__init__(item_ids)
        self.item_ids = item_ids

    def __str__(self) -> str:
        shown = ", ".join(repr(item) for item in self.item_ids[:5])
        more = f" and {len(self.item_ids) - 5} more" if len(self.item_ids) > 5 else ""
        return (
            f"TensorFlow cannot decode the photo of item {shown}{more}. Remove or replace "
            f"{'it' if len(self.item_ids) == 1 else 'them'} in the source and ingest again."
        )


@dataclass(frozen=True)
class LabelCounts:
    """What a set of files holds.

    Attributes:
        records: Number of Examples.
        per_label: Number of Examples of each class name, in the order of the names.
    """

    records: int
    per_label: dict[str, int]


def read_records(files: Sequence[str]) -> tf.data.Dataset:
    """Stream serialized Examples in a fixed order: file by file, in the order given.

    Args:
        files: TFRecord files; names that end in `.gz` are GZIP. No files hold no Examples.

    Returns:
        A dataset of string scalars.
    """
    packed = [name for name in files if name.endswith(".gz")]
    plain = [name for name in files if not name.endswith(".gz")]
    datasets = [
        tf.data.TFRecordDataset(names, compression_type=compression)
        for names, compression in ((packed, "GZIP"), (plain, ""))
        if names
    ]
    if not datasets:
        return tf.data.TFRecordDataset([])
    return datasets[0] if len(datasets) == 1 else datasets[0].concatenate(datasets[1])


def read_label(records: tf.Tensor) -> tf.Tensor:
    """Return the feature `label`, string (n,), of serialized Examples, string (n,); each must have it."""
    return tf.io.parse_example(records, {LABEL: tf.io.FixedLenFeature([], tf.string)})[LABEL]


def count_labels(files: Sequence[str], label_of: ReadLabels = read_label) -> LabelCounts:
    """Read all files once and count their Examples by label; no image is decoded.

    Args:
        files: TFRecord files of Examples.
        label_of: Reads the labels, string (n,), of serialized Examples, string (n,).
    """
    counts: Counter[bytes] = Counter()
    with track("count photos by class", unit="photos") as bar:
        for labels in read_records(files).batch(1024).map(label_of):
            counts.update(labels.numpy().tolist())
            bar.advance(len(labels))
    return LabelCounts(sum(counts.values()), {name.decode(): counts[name] for name in sorted(counts)})


def parse_example(record: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parse one serialized Example.

    Returns:
        String scalars `image/encoded` (WebP turned into PNG where TensorFlow reads no WebP), `label` and
        `item_id`, empty where the Example has none.
    """
    example = tf.io.parse_single_example(record, _FEATURES)
    if not READS_WEBP:
        example[IMAGE] = _without_webp(example[IMAGE])
    return dict(example)


def sample_records(files: Sequence[str], count: int) -> list[bytes]:
    """Return the first serialized Examples, at most `count`, with photos that a served model can read.

    WebP is turned into PNG where this TensorFlow reads no WebP.
    """
    found: list[bytes] = []
    for record in read_records(files).take(count).as_numpy_iterator():
        example = tf.train.Example.FromString(record)
        found.append(example.SerializeToString(deterministic=True) if turn_webp(example) else record)
    return found


def find_unreadable(files: Sequence[str], at_most: int = 20) -> list[str]:
    """Return the item ids of photos that TensorFlow cannot decode, in the files' order."""
    found: list[str] = []
    for example in read_records(files).map(parse_example):
        try:
            decode_image(example[IMAGE], 8)
        except tf.errors.InvalidArgumentError:
            found.append(example[ITEM_ID].numpy().decode())
            if len(found) == at_most:
                break
    return found


@contextmanager
def naming_unreadable(files: Sequence[str]) -> Iterator[None]:
    """Name the photos in `files` that TensorFlow cannot decode, where the work within fails for them.

    Raises:
        UnreadablePhotoError: There are some.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        unreadable = find_unreadable(files)
        if unreadable:
            raise UnreadablePhotoError(unreadable) from error
        raise


def _without_webp(encoded: tf.Tensor) -> tf.Tensor:
    head = tf.strings.join([tf.strings.substr(encoded, 0, 12), b"\0" * 12])  # substr fails beyond the end
    has_webp_marks = (tf.strings.substr(head, 0, 4) == b"RIFF") & (tf.strings.substr(head, 8, 4) == b"WEBP")

    def transcode() -> tf.Tensor:
        png = tf.numpy_function(_webp_to_png, [encoded], tf.string)
        png.set_shape([])
        return png

    return tf.cond(has_webp_marks, transcode, lambda: encoded)


def _webp_to_png(encoded: Any) -> bytes:
    # Outside of graphs TensorFlow hands over an array of no dimensions.
    return webp_to_png(encoded if isinstance(encoded, bytes) else encoded.item())


def turn_webp(example: tf.train.Example) -> bool:
    """Turn a WebP photo into PNG, in place, where this TensorFlow reads no WebP; say whether it was one."""
    photo = example.features.feature[IMAGE].bytes_list.value
    if READS_WEBP or not is_webp(photo[0]):
        return False
    photo[0] = webp_to_png(photo[0])
    return True


def is_webp(encoded: bytes) -> bool:
    """The bytes begin as a WebP file does."""
    return encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"


def webp_to_png(encoded: bytes) -> bytes:
    """Return a WebP image as PNG, upright; bytes that are no image are returned as they are."""
    png = io.BytesIO()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            upright(image, encoded).convert("RGB").save(png, "PNG", compress_level=1, exif=b"")
    except Exception:  # noqa: BLE001 - broken files bring about any; TensorFlow then says that it is no image
        return encoded
    return png.getvalue()
