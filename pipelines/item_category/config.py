"""The configuration of the item-category pipeline; `config.yaml` holds the defaults and explains them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from mlplatform.components.data_validator.policy import Policy
from mlplatform.components.model_validator.settings import Budget, Thresholds
from mlplatform.config import Config, parse_config
from mlplatform.config_file import merged, read_yaml
from mlplatform.training.image_classifier_settings import ClassifierSettings

DEFAULTS = Path(__file__).with_name("config.yaml")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
Address = Annotated[str, Field(pattern=r"^\S+:[0-9]+$")]


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
    model: ClassifierSettings
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
