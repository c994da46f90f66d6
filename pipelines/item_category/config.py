"""The configuration of the item-category pipeline; `config.yaml` holds the defaults and explains them."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mlplatform.components.data_validator.policy import Policy
from mlplatform.components.model_validator.settings import Budget
from mlplatform.config import Config, parse_config
from mlplatform.config_file import merged, read_yaml

DEFAULTS = Path(__file__).with_name("config.yaml")
_BACKBONES = ("efficientnet_lite0", "scratch")
_WEIGHTS = (".keras", ".weights.h5")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
Address = Annotated[str, Field(pattern=r"^\S+:[0-9]+$")]


class HyperParameters(Config):
    """The settings of the model; `docs/how-to/train-models.md` explains how to choose them."""

    # efficientnet_lite0, scratch, a Keras application name, or the path of a weights file.
    backbone: str = "efficientnet_lite0"
    # Height and width, in pixels, that photos are scaled to.
    image_size: int = Field(default=224, ge=32, le=1024)
    # Passes of the head over the features; with backbone scratch, of the whole network over the photos.
    epochs: int = Field(default=24, ge=1)
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
    seed: int = Field(default=0, ge=0)

    @field_validator("backbone")
    @classmethod
    def _is_a_backbone(cls, name: str) -> str:
        """See that it can be one, without loading Keras: its applications are named like classes."""
        if name.endswith(_WEIGHTS):
            if not Path(name).expanduser().is_file():
                raise ValueError("there is no such file")
        elif name not in _BACKBONES and not re.fullmatch(r"[A-Z]\w+", name):
            near = difflib.get_close_matches(name, _BACKBONES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"{hint}Take {', '.join(_BACKBONES)}, a Keras application such as MobileNetV2, "
                f"or the path of a {' or '.join(_WEIGHTS)} file"
            )
        return name


class Thresholds(Config):
    """What the model must reach on the evaluation split; shares are 0 to 1."""

    # Shares of photos whose category is the first, among the first three, among the first five answers.
    top_1: float = Field(default=0.0, ge=0, le=1)
    top_3: float = Field(default=0.0, ge=0, le=1)
    top_5: float = Field(default=0.0, ge=0, le=1)
    # Mean of the categories' shares of photos that are answered right.
    balanced_recall: float = Field(default=0.0, ge=0, le=1)
    # Lowest share of a category's photos that are answered right, with at least min_support photos.
    per_class_recall: float = Field(default=0.0, ge=0, le=1)
    min_support: int = Field(default=20, ge=1)
    # How far top-1 may fall below the pushed model's on the same photos.
    max_top_1_drop: float = Field(default=0.02, ge=0, le=1)


class ItemCategoryConfig(Config):
    """Every key of `config.yaml`, with its type and range."""

    dataset: Name
    listing: str | None = Field(min_length=1)
    splits: dict[Name, Annotated[int, Field(ge=1)]] = Field(min_length=2)
    split_by: str = Field(min_length=1)
    max_reject_fraction: float = Field(ge=0, le=1)
    follow_links: bool
    shards: int | None = Field(ge=1, le=100_000)
    key: list[Annotated[str, Field(min_length=1)]]
    firewall: bool
    schema_path: str | None = Field(alias="schema")
    policy: dict[str, Any]
    drift_threshold: float = Field(ge=0, le=1)
    serving_logs: str | None = Field(min_length=1)
    model: HyperParameters
    thresholds: Thresholds
    budget: Budget
    model_name: Name
    servers: list[Address]
    allow_withdrawn: bool
    keep: int = Field(ge=0)

    @field_validator("schema_path")
    @classmethod
    def _is_a_file(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).is_file():
            raise ValueError("there is no such file")
        return path


def load_config(changes: Mapping[str, Any]) -> ItemCategoryConfig:
    """Return the defaults with `changes` on top.

    Raises:
        ConfigError: A key is unknown or a value does not fit; the error names all of them.
    """
    values = merged(read_yaml(DEFAULTS), changes)
    if "splits" in changes:  # another division, not two more splits beside the default ones
        values["splits"] = changes["splits"]
    settings = parse_config(ItemCategoryConfig, values, source="item_category")
    parse_config(Policy, settings.policy, source="item_category.policy")
    return settings
