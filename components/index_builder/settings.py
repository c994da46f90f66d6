"""How an index is built and what it must reach, checked without Beam."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from mlplatform.config import Config, parse_config
from mlplatform.search.build import BuildPlan
from mlplatform.search.gate import IndexLimits


class IndexSettings(Config):
    """How an index is built."""

    # auto: exact up to 100,000 vectors, then ivf (cells with 8-bit codes), above 5 million pq (short codes).
    kind: Literal["auto", "exact", "ivf", "pq"] = "auto"
    # Share of the exact nearest ten that the search is tuned to find.
    goal: float = Field(default=0.98, gt=0, le=1)
    # Items in a served answer.
    results: int = Field(default=50, ge=1, le=1000)
    # The feature with the class, for figures by class.
    label: str = "label"


def parse_plan(values: Mapping[str, Any]) -> BuildPlan:
    """Return how to build an index; ConfigError where a key is unknown or a value does not fit."""
    return BuildPlan(**parse_config(IndexSettings, values, source="IndexBuilder's plan").model_dump())


def parse_limits(values: Mapping[str, Any]) -> IndexLimits:
    """Return what an index must reach; ConfigError where a key is unknown or a value does not fit."""
    return parse_config(IndexLimits, values, source="IndexBuilder's thresholds")
