"""The last blocks of a backbone, whatever its layers are called."""

import keras
import pytest

from mlplatform.vision.backbones import build_backbone
from mlplatform.vision.fine_tuning import NoBlocksError, blocks, unfreeze_last_blocks


@pytest.mark.parametrize(
    ("name", "last", "trained"),
    [
        ("efficientnet_lite0", ["block14", "block15", "top"], 8),
        ("MobileNetV2", ["block_15", "block_16", "Conv"], 4),
        ("ResNet50V2", ["conv5_block2", "conv5_block3", "post"], 4),
    ],
)
def test_the_last_blocks_alone_learn(name: str, last: list[str], trained: int) -> None:
    network = build_backbone(name, 64, pretrained=False).network
    assert blocks(network)[-3:] == last

    unfreeze_last_blocks(network, 2)

    weights = network.trainable_weights
    assert len(weights) == trained
    learning = [layer for layer in network.layers if layer.trainable_weights]
    assert all(layer.name.startswith(tuple(last[-2:])) for layer in learning)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in learning)


def test_a_network_within_a_network_is_looked_into() -> None:
    inner = build_backbone("efficientnet_lite0", 64).network
    images = keras.Input((64, 64, 3))
    network = keras.Model(images, inner(images))

    unfreeze_last_blocks(network, 1)

    assert len(network.trainable_weights) == 2


def test_a_network_without_blocks_is_told() -> None:
    network = build_backbone("MobileNet", 64, pretrained=False).network
    with pytest.raises(NoBlocksError, match="'mobilenet' are not named by blocks"):
        blocks(network)
