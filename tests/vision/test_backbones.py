"""Backbones by name."""

from pathlib import Path

import keras
import numpy as np
import pytest

from mlplatform.vision.backbones import (
    BackboneNotAvailableError,
    UnknownBackboneError,
    WeightsDoNotFitError,
    build_backbone,
)


def test_a_misspelt_name_is_told_what_was_meant() -> None:
    with pytest.raises(UnknownBackboneError, match="Did you mean 'MobileNetV2'"):
        build_backbone("MobilNetV2", 64)
    with pytest.raises(UnknownBackboneError, match="Did you mean 'efficientnet_lite0'"):
        build_backbone("efficientnet_lite", 64)


def test_a_keras_application_takes_pixels_and_gives_features() -> None:
    backbone = build_backbone("MobileNetV2", 64, pretrained=False)

    assert backbone.network.input_shape == (None, 64, 64, 3)
    assert backbone.network(np.zeros((2, 64, 64, 3), np.float32)).shape == (2, 1280)
    names = [layer.name for layer in backbone.network.layers]
    assert "block_16_project" in names  # its layers are the network's own


@pytest.mark.parametrize(("name", "width"), [("MobileNetV3Small", 576), ("MobileNetV3Large", 960)])
def test_a_keras_application_that_takes_pixels_as_they_are(name: str, width: int) -> None:
    network = build_backbone(name, 64, pretrained=False).network

    assert network(np.zeros((2, 64, 64, 3), np.float32)).shape == (2, width)
    assert sum(isinstance(layer, keras.layers.Rescaling) for layer in network.layers) == 1


def test_scratch_is_small_and_not_pretrained() -> None:
    backbone = build_backbone("scratch", 64)

    assert not backbone.is_pretrained
    assert backbone.network(np.zeros((2, 64, 64, 3), np.float32)).shape == (2, 256)
    assert backbone.network.count_params() < 1_000_000


def test_weights_that_cannot_be_downloaded_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if list((Path.home() / ".keras" / "models").glob("mobilenet_1_0_128*")):
        pytest.skip("the weights of MobileNet are already here")
    for variable in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("no_proxy", "")

    with pytest.raises(
        BackboneNotAvailableError, match=r"'MobileNet' cannot be had.*take efficientnet_lite0"
    ):
        build_backbone("MobileNet", 128)


def test_a_saved_network_is_a_backbone(tmp_path: Path) -> None:
    network = build_backbone("scratch", 32).network
    network.save(tmp_path / "mine.keras")

    backbone = build_backbone(str(tmp_path / "mine.keras"), 32)

    assert backbone.is_pretrained
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(backbone.network(images), network(images), atol=1e-5)


def test_weights_of_another_network_do_not_fit(tmp_path: Path) -> None:
    build_backbone("scratch", 32).network.save(tmp_path / "mine.keras")
    (tmp_path / "text.keras").write_text("this is no network")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(tmp_path / "x.weights.h5")

    for name, reason in {
        "mine.keras": "image_size is 64",
        "text.keras": "holds no usable backbone",
        "x.weights.h5": "holds no usable backbone",
        "missing.keras": "there is no such file",
    }.items():
        with pytest.raises(WeightsDoNotFitError, match=reason):
            build_backbone(str(tmp_path / name), 64)
