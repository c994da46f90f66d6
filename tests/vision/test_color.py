"""Colours in the graph: CIELAB by known values, regions and rules on drawn photos, palettes."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from mlplatform.vision.color.features import ColorStatistics, lab_of
from mlplatform.vision.color.lab import lab_to_rgb, rgb_to_lab
from mlplatform.vision.color.names import SHADES, rule_names
from mlplatform.vision.color.palette import palette
from mlplatform.vision.color.regions import border, foreground, middle
from mlplatform.vision.color.vocabulary import NAMES, acceptable

WHITE, BLUE, RED = (240, 240, 240), (30, 70, 180), (200, 30, 40)
Rgb = tuple[int, int, int]


def flat(rgb: Rgb, size: int = 64) -> NDArray[np.float32]:
    return np.full((1, size, size, 3), rgb, np.float32)


def item(rgb: Rgb, ground: Rgb, size: int = 64) -> NDArray[np.float32]:
    """A photo of a square of one colour in the middle of a ground of another."""
    photo = flat(ground, size)
    photo[:, size // 4 : -size // 4, size // 4 : -size // 4] = rgb
    return photo


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)
def test_cielab_has_the_known_values(rgb: Rgb, lab: tuple[float, float, float]) -> None:
    found = rgb_to_lab(tf.constant([rgb], tf.float32))
    np.testing.assert_allclose(found.numpy()[0], lab, atol=0.06)
    np.testing.assert_allclose(lab_to_rgb(found).numpy()[0], rgb, atol=0.5)


def test_the_foreground_is_what_is_unlike_the_border() -> None:
    weights = foreground(lab_of(tf.constant(item(BLUE, WHITE)))).numpy().reshape(64, 64)
    assert weights.sum() == pytest.approx(1, abs=1e-4)
    assert weights[16:48, 16:48].sum() > 0.85


@pytest.mark.parametrize("size", [64, 100])
def test_each_region_weighs_one(size: int) -> None:
    for weights in (middle(size), border(size), foreground(lab_of(tf.constant(flat(RED, size))))):
        assert weights.shape == (1, size * size)
        assert weights.numpy().sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((20, 20, 22), "black"),
        ((238, 237, 235), "white"),
        ((134, 138, 144), "grey"),
        ((200, 38, 42), "red"),
        ((236, 126, 32), "orange"),
        ((240, 206, 52), "yellow"),
        ((52, 146, 66), "green"),
        ((28, 148, 148), "teal"),
        ((44, 84, 196), "blue"),
        ((122, 58, 168), "purple"),
        ((236, 132, 176), "pink"),
        ((122, 78, 46), "brown"),
    ],
)
def test_the_rules_name_plain_colours(rgb: Rgb, name: str) -> None:
    assert rule_names(lab_of(tf.constant(flat(rgb)))).numpy().tolist() == [name.encode()]


def test_the_rules_look_at_the_middle_and_know_many_colours() -> None:
    stripes = flat(WHITE)
    for number, name in enumerate(("red", "blue", "green", "yellow")):
        stripes[:, :, 16 + 8 * number : 24 + 8 * number] = SHADES[name]
    photos = np.concatenate([item(BLUE, WHITE), stripes])
    assert rule_names(lab_of(tf.constant(photos))).numpy().tolist() == [b"blue", b"multicolour"]


def test_the_palette_of_a_photo_of_one_colour_is_that_colour() -> None:
    rgb, share = palette(lab_of(tf.constant(np.concatenate([flat(RED), flat(WHITE), flat((0, 0, 0))]))))
    np.testing.assert_allclose(share.numpy(), [[1, 0, 0]] * 3, atol=1e-4)
    expected = np.array([[RED] * 3, [WHITE] * 3, [(0, 0, 0)] * 3], np.float32)
    np.testing.assert_allclose(rgb.numpy(), expected, atol=1.5)


def test_the_palette_holds_the_item_and_not_its_ground_largest_first() -> None:
    photo = item(BLUE, WHITE)
    photo[:, 16:26, 16:48] = RED
    rgb, share = (values.numpy()[0] for values in palette(lab_of(tf.constant(photo))))
    np.testing.assert_allclose(rgb[0], BLUE, atol=3)
    np.testing.assert_allclose(rgb[1], RED, atol=3)
    assert share[0] > 0.5 > share[1] > 0.15 > share[2]
    assert share.sum() == pytest.approx(1, abs=1e-4)


def test_statistics_are_finite_and_tell_colours_apart() -> None:
    photos = np.concatenate([item(BLUE, WHITE), item(RED, WHITE), flat((0, 0, 0)), flat((255, 255, 255))])
    found = ColorStatistics()(tf.constant(photos)).numpy()
    assert found.shape == (4, 3 * (len(SHADES) + len(NAMES) + 6))
    assert np.isfinite(found).all()
    assert np.abs(found[0] - found[1]).max() > 0.5


def test_a_name_that_is_not_known_is_what_it_is_called_without_it() -> None:
    assert acceptable(["navy"], NAMES) == ["blue", "black"]
    assert acceptable(["navy"], [*NAMES, "navy"]) == ["navy"]
    assert acceptable(["red", "pink", "red"], NAMES) == ["red", "pink"]
    assert acceptable(["red", "white", "blue", "green"], NAMES) == ["red", "white", "blue"]
    assert acceptable(["ultraviolet", "red"], NAMES) == []
    assert acceptable([], NAMES) == []
