"""Names of colours: what a pixel would be called, by distance to known shades and by written rules."""

import numpy as np
import tensorflow as tf

from mlplatform.vision.color.lab import rgb_to_lab
from mlplatform.vision.color.regions import middle
from mlplatform.vision.color.vocabulary import MULTICOLOUR, NAMES

# Shades that pixels are compared with: finer than names, so that a model can learn which of them people call
# what (navy is blue and nearly black, burgundy is red, olive is green).
SHADES: dict[str, tuple[int, int, int]] = {
    "black": (20, 20, 22),
    "charcoal": (52, 52, 56),
    "dark grey": (88, 88, 92),
    "grey": (130, 131, 134),
    "light grey": (176, 176, 178),
    "silver": (208, 208, 210),
    "white": (240, 240, 240),
    "cream": (236, 228, 208),
    "beige": (208, 190, 160),
    "tan": (176, 144, 106),
    "brown": (120, 80, 50),
    "dark brown": (66, 46, 36),
    "taupe": (124, 108, 96),
    "burgundy": (104, 24, 40),
    "red": (190, 30, 40),
    "coral": (232, 100, 86),
    "orange": (232, 122, 34),
    "mustard": (198, 150, 40),
    "yellow": (240, 210, 60),
    "pale yellow": (240, 226, 150),
    "olive": (96, 96, 50),
    "dark green": (30, 70, 46),
    "green": (52, 140, 66),
    "lime": (150, 200, 60),
    "mint": (160, 212, 186),
    "teal": (24, 140, 140),
    "dark teal": (20, 80, 88),
    "turquoise": (80, 196, 204),
    "light blue": (150, 190, 224),
    "blue": (40, 90, 190),
    "denim": (84, 110, 146),
    "slate": (96, 110, 126),
    "navy": (30, 36, 74),
    "lavender": (176, 160, 206),
    "purple": (112, 58, 150),
    "plum": (74, 36, 66),
    "magenta": (196, 44, 124),
    "pink": (232, 134, 172),
    "pale pink": (240, 202, 206),
    "dusty pink": (190, 140, 140),
}
_DOMINANT = 0.35  # share of the pixels below which no name stands for the photo
_NEARNESS = 9.0  # CIELAB distance over which a shade's claim on a pixel fades


def shade_probabilities(lab: tf.Tensor) -> tf.Tensor:
    """Return how much each pixel is of each of the `SHADES`, by nearness.

    Args:
        lab: float32, shape (..., 3), CIELAB.

    Returns:
        float32, shape (..., shades); each pixel's numbers sum to 1.
    """
    shades = rgb_to_lab(tf.constant(list(SHADES.values()), tf.float32))
    # |p - s|^2 without the pixel's own part, which is the same for all shades.
    distance = tf.reduce_sum(shades**2, axis=-1) - 2 * tf.tensordot(lab, shades, [[-1], [-1]])
    return tf.nn.softmax(-distance / (2 * _NEARNESS**2))


def name_pixels(lab: tf.Tensor) -> tf.Tensor:
    """Return the place in `NAMES` of each pixel's name, by written rules on lightness, chroma and hue.

    The rules were written before any label was seen; nothing in them is learned.

    Args:
        lab: float32, shape (..., 3), CIELAB.

    Returns:
        int32, shape (...).
    """
    lightness, a, b = tf.unstack(lab, axis=-1)
    chroma = tf.sqrt(a**2 + b**2)
    hue = tf.math.floormod(tf.atan2(b, a) * (180 / np.pi), 360.0)
    found = tf.fill(tf.shape(lightness), place_of("red"))

    def put(name: str, is_it: tf.Tensor) -> None:
        nonlocal found
        found = tf.where(is_it, place_of(name), found)

    def within(low: float, high: float) -> tf.Tensor:
        return (hue >= low) & (hue < high)

    put("orange", within(45, 72))
    put("yellow", within(72, 108))
    put("green", within(108, 172))
    put("teal", within(172, 228))
    put("blue", within(228, 302))
    put("purple", within(302, 338))
    put("pink", within(338, 360) & (lightness > 42))
    put("pink", ((hue < 40) | (hue >= 338)) & (lightness > 62))
    put("pink", within(318, 338) & (lightness > 62))
    put("brown", within(45, 80) & ((lightness < 52) | (chroma < 38)))
    put("brown", within(25, 45) & (lightness < 45) & (chroma < 28))
    put("brown", within(80, 98) & ((lightness < 45) | (chroma < 26)))
    put("green", within(98, 108) & (lightness < 60))
    is_grey = chroma < tf.where(within(228, 312), 7.0, 9.0)
    put("white", (lightness > 80) & (chroma < 16) & within(30, 115))
    put("grey", is_grey)
    put("white", is_grey & (lightness > 78))
    put("black", is_grey & (lightness < 28))
    put("black", (lightness < 13) & (chroma < 16))
    return found


def rule_names(lab: tf.Tensor) -> tf.Tensor:
    """Return what the written rules call each photo: what a trained model must not fall behind.

    Args:
        lab: float32, shape (batch, size, size, 3), CIELAB.

    Returns:
        string, shape (batch,): the name of most of the middle half's pixels, or `multicolour` where no name
        has `_DOMINANT` of them.
    """
    size = lab.shape[1]
    pixels = tf.one_hot(name_pixels(tf.reshape(lab, [-1, size * size, 3])), len(NAMES))
    shares = tf.tensordot(pixels, middle(size)[0], [[1], [0]])
    first = tf.gather(tf.constant(NAMES), tf.argmax(shares, axis=-1))
    return tf.where(tf.reduce_max(shares, axis=-1) < _DOMINANT, MULTICOLOUR, first)


def place_of(name: str) -> int:
    """Return a name's place in `NAMES`."""
    return NAMES.index(name)
