"""EfficientNet-Lite0: the folded network computes what the published one computes, and knows ImageNet."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlplatform.vision.decoding import decode_image
from mlplatform.vision.efficientnet_lite import efficientnet_lite0, pretrained_file
from mlplatform.vision.torch_weights import read_torch_weights

SHOES = Path(__file__).parents[2].parent / "shared" / "data" / "clothing" / "validation" / "shoes"
# ImageNet's numbers of clog, cowboy boot, loafer, running shoe, sandal, shoe shop and sock.
FOOTWEAR = {502, 514, 630, 770, 774, 788, 806}


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return efficientnet_lite0(64)


def test_folding_keeps_the_published_computation(network: keras.Model) -> None:
    weights = read_torch_weights(pretrained_file())
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32))

    def norm(x: tf.Tensor, name: str) -> tf.Tensor:
        mean, variance, scale, offset = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, 1e-3)

    x = tf.nn.conv2d((images - 127) / 128, weights["_conv_stem.weight"].transpose(2, 3, 1, 0), 2, "SAME")
    x = tf.nn.relu6(norm(x, "_bn0"))
    kernel = weights["_blocks.0._depthwise_conv.weight"].transpose(2, 3, 0, 1)
    x = tf.nn.relu6(norm(tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME"), "_blocks.0._bn1"))
    x = tf.nn.conv2d(x, weights["_blocks.0._project_conv.weight"].transpose(2, 3, 1, 0), 1, "SAME")
    expected = norm(x, "_blocks.0._bn2")

    until_block0 = keras.Model(network.inputs, network.get_layer("block0_project_conv").output)
    np.testing.assert_allclose(until_block0(images), expected, atol=2e-4)


def test_features_have_the_promised_form(network: keras.Model) -> None:
    features = network(np.zeros((3, 64, 64, 3), np.float32))

    assert features.shape == (3, 1392)
    assert np.isfinite(features).all()
    assert {layer.name.split("_")[0] for layer in network.layers if layer.weights} == {
        "stem",
        "top",
        *(f"block{number}" for number in range(16)),
    }


@pytest.mark.shared_data
@pytest.mark.skipif(not SHOES.exists(), reason="the development data ../shared/data/clothing is missing")
def test_it_knows_shoes_from_imagenet() -> None:
    weights = read_torch_weights(pretrained_file())
    files = sorted(SHOES.iterdir())
    images = tf.stack([decode_image(tf.constant(file.read_bytes()), 160) for file in files])

    top = efficientnet_lite0(160)(images)[:, :1280]
    classes = (top @ weights["_fc.weight"].T + weights["_fc.bias"]).numpy().argmax(axis=1)

    assert np.isin(classes, list(FOOTWEAR)).mean() > 0.6
