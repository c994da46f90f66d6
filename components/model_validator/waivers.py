"""Which thresholds may be missed for a while, because a person says so."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from mlplatform.config import Config, parse_config
from mlplatform.config_file import ConfigError
from mlplatform.evaluation.find import find_kind
from mlplatform.evaluation.limits import Missed, change_key
from mlplatform.waivers import Waiver

# Costs that a model may exceed and still answer as it must. The others end the check before it has seen
# everything (memory, time), or say that answers differ: nobody can know what that lets through.
WAIVABLE_COSTS = ("p99_latency_ms", "load_time_s", "model_size_mb")


class ThresholdWaiver(Waiver):
    """A threshold that the model may miss until a day.

    Attributes:
        threshold: Its key in `thresholds`, `slice_thresholds` or `budget`.
        class_name: The class, where the threshold is one of each class; else empty.
        slice: The slice as the verdict names it (`color=red`); empty for all records.
    """

    threshold: str
    class_name: str = ""
    slice: str = ""

    def covers(self, missed: Missed) -> bool:
        """Say whether it is about such a miss; one without a value is never waived."""
        about = (missed.threshold, missed.class_name, missed.slice)
        return missed.is_measured and (self.threshold, self.class_name, self.slice) == about

    @property
    def about(self) -> str:
        """What it is about, in words."""
        of_class = f" of {self.class_name!r}" if self.class_name else ""
        return f"{self.threshold}{of_class}{f' in {self.slice}' if self.slice else ''}"


class _Waivers(Config):
    waivers: list[ThresholdWaiver] = Field(default=[])


def parse_waivers(kind: str | None, values: Sequence[Any]) -> list[ThresholdWaiver]:
    """Return waivers as they are given to ModelValidator.

    Args:
        kind: Name or import path of the kind of answer, whose metrics they may name; None where it is not
            known yet, and any name will do.
        values: A mapping for each.

    Raises:
        UnknownKindError: There is no such kind.
        ConfigError: A key is unknown, a value does not fit, or a threshold cannot be waived.
    """
    source = "ModelValidator"
    waivers = parse_config(_Waivers, {"waivers": values}, source=source).waivers
    if kind is None:
        return waivers
    metrics = find_kind(kind).metrics
    known = [*metrics, *(change_key(name, metric) for name, metric in metrics.items()), *WAIVABLE_COSTS]
    problems = [
        f"waivers.{place}.threshold is {each.threshold!r}, which cannot be waived; those that can: "
        f"{', '.join(known)}"
        for place, each in enumerate(waivers)
        if each.threshold not in known
    ]
    if problems:
        raise ConfigError(source, problems)
    return waivers


def apart(
    found: Sequence[Missed], waivers: Sequence[ThresholdWaiver]
) -> tuple[list[Missed], list[tuple[Missed, ThresholdWaiver]]]:
    """Return the misses that nobody waived, and those that somebody did, each with its waiver."""
    refused: list[Missed] = []
    waived: list[tuple[Missed, ThresholdWaiver]] = []
    for missed in found:
        waiver = next((each for each in waivers if each.covers(missed)), None)
        if waiver is None:
            refused.append(missed)
        else:
            waived.append((missed, waiver))
    return refused, waived
