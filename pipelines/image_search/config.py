"""The configuration of the image-search pipeline; `config.yaml` holds the defaults and explains them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mlplatform.components.approval.settings import ApprovalSettings
from mlplatform.components.data_validator.policy import Policy
from mlplatform.components.index_builder.settings import IndexSettings
from mlplatform.components.model_validator.settings import parse_budget
from mlplatform.config import Config, parse_config
from mlplatform.config_file import ConfigError, merged, read_yaml
from mlplatform.evaluation.limits import parse_limits
from mlplatform.pipelines.image_search.kind import ItemEmbedding
from mlplatform.pipelines.item_category.config import Address, Name
from mlplatform.search.gate import IndexLimits
from mlplatform.storage.urls import is_local
from mlplatform.training.image_embedding_settings import EmbeddingSettings

DEFAULTS = Path(__file__).with_name("config.yaml")
_SOURCE = "image_search"


class ImageSearchConfig(Config):
    """Every key of `config.yaml`, with its type and range."""

    dataset: Name
    listing: str | None = Field(min_length=1)
    data_splits: list[Name] | None = Field(min_length=2)
    splits: dict[Name, Annotated[int, Field(ge=1)]] = Field(min_length=2)
    split_by: str = Field(min_length=1)
    max_reject_fraction: float = Field(ge=0, le=1)
    follow_links: bool
    shards: int | None = Field(ge=1, le=100_000)
    key: list[Annotated[str, Field(min_length=1)]]
    firewall: bool
    near_duplicates_apart: bool
    schema_path: str | None = Field(alias="schema")
    policy: dict[str, Any]
    drift_threshold: float = Field(ge=0, le=1)
    model: EmbeddingSettings
    retrain: bool
    thresholds: dict[str, float]
    budget: dict[str, float]
    index: IndexSettings
    filter_columns: list[Annotated[str, Field(min_length=1)]] | None
    index_thresholds: IndexLimits
    serving_environment: str | None = Field(min_length=1)
    waivers: list[dict[str, Any]]
    model_name: Name
    approval: ApprovalSettings | None
    servers: list[Address]
    allow_withdrawn: bool
    keep: int = Field(ge=0)


def load_config(changes: Mapping[str, Any]) -> ImageSearchConfig:
    """Return the defaults with `changes` on top.

    Raises:
        ConfigError: A key is unknown or a value does not fit; the error names all of them.
    """
    values = merged(read_yaml(DEFAULTS), changes)
    if "splits" in changes:  # another division, not two more splits beside the default ones
        values["splits"] = changes["splits"]
    settings = parse_config(ImageSearchConfig, values, source=_SOURCE)
    parse_config(Policy, settings.policy, source=f"{_SOURCE}.policy")
    parse_limits(ItemEmbedding(), settings.thresholds, source=f"{_SOURCE}.thresholds")
    parse_budget(settings.budget)
    return settings


def check_files(settings: ImageSearchConfig) -> None:
    """Check that the local files which the settings name are there.

    Raises:
        ConfigError: One is missing.
    """
    backbone = settings.model.backbone if settings.model.backbone.endswith((".keras", ".h5")) else None
    named = {"schema": settings.schema_path, "model.backbone": backbone}
    missing = [
        f"{key} is {path!r}: there is no such file"
        for key, path in named.items()
        if path is not None and is_local(path) and not Path(path).expanduser().is_file()
    ]
    if missing:
        raise ConfigError(_SOURCE, missing)
