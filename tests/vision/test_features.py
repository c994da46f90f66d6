"""Features of a frozen backbone: computed once, in shards that a killed process leaves whole."""

from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest

from mlplatform.vision import features
from mlplatform.vision.examples import UnreadablePhotoError
from mlplatform.vision.features import FeatureStore, compute_features

LABELS = ["blue", "green", "red"]


@pytest.fixture
def backbone() -> keras.Model:
    """Features of an image: the mean colours of its left and of its right half, 0 to 1."""
    images = keras.Input((16, 16, 3))
    halves = keras.layers.AveragePooling2D((16, 8))(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Flatten()(halves))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SHARD_PHOTOS", 4)
    monkeypatch.setattr(features, "BATCH_PHOTOS", 2)


def compute(
    backbone: keras.Model, file: str, folder: Path, photos: int, mirrored: bool = False
) -> FeatureStore:
    return compute_features(
        backbone, [file], LABELS, folder, photos=photos, mirrored=mirrored, description="compute"
    )


def test_features_and_labels_lie_in_the_order_of_the_files(
    colours: ModuleType, backbone: keras.Model, tmp_path: Path
) -> None:
    file = colours.write(tmp_path / "a.gz", colours.examples(3))

    store = compute(backbone, file, tmp_path / "f", 9)

    (values, labels), *rest = store.batches(100, seed=None)
    assert not rest
    assert labels.tolist() == [2, 1, 0] * 3
    assert values.dtype == np.float32
    red = np.array([230, 20, 20] * 2) / 255
    np.testing.assert_allclose(values[0], red, atol=0.02)
    assert store.width == 6
    assert len(store.shards) == 3


def test_the_mirror_image_is_the_second_view(
    colours: ModuleType, backbone: keras.Model, tmp_path: Path
) -> None:
    file = colours.write(tmp_path / "a.gz", colours.examples(1))

    store = compute(backbone, file, tmp_path / "f", 3, mirrored=True)

    with np.load(store.shards[0]) as arrays:
        views = arrays["features"]
    assert views.shape == (3, 2, 6)
    np.testing.assert_allclose(views[:, 0, :3], views[:, 1, 3:], atol=1e-3)


def test_the_order_of_an_epoch_depends_on_its_seed_alone(
    colours: ModuleType, backbone: keras.Model, tmp_path: Path
) -> None:
    file = colours.write(tmp_path / "a.gz", colours.examples(5))
    store = compute(backbone, file, tmp_path / "f", 15, mirrored=True)

    def order(seed: int) -> np.ndarray:
        return np.concatenate([values for values, _ in store.batches(4, seed=seed)])

    np.testing.assert_array_equal(order(1), order(1))
    assert not np.array_equal(order(1), order(2))
    labels = np.concatenate([labels for _, labels in store.batches(4, seed=1)])
    assert sorted(labels) == sorted([0, 1, 2] * 5)


def test_a_second_process_computes_only_what_is_missing(
    colours: ModuleType, backbone: keras.Model, tmp_path: Path
) -> None:
    file = colours.write(tmp_path / "a.gz", colours.examples(4))
    whole = compute(backbone, file, tmp_path / "whole", 12)
    part = compute(backbone, file, tmp_path / "part", 12)
    part.shards[1].unlink()
    part.shards[2].unlink()
    kept = part.shards[0].stat().st_mtime_ns

    part = compute(backbone, file, tmp_path / "part", 12)

    assert part.shards[0].stat().st_mtime_ns == kept
    for one, other in zip(whole.batches(5, seed=3), part.batches(5, seed=3), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert {path.name for path in (tmp_path / "part").iterdir()} == {shard.name for shard in part.shards}


def test_photos_of_unknown_classes_are_left_out(
    colours: ModuleType, backbone: keras.Model, tmp_path: Path
) -> None:
    records = [*colours.examples(1), colours.example(colours.encode("red"), "crimson", "c")]
    file = colours.write(tmp_path / "a.gz", records)

    store = compute(backbone, file, tmp_path / "f", 4)

    assert [labels.tolist() for _, labels in store.batches(10, seed=None)] == [[2, 1, 0]]


def test_an_unreadable_photo_is_named_and_leaves_whole_shards(
    colours: ModuleType, backbone: keras.Model, tmp_path: Path
) -> None:
    records = [*colours.examples(2), colours.example(b"text", "red", "broken-one")]
    file = colours.write(tmp_path / "a.gz", records)

    with pytest.raises(UnreadablePhotoError, match="'broken-one'"):
        compute(backbone, file, tmp_path / "f", 7)
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["features-000000.npz"]
