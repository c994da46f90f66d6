"""Thresholds of a kind: what figures must reach, and how far they may fall behind a baseline's."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, create_model

from mlplatform.config import Config, parse_config
from mlplatform.evaluation.kind import Figure, Kind, Metric

MIN_SUPPORT = 20
# Of differences between floats: what reaches a limit exactly reaches it.
_SLACK = 1e-9


@dataclass(frozen=True)
class Limits:
    """What figures must reach.

    Attributes:
        levels: Metric name to the value that it must reach.
        changes: Metric name to how much worse than the baseline's it may be: a difference, or a share of the
            baseline's value where the metric has no bounds.
        min_support: Records that a class or a slice needs to be judged by itself.
    """

    levels: Mapping[str, float]
    changes: Mapping[str, float]
    min_support: int = MIN_SUPPORT

    def as_json(self) -> dict[str, Any]:
        """Return the limits as JSON values."""
        return {"levels": dict(self.levels), "changes": dict(self.changes), "min_support": self.min_support}


def change_key(name: str, metric: Metric) -> str:
    """Return the threshold key of a change beside the baseline: `max_top_1_drop`, `max_rmse_rise`."""
    return f"max_{name}_{'drop' if metric.is_higher_better else 'rise'}"


def parse_limits(
    kind: Kind, values: Mapping[str, Any], *, source: str = "ModelValidator's thresholds"
) -> Limits:
    """Return the limits that a mapping of thresholds gives.

    Args:
        kind: The kind whose metrics it names.
        values: Metric names to what they must reach; `max_<metric>_drop` (`_rise` where lower is better) to
            how much worse than the baseline they may be; `min_support`.
        source: What errors call it.

    Raises:
        ConfigError: A key is unknown or a value does not fit.
    """
    parsed = parse_config(_model(kind), values, source=source).model_dump()
    levels = {name: parsed[name] for name in kind.metrics if parsed[name] is not None}
    changes = {
        name: parsed[change_key(name, metric)]
        for name, metric in kind.metrics.items()
        if parsed[change_key(name, metric)] is not None
    }
    return Limits(levels, changes, parsed["min_support"])


def _model(kind: Kind) -> type[BaseModel]:
    fields: dict[str, Any] = {"min_support": (int, Field(default=MIN_SUPPORT, ge=1))}
    for name, metric in kind.metrics.items():
        low = metric.low if math.isfinite(metric.low) else None
        high = metric.high if metric.is_bounded else None
        fields[name] = (float | None, Field(default=None, ge=low, le=high))
        allowed = kind.tolerance if name == kind.primary else None
        fields[change_key(name, metric)] = (float | None, Field(default=allowed, ge=0))
    made: type[BaseModel] = create_model("Thresholds", __base__=Config, **fields)
    return made


def missed(kind: Kind, figures: Mapping[str, Figure], limits: Limits, where: str = "") -> list[str]:
    """Return the levels that figures do not reach, one sentence each.

    Args:
        kind: Their kind.
        figures: Figures by metric name.
        limits: What they must reach.
        where: Beginning of each sentence, such as the slice.
    """
    found = []
    for name, limit in limits.levels.items():
        metric = kind.metrics[name]
        figure = figures.get(name)
        if figure is None or (figure.parts is None and math.isnan(figure.value)):
            found.append(f"{where}{metric.words} is not measured for these answers, and must reach {limit:g}")
            continue
        values = [(part.words, part.value) for part in figure.parts or ()]
        if figure.parts is None:
            values = [(metric.words, figure.value)]
        # The comparison tells which way is wrong; what only just reaches the limit does.
        slack = -_SLACK if metric.is_higher_better else _SLACK
        found += [
            f"{where}{words} is {number(metric, value)}, {_side(metric)} {number(metric, limit)}"
            f"{_blind(metric, figure)}"
            for words, value in values
            if metric.is_worse(value, limit + slack)
        ]
    return found


def _blind(metric: Metric, figure: Figure) -> str:
    """Say so where an answer that does not look at the record is as good."""
    slack = _SLACK if metric.is_higher_better else -_SLACK
    if figure.naive is None or not metric.is_worse(figure.value, figure.naive + slack):
        return ""
    return f", no better than always answering {figure.naive_answer} ({number(metric, figure.naive)})"


def fallen(
    kind: Kind, new: Mapping[str, Figure], old: Mapping[str, Figure], limits: Limits, change: str
) -> list[str]:
    """Return which figures fall behind the baseline's by more than allowed, one sentence each.

    Args:
        kind: Their kind.
        new: The model's figures.
        old: The baseline's, on the same records.
        limits: What is allowed.
        change: How many records are answered otherwise, in words.
    """
    found = []
    for name, allowed in limits.changes.items():
        metric = kind.metrics[name]
        if name not in new or name not in old or math.isnan(old[name].value):
            continue
        before, now = old[name].value, new[name].value
        worse = before - now if metric.is_higher_better else now - before
        limit = allowed if metric.is_bounded else allowed * abs(before)
        if not worse <= limit + _SLACK:
            more = f"{allowed:g}" if metric.is_bounded else f"{100 * allowed:g} % of it"
            found.append(
                f"{metric.words} falls behind the baseline's {number(metric, before)} by "
                f"{number(metric, worse)}, more than {more}{f' ({change})' if change else ''}"
            )
    return found


def number(metric: Metric, value: float) -> str:
    """Return a value of a metric as text."""
    return f"{value:.4f}" if metric.is_bounded else f"{value:.4g}"


def _side(metric: Metric) -> str:
    return "below" if metric.is_higher_better else "above"
