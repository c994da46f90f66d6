"""The exported model: what every image model promises to those who call it."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from mlplatform.exported_model.contents import read_labels, read_warmup
from mlplatform.vision.signatures import SIGNATURES, LabelError, export_image_classifier

LABELS = ["blue", "green", "red"]


@pytest.fixture(scope="module")
def model_dir(colours: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "1"
    network = colours.colour_network(16, LABELS)
    export_image_classifier(network, LABELS, 16, folder, samples=colours.examples(1))
    return folder


@pytest.fixture(scope="module")
def model(model_dir: Path) -> Any:
    return tf.saved_model.load(str(model_dir))


def test_the_signatures_are_the_contract(model: Any) -> None:
    forms = {
        name: (
            {
                key: (spec.dtype, spec.shape.as_list())
                for key, spec in f.structured_input_signature[1].items()
            },
            {key: (spec.dtype, spec.shape.as_list()) for key, spec in f.structured_outputs.items()},
        )
        for name, f in model.signatures.items()
    }

    best = {"scores": (tf.float32, [None, 3]), "classes": (tf.string, [None, 3])}
    assert set(forms) == set(SIGNATURES)
    assert forms["serving_default"] == (
        {"examples": (tf.string, [None])},
        {**best, "probabilities": (tf.float32, [None, 3])},
    )
    assert forms["image_bytes"] == ({"image_bytes": (tf.string, [None])}, best)
    assert forms["pixels"] == ({"images": (tf.float32, [None, 16, 16, 3])}, best)


def test_all_signatures_give_the_same_sorted_answers(model: Any, colours: ModuleType) -> None:
    photos = [colours.encode(name, kind="PNG", side=16) for name in ("green", "red")]
    records = [colours.example(photo, "", "") for photo in photos]
    pixels = np.stack([tf.io.decode_image(photo).numpy() for photo in photos]).astype(np.float32)

    answers = [
        model.signatures["serving_default"](examples=tf.constant(records)),
        model.signatures["image_bytes"](image_bytes=tf.constant(photos)),
        model.signatures["pixels"](images=tf.constant(pixels)),
    ]

    for answer in answers:
        assert answer["classes"][:, 0].numpy().tolist() == [b"green", b"red"]
        np.testing.assert_allclose(answer["scores"], answers[0]["scores"], atol=1e-6)
        assert (np.diff(answer["scores"], axis=1) <= 0).all()
    probabilities = answers[0]["probabilities"].numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert probabilities.argmax(axis=1).tolist() == [1, 2]
    np.testing.assert_allclose(probabilities.max(axis=1), answers[0]["scores"][:, 0])


def test_labels_lie_beside_the_model(model_dir: Path) -> None:
    assert (model_dir / "assets" / "labels.txt").read_bytes() == b"blue\ngreen\nred\n"
    assert read_labels(model_dir) == LABELS


def test_a_broken_image_never_gives_a_class(model: Any, colours: ModuleType) -> None:
    good, cut = colours.encode("red"), colours.encode("red")[:200]
    records = tf.constant([colours.example(cut, "red", "x"), colours.example(good, "red", "y")])
    images = np.zeros((3, 16, 16, 3), np.float32)
    images[1, 0, 0, 0] = np.inf

    with pytest.raises(tf.errors.InvalidArgumentError, match="place 2 of the batch"):
        model.signatures["image_bytes"](image_bytes=tf.constant([good, good, cut]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="place 0 of the batch"):
        model.signatures["serving_default"](examples=records)
    with pytest.raises(tf.errors.InvalidArgumentError, match="place 1 of the batch"):
        model.signatures["pixels"](images=tf.constant(images))


def test_the_model_carries_answered_warm_up_requests(model: Any, model_dir: Path) -> None:
    logs = read_warmup(model_dir)

    assert [log.request.model_spec.signature_name for log in logs] == list(SIGNATURES)
    for log in logs:
        signature = model.signatures[log.request.model_spec.signature_name]
        values = {name: tf.constant(tf.make_ndarray(v)) for name, v in log.request.inputs.items()}
        answer = signature(**values)
        for name, tensor in log.response.outputs.items():
            then = tf.make_ndarray(tensor)
            if then.dtype == object:
                assert then.tolist() == answer[name].numpy().tolist()
            else:
                np.testing.assert_allclose(then, answer[name], atol=1e-6)


def test_only_the_weights_are_saved(colours: ModuleType, tmp_path: Path) -> None:
    labels = [*LABELS, *(f"category {number:04d}" for number in range(5000))]
    network = colours.colour_network(16, labels)
    network.compile("adam", "mse")
    network.fit(np.zeros((1, 16, 16, 3)), np.zeros((1, 5003)), verbose=0)
    export_image_classifier(network, labels, 16, tmp_path / "m", samples=colours.examples(1))

    saved = sum(file.stat().st_size for file in (tmp_path / "m" / "variables").iterdir())
    weights = sum(weight.nbytes for weight in network.get_weights())
    assert weights <= saved < weights * 1.05 + 2000


def test_many_classes_give_ten_answers(colours: ModuleType, tmp_path: Path) -> None:
    labels = [*LABELS, *(f"category {number:04d}" for number in range(1100))]
    network = colours.colour_network(16, labels)
    export_image_classifier(network, labels, 16, tmp_path / "m", samples=colours.examples(1))

    model = tf.saved_model.load(str(tmp_path / "m"))
    answer = model.signatures["image_bytes"](image_bytes=tf.constant([colours.encode("blue")]))

    assert answer["classes"].shape == (1, 10)
    assert answer["classes"][0, 0] == b"blue"
    assert len(read_labels(tmp_path / "m")) == 1103


@pytest.mark.parametrize("bad", ["", "two\nlines", "carriage\rreturn", "red"])
def test_class_names_that_cannot_be_listed_are_refused(colours: ModuleType, tmp_path: Path, bad: str) -> None:
    labels = ["red", bad]
    with pytest.raises(LabelError):
        export_image_classifier(
            colours.colour_network(16, labels), labels, 16, tmp_path / "m", samples=colours.examples(1)
        )
    assert not (tmp_path / "m").exists()


def test_a_failed_export_leaves_nothing(colours: ModuleType, tmp_path: Path) -> None:
    broken = [colours.example(b"text", "red", "x")]
    with pytest.raises(tf.errors.InvalidArgumentError):
        export_image_classifier(
            colours.colour_network(16, LABELS), LABELS, 16, tmp_path / "out" / "m", samples=broken
        )
    assert list((tmp_path / "out").iterdir()) == []
