"""The configuration of the item-category pipeline; `config.yaml` holds the defaults and explains them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mlplatform.components.approval.settings import ApprovalSettings
from mlplatform.components.data_validator.policy import Policy
from mlplatform.components.model_validator.settings import Budget
from mlplatform.config import Config, parse_config
from mlplatform.config_file import ConfigError, merged, read_yaml
from mlplatform.orchestration.engine import parse_engine
from mlplatform.orchestration.kubeflow.options import KubernetesOptions
from mlplatform.storage.urls import is_local
from mlplatform.training.image_classifier_settings import ClassifierSettings
from mlplatform.training.search_settings import SearchSettings, check_space

DEFAULTS = Path(__file__).with_name("config.yaml")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
Address = Annotated[str, Field(pattern=r"^\S+:[0-9]+$|^kubernetes://\S*/\S+:\S+$")]


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
    # The same share among the first five answers, and both of the rarest fifth of the categories together.
    per_class_top_5: float = Field(default=0.0, ge=0, le=1)
    tail_top_1: float = Field(default=0.0, ge=0, le=1)
    tail_top_5: float = Field(default=0.0, ge=0, le=1)
    # By the groups of the dataset's taxonomy.
    group_top_1: float | None = Field(default=None, ge=0, le=1)
    group_top_5: float | None = Field(default=None, ge=0, le=1)
    # The probability that any category is rejected by chance; None judges values, from min_support photos on.
    per_class_alpha: float | None = Field(default=0.05, gt=0, lt=1)
    # Judge by the lower end of the 95 % intervals.
    at_lower_bound: bool = False
    # How far top-1 may fall below the pushed model's on the same photos, and a category's recall.
    max_top_1_drop: float = Field(default=0.02, ge=0, le=1)
    max_per_class_recall_drop: float | None = Field(default=None, ge=0, le=1)


class ItemCategoryConfig(Config):
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
    taxonomy: str | None = Field(min_length=1)
    firewall: bool
    near_duplicates_apart: bool
    schema_path: str | None = Field(alias="schema")
    policy: dict[str, Any]
    drift_threshold: float = Field(ge=0, le=1)
    serving_logs: str | None = Field(min_length=1)
    model: ClassifierSettings
    search: SearchSettings
    thresholds: Thresholds
    budget: Budget
    serving_environment: str | None = Field(min_length=1)
    waivers: list[dict[str, Any]]
    model_name: Name
    approval: ApprovalSettings | None
    servers: list[Address]
    allow_withdrawn: bool
    keep: int = Field(ge=0)
    engine: str | dict[str, Any] | None
    kubernetes: KubernetesOptions


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
    parse_engine(settings.engine)
    check_space(settings.search, settings.model, source="item_category.search.space")
    return settings


def check_files(settings: ItemCategoryConfig) -> None:
    """Check that the local files which the settings name are there; what lies at a URL is read when it runs.

    Raises:
        ConfigError: One or more are missing; all of them are named.
    """
    named = {
        "schema": settings.schema_path,
        "model.backbone": settings.model.weights_file,
        "taxonomy": settings.taxonomy,
    }
    missing = [f"{key} is {path!r}: there is no such file" for key, path in named.items()
               if path is not None and is_local(path) and not Path(path).expanduser().is_file()]  # fmt: skip
    if missing:
        raise ConfigError("item_category", missing)
