"""Random changes of training photos that leave what they show as it is."""

import keras


def augmentation(image_size: int) -> keras.Model:
    """Return a network that mirrors, shifts, scales and brightens photos at random while training.

    Takes and gives float32 images, shape (batch, image_size, image_size, 3), 0 to 255.
    """
    images = keras.Input((image_size, image_size, 3))
    x = keras.layers.RandomFlip("horizontal")(images)
    x = keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest")(x)
    x = keras.layers.RandomZoom((-0.2, 0.1), fill_mode="nearest")(x)
    x = keras.layers.RandomBrightness(0.15, value_range=(0, 255))(x)
    return keras.Model(images, x, name="augmentation")
