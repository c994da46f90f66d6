"""Random changes of training photos that leave what they show as it is."""

import tensorflow as tf

SHIFT = 0.1  # of the photo's side, either way
SCALE = (0.8, 1.1)  # of the photo's sides that is seen
BRIGHTNESS = 0.15 * 255  # added or taken away


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirror, shift, scale and brighten each photo at random; what lies beyond its edge repeats the edge.

    Args:
        images: float32, shape (batch, height, width, 3), 0 to 255.
        seed: int64, shape (2,). The same seed changes the same photos in the same way, in any process.

    Returns:
        Images of the same shape and range.
    """
    shape = tf.shape(images)
    drawn = tf.random.stateless_uniform([5, shape[0]], seed, -1.0, 1.0)
    mirror = tf.where(drawn[0] > 0, 1.0, -1.0)
    scale = SCALE[0] + (SCALE[1] - SCALE[0]) * (drawn[1] + 1) / 2
    height, width = tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32)
    x_middle, y_middle = (width - 1) / 2, (height - 1) / 2
    zero = tf.zeros_like(scale)
    # Each row says where a pixel (x, y) of the result comes from: x' = a x + b y + c, y' = d x + e y + f.
    sources = tf.stack(
        [
            *(mirror * scale, zero, x_middle * (1 - mirror * scale) + SHIFT * width * drawn[2]),
            *(zero, scale, y_middle * (1 - scale) + SHIFT * height * drawn[3]),
            *(zero, zero),
        ],
        axis=1,
    )
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=sources,
        output_shape=shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return tf.clip_by_value(moved + BRIGHTNESS * drawn[4][:, None, None, None], 0.0, 255.0)
