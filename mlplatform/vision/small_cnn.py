"""A small convolutional network to train from nothing: the honest floor under a pretrained backbone."""

import keras

_WIDTHS = (32, 64, 128, 192, 256)


def small_cnn(image_size: int) -> keras.Model:
    """Build the network with random weights.

    Args:
        image_size: Height and width of the images, at least 32.

    Returns:
        float32 images, shape (batch, image_size, image_size, 3), 0 to 255 -> float32 features, shape
        (batch, 256).
    """
    images = keras.Input((image_size, image_size, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    x = keras.layers.Conv2D(_WIDTHS[0], 3, 2, "same", use_bias=False)(x)
    for width in _WIDTHS:
        x = _unit(x, width)
        x = keras.layers.MaxPooling2D()(x) if width != _WIDTHS[-1] else x
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="small_cnn")


def _unit(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    """Two separable convolutions beside a shortcut."""
    shortcut = keras.layers.Conv2D(width, 1, use_bias=False)(x)
    for _ in range(2):
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        x = keras.layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
    return keras.layers.Add()([x, shortcut])
