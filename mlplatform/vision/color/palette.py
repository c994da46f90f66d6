"""The main colours of an item: k-means in CIELAB over the foreground, inside the graph."""

import tensorflow as tf

from mlplatform.vision.color.lab import lab_to_rgb
from mlplatform.vision.color.regions import foreground

COLORS = 3
_ROUNDS = 6
_SAME = 12.0  # CIELAB distance below which two colours of a palette are one


def palette(lab: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the main colours of the foreground.

    Args:
        lab: float32, shape (batch, size, size, 3), CIELAB.

    Returns:
        The colours, float32 (batch, 3, 3), sRGB from 0 to 255, the one with most of the foreground first, and
        their shares of it, float32 (batch, 3), sum 1. An item of fewer colours has shares of 0 at the end,
        with the first colour again.
    """
    size = lab.shape[1]
    pixels = tf.reshape(lab, [-1, size * size, 3])
    weights = foreground(lab)
    centres = _first_centres(pixels, weights)
    for _ in range(_ROUNDS):
        shares, means = _assigned(pixels, weights, centres)
        centres = tf.where(shares[..., None] > 0, means, centres)
    shares, _ = _assigned(pixels, weights, _merged(centres))
    order = tf.argsort(shares, direction="DESCENDING", stable=True)
    shares = tf.gather(shares, order, batch_dims=1)
    centres = tf.gather(centres, order, batch_dims=1)
    centres = tf.where(shares[..., None] > 0, centres, centres[:, :1])
    return lab_to_rgb(centres), shares


def _first_centres(pixels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the foreground's mean colour, then twice the pixel farthest from those before, by weight."""
    centres = tf.reduce_sum(pixels * weights[..., None], axis=1, keepdims=True)
    for _ in range(COLORS - 1):
        far = tf.reduce_min(_distances(pixels, centres), axis=-1) * weights
        farthest = tf.gather(pixels, tf.argmax(far, axis=1), batch_dims=1)
        centres = tf.concat([centres, farthest[:, None]], axis=1)
    return centres


def _distances(pixels: tf.Tensor, centres: tf.Tensor) -> tf.Tensor:
    """Return squared distances, (batch, pixels, centres)."""
    return tf.reduce_sum((pixels[:, :, None] - centres[:, None]) ** 2, axis=-1)


def _assigned(pixels: tf.Tensor, weights: tf.Tensor, centres: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the weight of the pixels that are nearest to each centre, and their mean colours."""
    nearest = tf.one_hot(tf.argmin(_distances(pixels, centres), axis=-1), COLORS) * weights[..., None]
    shares = tf.reduce_sum(nearest, axis=1)
    means = tf.matmul(nearest, pixels, transpose_a=True) / tf.maximum(shares, 1e-9)[..., None]
    return shares, means


def _merged(centres: tf.Tensor) -> tf.Tensor:
    """Put a centre that nearly is one before it out of every pixel's reach."""
    found = [centres[:, 0]]
    for number in range(1, COLORS):
        before = tf.stack(found, axis=1)
        nearest = tf.reduce_min(tf.norm(before - centres[:, number, None], axis=-1), axis=-1)
        found.append(
            tf.where((nearest < _SAME)[:, None], tf.fill(tf.shape(found[0]), 1e4), centres[:, number])
        )
    return tf.stack(found, axis=1)
