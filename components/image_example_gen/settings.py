"""The settings of one ingest."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from mlplatform.config import Config, parse_config

MIB = 1 << 20
LEAST_SHARDS, MOST_SHARDS = 4, 100_000
SHARD_BYTES = 128 * MIB  # what a worker holds in memory at once, where the number of shards is not given
SHARDS_KEY = "shards"


class IngestSettings(Config):
    """The settings of one ingest; each is an execution parameter of its name.

    Attributes:
        layout: `folders` (one folder per class) or `listing` (a file that lists photos).
        label_feature: The listing's column with the class, and the feature that it becomes.
        also_feature: The column with further right classes of a photo; None where there is none.
        leave_out_unlabelled: Whether photos without a class are left out and not held against the source.
        split_by: The column whose hash decides the split.
        labels: Allowed class names; None allows all.
        max_reject_fraction: Share of the entries that may be rejected before the run fails.
        max_image_bytes: Size of the largest photo file that is accepted.
        max_image_pixels: Width times height of the largest photo that is accepted.
        follow_links: Whether photos may lie where links lead to, outside of the source.
        shards: Files per split; None for as many as the size of the source needs.
        reports_dir: Where the page of the rejects stays; None keeps them with the artifact alone.
    """

    layout: Literal["folders", "listing"]
    label_feature: str = Field(min_length=1)
    also_feature: str | None = Field(min_length=1)
    leave_out_unlabelled: bool
    split_by: str = Field(min_length=1)
    labels: list[str] | None = Field(min_length=1)
    max_reject_fraction: float = Field(ge=0, le=1)
    max_image_bytes: int = Field(ge=1)
    max_image_pixels: int = Field(ge=1)
    follow_links: bool
    shards: int | None = Field(ge=1, le=MOST_SHARDS)
    reports_dir: str | None

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> "IngestSettings":
        """Return the settings in the execution properties of a run.

        Raises:
            ConfigError: A value, which may be the run's own, does not fit.
        """
        values = {name: properties.get(name) for name in cls.model_fields}
        values["labels"] = json.loads(values["labels"]) if values["labels"] else None
        values["also_feature"] = values["also_feature"] or None
        values["reports_dir"] = values["reports_dir"] or None
        return parse_config(cls, values, source="ImageExampleGen")

    def shards_for(self, total_bytes: int) -> int:
        """Return the number of shards: as given, else what a source of this size needs."""
        if self.shards is not None:
            return self.shards
        return min(max(-(-total_bytes // SHARD_BYTES), LEAST_SHARDS), MOST_SHARDS)
