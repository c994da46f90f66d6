"""Drawn photos for a model of colours: every category in every colour."""

from collections.abc import Iterator

import numpy as np

from mlplatform.demo.photos.catalogue import CATEGORIES, COLOURS
from mlplatform.demo.photos.scene import draw_photo, encode_jpeg

# No set of `make_photos` is drawn from it: its seeds are three numbers.
_STREAM = (3, 20)


def colored_photos(count: int, size_px: int, seed: int) -> Iterator[tuple[bytes, str]]:
    """Draw photos; the same arguments give the same bytes on the same Pillow version.

    Args:
        count: How many; the colours take turns.
        size_px: Width and height of the larger half of them. The others are drawn at about half of it: scaled
            up, they are as soft as many real photos are.
        seed: Seeds everything; 0 or more.

    Yields:
        Each photo as JPEG, and its colour.
    """
    categories, colors = list(CATEGORIES), list(COLOURS)
    for number in range(count):
        rng = np.random.default_rng([seed, *_STREAM, number])
        color = colors[number % len(colors)]
        category = categories[int(rng.integers(len(categories)))]
        side = size_px if number < count // 2 else size_px * 9 // 16
        yield encode_jpeg(draw_photo(category, color, side, rng), rng), color
