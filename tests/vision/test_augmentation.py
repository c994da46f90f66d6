"""Random changes of photos: within their bounds, and the same for the same seed."""

import numpy as np
import tensorflow as tf

from mlplatform.vision.augmentation import BRIGHTNESS, augment

IMAGES = np.random.default_rng(0).uniform(60, 190, (64, 32, 32, 3)).astype(np.float32)


def changed(images: np.ndarray, *seed: int) -> np.ndarray:
    return augment(tf.constant(images), tf.constant(seed, tf.int64)).numpy()


def test_the_same_seed_changes_photos_in_the_same_way() -> None:
    one = changed(IMAGES, 1, 2)

    np.testing.assert_array_equal(one, changed(IMAGES, 1, 2))
    for other in ((1, 3), (2, 2)):
        assert not np.allclose(one, changed(IMAGES, *other), atol=5)
    assert one.shape == IMAGES.shape
    assert one.min() >= 0
    assert one.max() <= 255


def test_each_photo_is_changed_in_its_own_way_and_brightness_stays_within_its_bound() -> None:
    grey = np.full((64, 8, 8, 3), 128, np.float32)  # nothing to see but brightness

    found = changed(grey, 0, 0)

    assert np.ptp(found, axis=(1, 2, 3)).max() < 1e-3
    levels = found[:, 0, 0, 0]
    assert len(set(levels.round(3))) == 64
    assert np.abs(levels - 128).max() <= BRIGHTNESS
    assert np.abs(levels - 128).max() > BRIGHTNESS / 2


def test_about_half_are_mirrored_and_none_is_turned_upside_down() -> None:
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32)[None, None, :, None] * 4 + 60, (64, 32, 32, 3))
    across, down = ramp, ramp.transpose(0, 2, 1, 3)

    mirrored = changed(np.ascontiguousarray(across), 5, 5)[:, 16, 20, 0]
    mirrored_from = changed(np.ascontiguousarray(across), 5, 5)[:, 16, 12, 0]
    assert 16 < (mirrored < mirrored_from).sum() < 48
    upright = changed(np.ascontiguousarray(down), 5, 5)
    assert (upright[:, 20, 16, 0] > upright[:, 12, 16, 0]).all()


def test_a_photo_stays_where_it_is_but_for_a_tenth_of_its_side_and_scale() -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32)[None, :, None, None] * 4 + 50, (64, 40, 40, 3))
    middle = changed(np.ascontiguousarray(ramp), 7, 7)[:, 19:21, 20, 0].mean(axis=1)

    # 4 grey levels a pixel: at most a tenth of 40 pixels away, and the brightness.
    assert np.abs(middle - 128).max() <= 4 * 4 + BRIGHTNESS + 1
