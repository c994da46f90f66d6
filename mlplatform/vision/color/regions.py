"""Where in a photo its item is: weights of the pixels of the middle, the foreground and the border."""

from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

BORDER = 1 / 12  # of the photo's side, on each of its four sides
_PATCHES = 4  # patches along a side whose mean colours stand for the border
# CIELAB distance from the border's colours at which a pixel is foreground as likely as not, and how sharply.
_FAR, _SHARPNESS = 14.0, 5.0
_REACH = 0.32  # of the photo's side: width of the bell by which the middle counts more
_LEAST = 0.02  # weight of a pixel that is like the border: a photo of one colour has a foreground too


def middle(size: int) -> tf.Tensor:
    """Return the middle half of each side, float32 (1, size * size), sum 1."""
    return _normalised(_square(size, size // 4))


def border(size: int) -> tf.Tensor:
    """Return the outermost twelfth, float32 (1, size * size), sum 1."""
    return _normalised(1 - _square(size, max(round(size * BORDER), 1)))


def foreground(lab: tf.Tensor) -> tf.Tensor:
    """Return how much each pixel belongs to the item: unlike the border's colours, near the middle.

    Args:
        lab: float32, shape (batch, size, size, 3), CIELAB.

    Returns:
        float32, shape (batch, size * size); each photo's weights sum to 1.
    """
    size = lab.shape[1]
    edge = max(round(size * BORDER), 1)
    sides = [lab[:, :edge], lab[:, -edge:], lab[:, :, :edge], lab[:, :, -edge:]]
    patches = []
    ends = [size * number // _PATCHES for number in range(_PATCHES + 1)]
    for low, high in pairwise(ends):
        patches += [tf.reduce_mean(side[:, :, low:high], axis=[1, 2]) for side in sides[:2]]
        patches += [tf.reduce_mean(side[:, low:high], axis=[1, 2]) for side in sides[2:]]
    pixels = tf.reshape(lab, [-1, size * size, 1, 3])
    distance = tf.norm(pixels - tf.stack(patches, axis=1)[:, None] + 1e-6, axis=-1)
    unlike = tf.sigmoid((tf.reduce_min(distance, axis=-1) - _FAR) / _SHARPNESS)
    weights = (unlike + _LEAST) * tf.constant(_bell(size))
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _square(size: int, edge: int) -> NDArray[np.float32]:
    inside = np.zeros((size, size), np.float32)
    inside[edge : size - edge, edge : size - edge] = 1
    return inside


def _bell(size: int) -> NDArray[np.float32]:
    axis = (np.arange(size) + 0.5) / size - 0.5
    line = np.exp(-(axis**2) / (2 * _REACH**2)).astype(np.float32)
    return np.outer(line, line).reshape(1, -1)


def _normalised(weights: NDArray[Any]) -> tf.Tensor:
    return tf.constant((weights / weights.sum()).reshape(1, -1))
