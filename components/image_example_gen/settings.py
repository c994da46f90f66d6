"""What one ingest is told."""

from typing import Literal

from pydantic import Field

from mlplatform.config import Config

MIB = 1 << 20
LEAST_SHARDS, MOST_SHARDS = 4, 100_000
SHARD_BYTES = 128 * MIB  # what a worker holds in memory at once, where the number of shards is not given


class IngestSettings(Config):
    """The settings of one ingest; they travel to its executor as one execution property.

    Attributes:
        layout: `folders` (one folder per class) or `listing` (a file that lists photos).
        split_by: The column whose hash decides the split.
        labels: Allowed class names; None allows all.
        max_reject_fraction: Share of the entries that may be rejected before the run fails.
        max_image_bytes: Size of the largest photo file that is accepted.
        max_image_pixels: Width times height of the largest photo that is accepted.
        follow_links: Whether photos may lie where links lead to, outside of the source.
        shards: Files per split; None until the driver has seen how much there is.
        reports_dir: Where the page of the rejects stays; None keeps them with the artifact alone.
    """

    layout: Literal["folders", "listing"]
    split_by: str = Field(min_length=1)
    labels: list[str] | None = Field(min_length=1)
    max_reject_fraction: float = Field(ge=0, le=1)
    max_image_bytes: int = Field(ge=1)
    max_image_pixels: int = Field(ge=1)
    follow_links: bool
    shards: int | None = Field(ge=1, le=MOST_SHARDS)
    reports_dir: str | None

    def with_shards_for(self, total_bytes: int) -> "IngestSettings":
        """Return the settings with the number of shards that a source of this size needs, unless given."""
        if self.shards is not None:
            return self
        shards = min(max(-(-total_bytes // SHARD_BYTES), LEAST_SHARDS), MOST_SHARDS)
        return self.model_copy(update={"shards": shards})
