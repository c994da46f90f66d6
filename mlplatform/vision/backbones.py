"""Backbones by name: networks that turn images into features."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from mlplatform.errors import MlplatformError, UsageError
from mlplatform.vision.efficientnet_lite import efficientnet_lite0
from mlplatform.vision.small_cnn import small_cnn

LITE0, SCRATCH = "efficientnet_lite0", "scratch"
_WEIGHT_SUFFIXES = (".keras", ".weights.h5")


class UnknownBackboneError(UsageError):
    """No backbone has this name, and no weights lie at this path."""

    def __init__(self, name: str, near: str | None) -> None:
        super().__init__(name, near)
        self.name, self.near = name, near

    def __str__(self) -> str:
        hint = f" Did you mean {self.near!r}?" if self.near else ""
        return (
            f"backbone {self.name!r} is unknown.{hint} Choose {LITE0}, {SCRATCH}, a Keras application "
            f"such as MobileNetV2, or the path of a {' or '.join(_WEIGHT_SUFFIXES)} file."
        )


class BackboneNotAvailableError(MlplatformError):
    """The pretrained weights of a backbone cannot be had here."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return (
            f"the pretrained weights of backbone {self.name!r} cannot be had: {self.reason}. Keras downloads "
            f"them when they are first used; on a machine without that network take {LITE0} (its weights are "
            "installed), or put the file into ~/.keras/models."
        )


class WeightsDoNotFitError(MlplatformError):
    """A weights file holds no network of the kind that is asked for."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"{self.path} holds no usable backbone: {self.reason}. A .keras file holds a whole network from "
            f"images (0 to 255) to features (batch, width); a .weights.h5 file holds the weights of {LITE0}."
        )


@dataclass(frozen=True)
class Backbone:
    """A network and what its training may assume.

    Attributes:
        network: float32 images (batch, image_size, image_size, 3), 0 to 255 -> features (batch, width).
        is_pretrained: Its features are worth keeping frozen.
    """

    network: keras.Model
    is_pretrained: bool


def check_backbone(name: str) -> None:
    """See that a backbone has this name, or that a weights file lies at this path; builds nothing.

    Raises:
        UnknownBackboneError: The name means nothing.
        WeightsDoNotFitError: There is no such file.
    """
    if name.endswith(_WEIGHT_SUFFIXES):
        if not Path(name).expanduser().is_file():
            raise WeightsDoNotFitError(name, "there is no such file")
    elif name not in (LITE0, SCRATCH, *_builders()):
        near = difflib.get_close_matches(name, [LITE0, SCRATCH, *_builders()], n=1)
        raise UnknownBackboneError(name, near[0] if near else None)


def build_backbone(name: str, image_size: int, *, pretrained: bool = True) -> Backbone:
    """Return the backbone that `name` means.

    Args:
        name: `efficientnet_lite0`, `scratch`, the name of a network in `keras.applications` (its ImageNet
            weights are downloaded), or the path of a weights file: `.keras` for a whole network,
            `.weights.h5` for weights of EfficientNet-Lite0.
        image_size: Height and width of its images.
        pretrained: False gives a Keras application without its ImageNet weights, and downloads nothing.

    Raises:
        UnknownBackboneError: The name means nothing.
        BackboneNotAvailableError: The weights cannot be downloaded.
        WeightsDoNotFitError: The weights file holds something else.
    """
    check_backbone(name)
    if name == LITE0:
        return Backbone(efficientnet_lite0(image_size), is_pretrained=True)
    if name == SCRATCH:
        return Backbone(small_cnn(image_size), is_pretrained=False)
    if name.endswith(_WEIGHT_SUFFIXES):
        return Backbone(_from_file(Path(name).expanduser(), image_size), is_pretrained=True)
    return Backbone(_application(name, image_size, "imagenet" if pretrained else None), is_pretrained=True)


def _from_file(path: Path, image_size: int) -> keras.Model:
    try:
        if path.name.endswith(".weights.h5"):
            network = efficientnet_lite0(image_size, pretrained=False)
            network.load_weights(path)
            return network
        network = keras.models.load_model(path, compile=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise WeightsDoNotFitError(str(path), " ".join(str(error).split())[:200]) from error
    if network.input_shape != (None, image_size, image_size, 3) or len(network.output_shape) != 2:
        shapes = f"it takes {network.input_shape} and gives {network.output_shape}"
        raise WeightsDoNotFitError(str(path), f"{shapes}, and image_size is {image_size}")
    return network


def _builders() -> dict[str, Callable[..., keras.Model]]:
    return {
        attribute: getattr(keras.applications, attribute)
        for attribute in dir(keras.applications)
        if attribute[0].isupper() and callable(getattr(keras.applications, attribute))
    }


def _application(name: str, image_size: int, weights: str | None) -> keras.Model:
    images = keras.Input((image_size, image_size, 3), name="images")
    modules = [module for module in vars(keras.applications).values() if hasattr(module, name)]
    preprocess = next((m.preprocess_input for m in modules if hasattr(m, "preprocess_input")), None)
    try:
        # Given the tensor, its layers become the backbone's own, so that fine-tuning sees its blocks.
        body = _builders()[name](
            include_top=False,
            weights=weights,
            input_tensor=preprocess(images) if preprocess else images,  # MobileNetV3 does it itself
            input_shape=(image_size, image_size, 3),
            pooling="avg",
        )
    except ValueError as error:
        raise BackboneNotAvailableError(name, " ".join(str(error).split())[:200]) from error
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if type(error) is not Exception:
            raise
        raise BackboneNotAvailableError(name, " ".join(str(error).split())[:200]) from error
    return keras.Model(images, body.outputs[0], name=name.lower())
