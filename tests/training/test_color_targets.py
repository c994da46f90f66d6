"""What the colour model learns: its names, soft targets, and photos that it draws for itself."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlplatform.config import parse_config
from mlplatform.config_file import ConfigError
from mlplatform.training.color_classifier import (
    _head,
    _Photos,
    choose_colors,
    read_truths,
    soft_target,
    train,
)
from mlplatform.training.color_classifier_settings import ColorSettings
from mlplatform.training.errors import NoExamplesError, TooFewClassesError
from mlplatform.training.task import TrainingTask
from mlplatform.vision.color.vocabulary import MULTICOLOUR, NAMES
from mlplatform.vision.features import FeatureStore

COLORS = ["red", "pink", "blue", "black"]


def example(*colors: str, **features: int) -> bytes:
    made = tf.train.Example()
    made.features.feature["color"].bytes_list.value.extend(color.encode() for color in colors)
    for name, value in features.items():
        made.features.feature[name].int64_list.value.append(value)
    return made.SerializeToString()


def test_a_truth_is_the_first_three_colours() -> None:
    records = [example("red", "pink", "blue", "black"), example("red"), example(), example("red", drawn=1)]
    found = read_truths("color")(tf.constant(records)).numpy().tolist()
    assert found == [b"red\npink\nblue", b"red", b"", b"red\t"]


@pytest.mark.parametrize(
    ("truth", "target"),
    [
        ("red", [1, 0, 0, 0]),
        ("red\npink", [0.75, 0.25, 0, 0]),
        ("blue\nred\nblack", [0.125, 0, 0.75, 0.125]),
        ("navy", [0, 0, 0.75, 0.25]),
        ("red\t", [1, 0, 0, 0]),
    ],
)
def test_further_colours_get_their_share_of_the_target(truth: str, target: list[float]) -> None:
    found = soft_target(truth, COLORS, 0.25)
    assert found is not None
    np.testing.assert_allclose(found, target)


@pytest.mark.parametrize("truth", ["", "green", "green\nred"])
def test_a_photo_without_a_known_main_colour_is_left_out(truth: str) -> None:
    assert soft_target(truth, COLORS, 0.25) is None


def test_the_names_are_the_usual_ones_and_what_many_photos_have() -> None:
    truths = {"red": 20, "beige\nwhite": 5, "beige": 3, "navy": 7, "": 50}
    assert choose_colors(ColorSettings(), truths) == [*NAMES, MULTICOLOUR, "beige"]
    assert choose_colors(ColorSettings(colors=["red", "sand"]), truths) == ["red", "sand"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"colors": ["red"]}, "at least two colours"),
        ({"colors": ["red", "red"]}, "each once"),
        ({"colours": ["red", "blue"]}, "did you mean 'colors'?"),
        ({"min_confidence": 2}, "min_confidence is 2"),
        ({"drawn_by": "nothing"}, "drawn_by is 'nothing'"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(ColorSettings, values, source="the model")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ([example(), example()], NoExamplesError),
        ([example("ultraviolet")], NoExamplesError),
        ([example("red"), example("red", "blue")], TooFewClassesError),
    ],
)
def test_nothing_to_learn_is_one_clear_error(
    records: list[bytes], error: type[Exception], tmp_path: Path
) -> None:
    file = tmp_path / "train"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    task = TrainingTask(
        train_files=(str(file),),
        eval_files=(),
        hyperparameters={"drawn_photos": 0},
        work_dir=tmp_path / "work",
        model_dir=tmp_path / "model",
        run_dir=tmp_path,
    )
    with pytest.raises(error):
        train(task)


@pytest.mark.parametrize("drawn", [0, 60])
def test_photos_like_the_drawn_ones_are_known_where_there_are_some(drawn: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(100, 1, 6)).astype(np.float16)
    features[:drawn, :, 2] += 8
    labels = np.array([number % 2 + (2 if number < drawn else 0) for number in range(100)], np.int32)
    store = FeatureStore(tmp_path, 100)
    np.savez(store.shards[0], features=features, labels=labels)
    truths = ["red", "blue", "red\t", "blue\t"]
    photos = _Photos(
        files=[],
        records=100,
        truths=truths,
        counts=np.bincount(labels, minlength=4),
        targets=np.eye(2, dtype=np.float32)[[0, 1, 0, 1]],
        weights=np.array([1, 1, 0.1, 0.1], np.float32),
        left_out=0,
        truth_of=read_truths("color"),
    )
    head = _head(store, photos, ColorSettings(), 2)
    assert head(features[:, 0].astype(np.float32)).shape == (100, 2)
    assert ("like_drawn" in [layer.name for layer in head.layers]) == bool(drawn)
    if drawn:
        likeness = keras.Model(head.inputs, head.get_layer("like_drawn").output)
        found = np.asarray(likeness(features[:, 0].astype(np.float32)))[:, 0]
        assert found[:drawn].min() > 0.9
        assert found[drawn:].max() < 0.1
