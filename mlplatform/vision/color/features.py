"""What a colour model looks at: colour statistics beside the first layers of a pretrained network."""

import keras
import tensorflow as tf

from mlplatform.vision.color import regions
from mlplatform.vision.color.lab import rgb_to_lab
from mlplatform.vision.color.names import SHADES, name_pixels, shade_probabilities
from mlplatform.vision.color.vocabulary import NAMES
from mlplatform.vision.efficientnet_lite import efficientnet_lite0

# Colour needs no detail: pixels are averaged down to about this many a side first.
STATISTICS_SIZE = 64
_EARLY = ("stem_relu", "block0_project_conv", "block2_add", "block4_add", "block6_add")


class ColorStatistics(keras.layers.Layer):
    """Images to statistics of their colours over the middle, the foreground and the border.

    Per region: square roots of the shares of the shades and of the rules' names (small shares then count as
    well), mean and deviation of CIELAB.
    """

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Return float32 (batch, `width`) of images (batch, size, size, 3), 0 to 255."""
        lab = lab_of(images)
        size = lab.shape[1]
        pixels = tf.reshape(lab, [-1, size * size, 3])
        what = tf.concat(
            [
                shade_probabilities(pixels),
                tf.one_hot(name_pixels(pixels), len(NAMES)),
                pixels / 100.0,
                (pixels / 100.0) ** 2,
            ],
            axis=-1,
        )
        where = tf.stack(
            [
                tf.broadcast_to(weights, tf.shape(pixels)[:2])
                for weights in (regions.middle(size), regions.foreground(lab), regions.border(size))
            ],
            axis=1,
        )
        means = tf.matmul(where, what)
        shares, mean, square = tf.split(means, [len(SHADES) + len(NAMES), 3, 3], axis=-1)
        deviation = tf.sqrt(tf.maximum(square - mean**2, 0.0) + 1e-8)
        found = tf.concat([tf.sqrt(tf.maximum(shares, 0.0)), mean, deviation], axis=-1)
        return tf.reshape(found, [-1, found.shape[1] * found.shape[2]])


def lab_of(images: tf.Tensor) -> tf.Tensor:
    """Return CIELAB of images, averaged down to about `STATISTICS_SIZE`."""
    step = max(images.shape[1] // STATISTICS_SIZE, 1)
    return rgb_to_lab(tf.nn.avg_pool2d(images, step, step, "VALID"))


def early_layers(image_size: int, *, pretrained: bool = True) -> keras.Model:
    """Return EfficientNet-Lite0 up to its block 6: channel means over the middle of the photo.

    Its pooled last layers are nearly blind to colour; the first ones are not. Means over all of the photo
    would tell of its ground: they make no answer better, and make wrong ones sure.

    Returns:
        float32 images, shape (batch, image_size, image_size, 3), 0 to 255 -> float32, shape (batch, 192).
    """
    network = efficientnet_lite0(image_size, pretrained=pretrained)
    pooled = []
    for name in _EARLY:
        found = network.get_layer(name).output
        edge = found.shape[1] // 4
        inner = keras.layers.Cropping2D(edge, name=f"middle_{name}")(found)
        pooled.append(keras.layers.GlobalAveragePooling2D(name=f"pool_middle_{name}")(inner))
    return keras.Model(network.inputs, keras.layers.Concatenate(name="early")(pooled), name="early_layers")


def color_features(image_size: int, *, pretrained: bool = True) -> keras.Model:
    """Return the whole of it: images to features.

    Returns:
        float32 images, shape (batch, image_size, image_size, 3), 0 to 255 -> float32 features.
    """
    early = early_layers(image_size, pretrained=pretrained)
    images = early.inputs[0]
    parts = [ColorStatistics(name="color_statistics")(images), early.outputs[0]]
    return keras.Model(images, keras.layers.Concatenate(name="features")(parts), name="color_features")
