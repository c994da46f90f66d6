"""Train the last blocks of a backbone further, and leave the rest as it is."""

import re
from collections.abc import Iterator

import keras

from mlplatform.errors import UsageError

# block11_expand_conv, block1a_dwconv, block_16_project, expanded_conv_11_add, conv5_block3_1_conv, ...
_BLOCK = re.compile(r".*?(?:block|expanded_conv)_?[0-9]+[a-z]?(?![0-9])")


class NoBlocksError(UsageError):
    """The layers of a backbone do not say which blocks they form."""

    def __init__(self, network: str) -> None:
        super().__init__(network)
        self.network = network

    def __str__(self) -> str:
        return (
            f"fine_tune_blocks: the layers of {self.network!r} are not named by blocks (block1_..., "
            "block2_...), so its last blocks are unknown. Take 0, or another backbone."
        )


def blocks(network: keras.Model) -> list[str]:
    """Return the names of a backbone's blocks from first to last; layers between blocks count as one.

    Raises:
        NoBlocksError: Its layers are not named by blocks.
    """
    names = [layer.name for layer in _layers(network) if layer.weights]
    if not any(_BLOCK.match(name) for name in names):
        raise NoBlocksError(network.name)
    return list(dict.fromkeys(_block_of(name) for name in names))


def unfreeze_last_blocks(network: keras.Model, count: int) -> None:
    """Let the last blocks of a backbone learn, and nothing else.

    Batch normalisation keeps its statistics, its scale and its offset also in these blocks.

    Args:
        network: Changed in place.
        count: How many blocks, at least 1; all of them where it has no more.

    Raises:
        NoBlocksError: Its layers are not named by blocks.
    """
    last = set(blocks(network)[-count:])
    for layer in _layers(network):
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = _block_of(layer.name) in last and not is_norm


def _layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers, also those of networks within it."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _block_of(layer: str) -> str:
    """Return the part of a layer's name that its block shares: block11_expand_conv -> block11."""
    found = _BLOCK.match(layer)
    return found[0] if found else layer.split("_")[0]
