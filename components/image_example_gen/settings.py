"""What one ingest is told."""

from typing import Literal

from pydantic import Field

from mlplatform.config import Config

MIB = 1 << 20


class IngestSettings(Config):
    """The settings of one ingest; they travel to its executor as one execution property.

    Attributes:
        layout: `folders` (one folder per class) or `listing` (a file that lists photos).
        split_by: The column whose hash decides the split.
        labels: Allowed class names; None allows all.
        max_reject_fraction: Share of the entries that may be rejected before the run fails.
        max_image_bytes: Size of the largest photo file that is accepted.
        max_image_pixels: Width times height of the largest photo that is accepted.
        shards: Files per split.
        reports_dir: Where a refusal leaves its rejects; None keeps them with the artifact alone.
    """

    layout: Literal["folders", "listing"]
    split_by: str = Field(min_length=1)
    labels: list[str] | None = Field(min_length=1)
    max_reject_fraction: float = Field(ge=0, le=1)
    max_image_bytes: int = Field(ge=1)
    max_image_pixels: int = Field(ge=1)
    shards: int = Field(ge=1, le=100_000)
    reports_dir: str | None
