"""The settings of the image classifier's training, checked without TensorFlow."""

import difflib
import re
from typing import Literal

from pydantic import Field, field_validator

from mlplatform.config import Config

_BACKBONES = ("efficientnet_lite0", "scratch")
_WEIGHTS = (".keras", ".weights.h5")


class ClassifierSettings(Config):
    """The settings of the model; `docs/how-to/train-models.md` explains how to choose them."""

    # efficientnet_lite0, scratch, a Keras application name, or the path of a weights file.
    backbone: str = "efficientnet_lite0"
    # Height and width, in pixels, that photos are scaled to.
    image_size: int = Field(default=224, ge=32, le=1024)
    # Passes of the head over the features; with backbone scratch, of the whole network over the photos.
    epochs: int = Field(default=24, ge=1)
    # The same where the training starts from an earlier model; null: as many.
    warm_start_epochs: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    # Share of features that are left out at random while the head learns.
    dropout: float = Field(default=0.2, ge=0, lt=1)
    # Share of the target that is spread over all classes.
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    # Learn from mirrored photos as well; with photos in each epoch also from shifted and brightened ones.
    augment: bool = True
    # Of the features of training photos: auto computes them in bfloat16 on a CPU with instructions for it.
    feature_precision: Literal["auto", "float32"] = "auto"
    # Of the network where it learns from photos: auto computes in bfloat16 on GPUs with instructions for it.
    fit_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    # balanced: each class weighs the same, however few photos it has; none: each photo weighs the same.
    class_weights: Literal["none", "balanced"] = "none"
    # How many of the backbone's last blocks are trained further after the head; 0 for none.
    fine_tune_blocks: int = Field(default=0, ge=0)
    fine_tune_epochs: int = Field(default=5, ge=1)
    fine_tune_learning_rate: float = Field(default=1e-4, gt=0)
    # Epochs without better accuracy on the evaluation split before training ends; 0 for never.
    patience: int = Field(default=8, ge=0)
    # TensorFlow Lite form of the signature `pixels`, exported beside the SavedModel; int8 is calibrated on
    # training photos.
    tflite: Literal["none", "float", "int8"] = "none"
    # bfloat16: the model asks to be served with convolutions and matrix products in bfloat16, where that
    # costs less CPU; the model gate compares the answers.
    mixed_precision: Literal["none", "bfloat16"] = "none"
    # Numbers of the vectors that the signatures embed, embed_image_bytes and embed_pixels answer: principal
    # components of the features, of length 1. 0: the model has no such signatures.
    embedding_dimensions: int = Field(default=0, ge=0, le=4096)
    seed: int = Field(default=0, ge=0)

    def epochs_from(self, has_base_model: bool) -> int:
        """Return how many passes there are, with or without an earlier model to start from."""
        return (self.warm_start_epochs if has_base_model else None) or self.epochs

    @property
    def weights_file(self) -> str | None:
        """The path of the weights file that `backbone` names; None where it names something else."""
        return self.backbone if self.backbone.endswith(_WEIGHTS) else None

    @field_validator("backbone")
    @classmethod
    def _is_a_backbone(cls, name: str) -> str:
        """See that it can be one, without loading Keras: its applications are named like classes."""
        is_file = name.endswith(_WEIGHTS)  # it has to be where the model is trained, which checks it
        if not is_file and name not in _BACKBONES and not re.fullmatch(r"[A-Z]\w+", name):
            near = difflib.get_close_matches(name, _BACKBONES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"{hint}Take {', '.join(_BACKBONES)}, a Keras application such as MobileNetV2, "
                f"or the path of a {' or '.join(_WEIGHTS)} file"
            )
        return name
