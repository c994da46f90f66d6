"""A head on the pooled features of item_category is nearly blind to colour; the colour features are not."""

import csv
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from mlplatform.vision.color.features import color_features
from mlplatform.vision.decoding import decode_image
from mlplatform.vision.efficientnet_lite import efficientnet_lite0

DATA = Path(__file__).parents[3] / "shared" / "data"
LISTING = DATA / "clothing_colors" / "listing.csv"
SIZE, FOLDS, PENALTY = 128, 5, 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.shared_data,
    pytest.mark.skipif(not LISTING.is_file(), reason=f"the development data is missing: {LISTING}"),
]
Array = NDArray[Any]


def top_1(network: keras.Model, photos: Array, colors: Array, folds: Array) -> float:
    """Cross-validated top-1 of a ridge classifier on a network's features, the same for every network."""
    features = np.concatenate(
        [
            np.asarray(network(photos[start : start + 32], training=False))
            for start in range(0, len(photos), 32)
        ]
    ).astype(np.float64)
    names = np.unique(colors)
    wanted = (colors[:, None] == names).astype(np.float64)
    right = 0
    for fold in range(FOLDS):
        is_train = folds != fold
        mean, deviation = features[is_train].mean(axis=0), features[is_train].std(axis=0) + 1e-3
        scaled = (features - mean) / deviation
        kernel = scaled[is_train] @ scaled[is_train].T + PENALTY * np.eye(int(is_train.sum()))
        base = wanted[is_train].mean(axis=0)
        weights = scaled[is_train].T @ np.linalg.solve(kernel, wanted[is_train] - base)
        answers = names[(scaled[~is_train] @ weights + base).argmax(axis=1)]
        right += int((answers == colors[~is_train]).sum())
    return right / len(colors)


def test_the_colour_features_are_ten_points_above_the_pooled_ones() -> None:
    with LISTING.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    encoded = [(DATA / "clothing" / row["path"]).read_bytes() for row in rows]
    photos = np.stack([decode_image(tf.constant(photo), SIZE).numpy() for photo in encoded])
    colors = np.array([row["color"] for row in rows])
    sellers = {seller: place for place, seller in enumerate(sorted({row["seller"] for row in rows}))}
    folds = np.array([sellers[row["seller"]] % FOLDS for row in rows])
    pooled = top_1(efficientnet_lite0(SIZE), photos, colors, folds)
    colour = top_1(color_features(SIZE), photos, colors, folds)
    assert colour >= pooled + 0.10, (colour, pooled)
