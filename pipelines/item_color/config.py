"""The configuration of the item-color pipeline; `config.yaml` holds the defaults and explains them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mlplatform.components.approval.settings import ApprovalSettings
from mlplatform.components.data_validator.policy import Policy
from mlplatform.components.model_validator.settings import parse_budget
from mlplatform.config import Config, parse_config
from mlplatform.config_file import ConfigError, merged, read_yaml
from mlplatform.evaluation.limits import parse_limits
from mlplatform.orchestration.engine import parse_engine
from mlplatform.orchestration.kubeflow.options import KubernetesOptions
from mlplatform.pipelines.item_category.config import Address, Name
from mlplatform.pipelines.item_color.kind import ColorName
from mlplatform.storage.urls import is_local
from mlplatform.training.color_classifier_settings import ColorSettings

DEFAULTS = Path(__file__).with_name("config.yaml")
_SOURCE = "item_color"


class ItemColorConfig(Config):
    """Every key of `config.yaml`, with its type and range."""

    dataset: Name
    listing: str | None = Field(min_length=1)
    also: str | None = Field(min_length=1)
    split_by: str | None = Field(min_length=1)
    splits: dict[Name, Annotated[int, Field(ge=1)]] = Field(min_length=2)
    max_reject_fraction: float = Field(ge=0, le=1)
    follow_links: bool
    shards: int | None = Field(ge=1, le=100_000)
    key: list[Annotated[str, Field(min_length=1)]]
    firewall: bool
    near_duplicates_apart: bool
    schema_path: str | None = Field(alias="schema")
    policy: dict[str, Any]
    drift_threshold: float = Field(ge=0, le=1)
    serving_logs: str | None = Field(min_length=1)
    model: ColorSettings
    thresholds: dict[str, float]
    budget: dict[str, float]
    serving_environment: str | None = Field(min_length=1)
    waivers: list[dict[str, Any]]
    model_name: Name
    approval: ApprovalSettings | None
    servers: list[Address]
    allow_withdrawn: bool
    keep: int = Field(ge=0)
    engine: str | dict[str, Any] | None
    kubernetes: KubernetesOptions


def load_config(changes: Mapping[str, Any]) -> ItemColorConfig:
    """Return the defaults with `changes` on top.

    Raises:
        ConfigError: A key is unknown or a value does not fit; the error names all of them.
    """
    values = merged(read_yaml(DEFAULTS), changes)
    if "splits" in changes:  # another division, not two more splits beside the default ones
        values["splits"] = changes["splits"]
    settings = parse_config(ItemColorConfig, values, source=_SOURCE)
    parse_config(Policy, settings.policy, source=f"{_SOURCE}.policy")
    parse_limits(ColorName(), settings.thresholds, source=f"{_SOURCE}.thresholds")
    parse_budget(settings.budget)
    parse_engine(settings.engine)
    return settings


def check_files(settings: ItemColorConfig) -> None:
    """Check that the local schema which the settings name is there.

    Raises:
        ConfigError: It is missing.
    """
    path = settings.schema_path
    if path is not None and is_local(path) and not Path(path).expanduser().is_file():
        raise ConfigError(_SOURCE, [f"schema is {path!r}: there is no such file"])
