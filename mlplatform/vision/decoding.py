"""Encoded images to pixels, inside TensorFlow graphs: the same operations in training and in serving."""

import tensorflow as tf

from mlplatform.vision.orientation import turn_upright

# tf.io.decode_image reads WebP from the TensorFlow version that brings this function on.
READS_WEBP = hasattr(tf.io, "decode_webp")
READABLE_FORMATS = ("JPEG", "PNG", "WebP") if READS_WEBP else ("JPEG", "PNG")


def decode_image(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode one image, upright, and scale it to the model's size; its sides are scaled independently.

    Args:
        encoded: string scalar, a whole JPEG or PNG file (WebP where `READS_WEBP`).
        image_size: Height and width of the result.

    Returns:
        float32, shape (image_size, image_size, 3), 0 to 255. A grey image is repeated over the three
        channels; transparency is dropped; an EXIF orientation is applied.

    Raises:
        tf.errors.InvalidArgumentError: It is no complete image of a readable format.
    """
    pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    pixels.set_shape([None, None, 3])
    scaled = tf.image.resize(tf.cast(pixels, tf.float32), [image_size, image_size], antialias=True)
    return turn_upright(tf.clip_by_value(scaled, 0.0, 255.0), encoded)


def decode_batch(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode a batch of images; an unreadable one is an error that names its place in the batch.

    Args:
        encoded: string, shape (batch,), encoded images, at least one.
        image_size: Height and width of the result.

    Returns:
        float32, shape (batch, image_size, image_size, 3), 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: Images are unreadable; the text names all of their places, from 0;
            or the batch is empty.

    Source: a dataset within a served function, as `tf.data.Dataset.get_single_element` documents it; a graph
    has no other way to go on after an operation failed.
    """
    count = tf.size(encoded, out_type=tf.int64)
    decoded = (
        tf.data.Dataset.from_tensor_slices(encoded)
        .enumerate()
        .map(
            lambda place, image: (place, decode_image(image, image_size)), num_parallel_calls=tf.data.AUTOTUNE
        )
        .ignore_errors()
        .batch(tf.maximum(count, 1))
    )
    nothing = tf.data.Dataset.from_tensors(
        (tf.zeros([0], tf.int64), tf.zeros([0, image_size, image_size, 3], tf.float32))
    )
    places, images = decoded.concatenate(nothing).take(1).get_single_element()
    unread = tf.sets.difference(tf.range(count)[None], places[None]).values
    text = tf.strings.join(
        [
            "unreadable image at place ",
            tf.strings.reduce_join(tf.strings.as_string(unread), separator=", "),
            " of the batch (counted from 0); an image is a complete file of format ",
            " or ".join(READABLE_FORMATS),
        ]
    )
    checks = [
        tf.debugging.Assert(count > 0, ["the batch is empty"]),
        tf.debugging.Assert(tf.equal(tf.size(unread), 0), [text]),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(images)
