"""Decoding: what is read, how it is scaled, and how a broken image is named."""

import io
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mlplatform.vision.decoding import READS_WEBP, decode_batch


def test_a_photo_keeps_its_colours_at_any_size(colours: ModuleType) -> None:
    for kind in ("JPEG", "PNG"):
        images = decode_batch(tf.constant([colours.encode("red", kind=kind)]), 24)

        assert images.shape == (1, 24, 24, 3)
        assert images.dtype == tf.float32
        np.testing.assert_allclose(tf.reduce_mean(images, axis=[0, 1, 2]), (230, 20, 20), atol=3)


def test_images_of_several_sizes_and_modes_make_one_batch(colours: ModuleType) -> None:
    grey = io.BytesIO()
    Image.new("L", (7, 90), 100).save(grey, "PNG")

    images = decode_batch(tf.constant([colours.encode("green", side=100), grey.getvalue()]), 16)

    np.testing.assert_allclose(images[1], np.full((16, 16, 3), 100.0), atol=0.01)


def test_every_broken_image_is_named_by_its_place(colours: ModuleType) -> None:
    good = colours.encode("blue")
    batch = tf.constant([good, b"", good, good[: len(good) // 2], b"text", good])

    with pytest.raises(
        tf.errors.InvalidArgumentError, match="unreadable image at place 1, 3, 4 of the batch"
    ):
        decode_batch(batch, 16)


def test_a_batch_of_broken_images_only_is_refused_too() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="place 0, 1 of the batch"):
        decode_batch(tf.constant([b"", b"x"]), 16)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="the batch is empty"):
        decode_batch(tf.constant([], tf.string), 16)


def test_webp_is_read_or_refused_by_name(colours: ModuleType) -> None:
    batch = tf.constant([colours.encode("red", kind="WEBP")])
    if READS_WEBP:
        np.testing.assert_allclose(
            tf.reduce_mean(decode_batch(batch, 8), axis=[0, 1, 2]), (230, 20, 20), atol=4
        )
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"place 0 of the batch.*JPEG or PNG"):
            decode_batch(batch, 8)
