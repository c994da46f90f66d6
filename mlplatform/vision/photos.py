"""Photos as batches for end-to-end training."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from mlplatform.vision.decoding import decode_image
from mlplatform.vision.examples import IMAGE, LABEL, parse_example, read_records

SHUFFLED_PHOTOS = 4096


def photo_batches(
    files: Sequence[str],
    labels: Sequence[str],
    image_size: int,
    batch_size: int,
    *,
    seed: int | None = None,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
) -> tf.data.Dataset:
    """Stream decoded photos; photos of classes that are not in `labels` are left out.

    A photo that cannot be decoded ends the stream with TensorFlow's `InvalidArgumentError`, which does not
    say which it is: take the batches within `naming_unreadable`.

    Args:
        files: TFRecord files of image Examples.
        labels: Class names in the order of the model's outputs.
        image_size: Height and width of the images.
        batch_size: Photos per batch; the last batch may be smaller.
        seed: Order of the photos, the same for the same seed; None for the order of the files. At most
            `SHUFFLED_PHOTOS` encoded photos are held in memory.
        augment: Changes each batch of images at random, given a seed, int64 of shape (2,), that is made of
            `seed` and the batch's number: batches are the same again, also those after skipped ones.

    Returns:
        Batches of float32 images (batch, image_size, image_size, 3), 0 to 255, and int32 labels (batch,).
    """
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(list(labels)), tf.range(len(labels))),
        default_value=-1,
    )

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = parse_example(record)
        return example[IMAGE], table.lookup(example[LABEL])

    records = read_records(files)
    if seed is not None:
        records = records.shuffle(SHUFFLED_PHOTOS, seed=seed, reshuffle_each_iteration=False)
    batches = (
        records.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        .filter(lambda _, label: label >= 0)
        .map(
            lambda image, label: (decode_image(image, image_size), label), num_parallel_calls=tf.data.AUTOTUNE
        )
        .batch(batch_size)
    )
    if augment is not None:
        batches = batches.enumerate().map(
            lambda number, batch: (
                augment(batch[0], tf.stack([tf.cast(seed or 0, tf.int64), number])),
                batch[1],
            )
        )
    return batches.prefetch(2)
