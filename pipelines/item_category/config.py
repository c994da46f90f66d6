"""The configuration of the item-category pipeline; `config.yaml` holds the defaults and explains them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mlplatform.components.model_validator.settings import Budget, Thresholds
from mlplatform.config import Config, parse_config
from mlplatform.config_file import merged, read_yaml

DEFAULTS = Path(__file__).with_name("config.yaml")


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
    # balanced: each class weighs the same, however few photos it has; none: each photo weighs the same.
    class_weights: Literal["none", "balanced"] = "none"
    # How many of the backbone's last blocks are trained further after the head; 0 for none.
    fine_tune_blocks: int = Field(default=0, ge=0)
    fine_tune_epochs: int = Field(default=5, ge=1)
    fine_tune_learning_rate: float = Field(default=1e-4, gt=0)
    # Epochs without better accuracy on the evaluation split before training ends; 0 for never.
    patience: int = Field(default=8, ge=0)
    seed: int = Field(default=0, ge=0)


class ItemCategoryConfig(Config):
    """Every key of `config.yaml`, with its type and range."""

    dataset: str = Field(min_length=1)
    listing: str | None
    splits: dict[str, int] = Field(min_length=2)
    split_by: str
    max_reject_fraction: float = Field(ge=0, le=1)
    key: list[str]
    schema_path: str | None = Field(alias="schema")
    policy: dict[str, Any]
    model: HyperParameters
    thresholds: Thresholds
    budget: Budget
    model_name: str = Field(min_length=1)
    servers: list[str]
    keep: int = Field(ge=0)


def load_config(changes: Mapping[str, Any]) -> ItemCategoryConfig:
    """Return the defaults with `changes` on top.

    Raises:
        ConfigError: A key is unknown or a value does not fit; the error names all of them.
    """
    values = merged(read_yaml(DEFAULTS), changes)
    if "splits" in changes:  # another division, not two more splits beside the default ones
        values["splits"] = changes["splits"]
    return parse_config(ItemCategoryConfig, values, source="item_category")
