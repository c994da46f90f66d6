"""Who is asked, and how long."""

from typing import Annotated

from pydantic import Field

from mlplatform.config import Config

DEFAULT_TIME_LIMIT_H = 168.0
DEFAULT_POLL_S = 5.0


class ApprovalSettings(Config):
    """The block `approval` of a pipeline's configuration."""

    # Names of those who may answer; [] lets everybody.
    approvers: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(default_factory=list)
    # Hours until the waiting ends, which is a no.
    time_limit_h: float = Field(default=DEFAULT_TIME_LIMIT_H, gt=0, le=8760)
    # Seconds between two looks for the answer.
    poll_s: float = Field(default=DEFAULT_POLL_S, gt=0, le=3600)
