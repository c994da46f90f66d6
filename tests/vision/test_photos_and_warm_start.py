"""Photos for end-to-end training, and starting from an exported model."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from mlplatform.taxonomy import Taxonomy
from mlplatform.vision.augmentation import augment
from mlplatform.vision.photos import photo_batches
from mlplatform.vision.signatures import export_image_classifier
from mlplatform.vision.warm_start import BaseModelDoesNotFitError, start_from


def test_photos_come_shuffled_by_their_seed_alone(colours: ModuleType, tmp_path: Path) -> None:
    records = [*colours.examples(4), colours.example(colours.encode("red"), "unknown", "u")]
    file = colours.write(tmp_path / "a.gz", records)

    def labels(seed: int | None) -> list[int]:
        batches = photo_batches([file], ["blue", "green", "red"], 16, 5, seed=seed)
        return [int(label) for _, part in batches for label in part]

    assert labels(None) == [2, 1, 0] * 4
    assert labels(1) == labels(1)
    assert labels(1) != labels(2)
    assert sorted(labels(1)) == sorted(labels(None))


def test_batches_after_skipped_ones_are_changed_as_they_always_are(
    colours: ModuleType, tmp_path: Path
) -> None:
    file = colours.write(tmp_path / "a.gz", colours.examples(4))

    def batches(seed: int) -> tf.data.Dataset:
        return photo_batches([file], ["blue", "green", "red"], 16, 5, seed=seed, augment=augment)

    whole = [images.numpy() for images, _ in batches(3)]
    rest = [images.numpy() for images, _ in batches(3).skip(1)]

    for one, other in zip(whole[1:], rest, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.allclose(whole[0], next(iter(batches(4)))[0])


def test_a_new_model_starts_with_the_classes_that_both_know(colours: ModuleType, tmp_path: Path) -> None:
    old = colours.colour_network(16, ["blue", "green", "red"])
    export_image_classifier(old, ["blue", "green", "red"], 16, tmp_path / "old", samples=colours.examples(1))
    labels = ["green", "pink", "red"]
    new = colours.colour_network(16, ["none", "of", "these"])
    untouched = np.array(new.weights[0])[:, 1]

    start_from(new, labels, tmp_path / "old")

    kernel, old_kernel = np.array(new.weights[0]), np.array(old.weights[0])
    np.testing.assert_array_equal(kernel[:, 0], old_kernel[:, 1])
    np.testing.assert_array_equal(kernel[:, 1], untouched)
    np.testing.assert_array_equal(kernel[:, 2], old_kernel[:, 2])


def test_a_new_model_starts_with_what_became_of_the_old_classes(colours: ModuleType, tmp_path: Path) -> None:
    labels = ["blue", "green", "red"]
    old = colours.colour_network(16, labels)
    export_image_classifier(old, labels, 16, tmp_path / "old", samples=colours.examples(1))
    new = colours.colour_network(16, ["none", "of", "these"])
    taxonomy = Taxonomy.parse(
        "renames: {blue: azure}\nmerges: {warm: [green, red]}\nsplits: {azure: [light, dark]}",
        "taxonomy.yaml",
    )

    start_from(new, ["light", "dark", "warm"], tmp_path / "old", taxonomy)

    kernel, old_kernel = np.array(new.weights[0]), np.array(old.weights[0])
    np.testing.assert_array_equal(kernel[:, 0], old_kernel[:, 0])
    np.testing.assert_array_equal(kernel[:, 1], old_kernel[:, 0])
    np.testing.assert_allclose(kernel[:, 2], (old_kernel[:, 1] + old_kernel[:, 2]) / 2, rtol=1e-6)


def test_a_base_model_of_another_network_is_refused(colours: ModuleType, tmp_path: Path) -> None:
    from mlplatform.vision.small_cnn import small_cnn

    old = colours.colour_network(16, ["blue"])
    export_image_classifier(old, ["blue"], 16, tmp_path / "old", samples=colours.examples(1, ["blue"]))

    with pytest.raises(BaseModelDoesNotFitError, match="other layers"):
        start_from(small_cnn(32), ["blue"], tmp_path / "old")
