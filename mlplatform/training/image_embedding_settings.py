"""The settings of the image embedder's training, checked without TensorFlow."""

from typing import Literal

from pydantic import Field, field_validator

from mlplatform.config import Config
from mlplatform.training.image_classifier_settings import ClassifierSettings


class EmbeddingSettings(Config):
    """The settings of the embedder; `docs/how-to/search-images.md` explains how to choose them."""

    # efficientnet_lite0, a Keras application name, or the path of a weights file. It stays frozen.
    backbone: str = "efficientnet_lite0"
    # Height and width, in pixels, that photos are scaled to.
    image_size: int = Field(default=224, ge=32, le=1024)
    # Numbers of a vector: 256 find an altered photo a little better than 128, at twice the memory.
    dimensions: int = Field(default=256, ge=2, le=4096)
    # Principal components of the features, and what the head makes of them.
    component_dimensions: int = Field(default=256, ge=1, le=4096)
    head_dimensions: int = Field(default=128, ge=1, le=4096)
    # Length of the components beside the head's, which is 1: more finds the very item, less its class.
    component_weight: float = Field(default=1.0, gt=0)
    # Length of a backbone's middle layer beside its last one, where it gives both.
    middle_weight: float = Field(default=0.5, gt=0)
    # Weight of the loss by which a photo and its mirror image attract, beside that of the class.
    instance_weight: float = Field(default=1.0, ge=0)
    # Of the similarities in the loss: smaller looks at the nearest photos more.
    temperature: float = Field(default=0.1, gt=0)
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=128, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    # Of the features of training photos: auto computes them in bfloat16 on a CPU with instructions for it.
    feature_precision: Literal["auto", "float32"] = "auto"
    # The feature with a photo's class.
    label_feature: str = Field(default="label", min_length=1)
    # An embedder that was pushed with the same settings, <models_dir>/<name>, is reused: then the
    # vectors that the index holds stay right. null trains a new one.
    reuse: str | None = None
    seed: int = Field(default=0, ge=0)

    @field_validator("backbone")
    @classmethod
    def _is_pretrained(cls, name: str) -> str:
        if name == "scratch":
            raise ValueError("an embedder needs a pretrained backbone: it learns from frozen features")
        return ClassifierSettings(backbone=name).backbone
