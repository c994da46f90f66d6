"""Waivers: what a gate would refuse is let through until a day, because a person says so."""

from collections.abc import Collection, Sequence
from datetime import date, datetime, timezone
from typing import Annotated, Any, TypeVar

from pydantic import Field

from mlplatform.config import Config

_Line = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Waiver(Config):
    """Who lets something through, why, and how long; what it is about, each gate's own waivers say.

    Attributes:
        by: Who decided so.
        why: The reason.
        until: The last day on which it counts, in UTC.
    """

    by: _Line
    why: _Line
    until: date

    @property
    def words(self) -> str:
        """Who waived something, until when and why."""
        return f"waived by {self.by} until {self.until}: {self.why}"


WaiverType = TypeVar("WaiverType", bound=Waiver)


def today() -> date:
    """Return the day, in UTC."""
    return datetime.now(timezone.utc).date()


def counting_on(day: date, waivers: Sequence[WaiverType]) -> list[WaiverType]:
    """Return the waivers that are not over on a day."""
    return [each for each in waivers if day <= each.until]


def waiver_facts(waivers: Sequence[Waiver], used: Collection[Waiver]) -> list[dict[str, Any]]:
    """Return waivers as JSON holds them; `is_used`: it let something through."""
    return [{**each.model_dump(mode="json"), "is_used": each in used} for each in waivers]
