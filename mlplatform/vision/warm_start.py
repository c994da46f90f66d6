"""Start a training from the weights of an exported image model."""

from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from mlplatform.errors import MlplatformError
from mlplatform.exported_model.contents import read_labels
from mlplatform.taxonomy import Taxonomy


class BaseModelDoesNotFitError(MlplatformError):
    """The base model has another network than the one that is to be trained."""

    def __init__(self, base_model: str, reason: str) -> None:
        super().__init__(base_model, reason)
        self.base_model, self.reason = base_model, reason

    def __str__(self) -> str:
        return (
            f"cannot start from {self.base_model}: {self.reason}. Train with the backbone and image size of "
            "the base model, or without a base model."
        )


def start_from(
    network: keras.Model, labels: Sequence[str], base_model_dir: Path, taxonomy: Taxonomy | None = None
) -> None:
    """Give `network` the weights of an exported model; its last layer keeps the classes that both know.

    Args:
        network: Ends in a dense layer (kernel and bias) with one output per label; changed in place. Classes
            that the base model does not know keep the weights that they have.
        labels: Class names in the order of its outputs.
        base_model_dir: SavedModel that `export_image_classifier` wrote.
        taxonomy: Under which names the base model knows the classes: one that was renamed, or is a part of a
            divided one, starts with the weights of the old one; one that others were merged into with the
            mean of theirs.

    Raises:
        BaseModelDoesNotFitError: The networks differ in more than the classes.
    """
    base = tf.saved_model.load(str(base_model_dir))
    old = [weight.numpy() for weight in getattr(base, "weights", [])]
    new = network.weights
    if [w.shape for w in old[:-2]] != [tuple(w.shape) for w in new[:-2]]:
        raise BaseModelDoesNotFitError(str(base_model_dir), "its network has other layers")
    if old[-2].shape[0] != new[-2].shape[0]:
        raise BaseModelDoesNotFitError(str(base_model_dir), "its last layer takes another number of features")
    for weight, value in zip(new[:-2], old[:-2], strict=True):
        weight.assign(value)
    place = {label: number for number, label in enumerate(read_labels(base_model_dir))}
    kernel, bias = (keras.ops.convert_to_numpy(weight).copy() for weight in new[-2:])
    for number, label in enumerate(labels):
        known = (taxonomy or Taxonomy()).origins(label, place)
        if known:
            before = [place[name] for name in known]
            kernel[:, number] = old[-2][:, before].mean(axis=1)
            bias[number] = old[-1][before].mean()
    new[-2].assign(kernel)
    new[-1].assign(bias)
