"""Thresholds of a kind: what figures must reach, and how far they may fall behind a baseline's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, create_model

from mlplatform.config import Config, parse_config
from mlplatform.evaluation.kind import Figure, Kind, Metric, PartOfRecords
from mlplatform.evaluation.tests_of_chance import binomial_tails, fisher_tails, holm

MIN_SUPPORT = 20
# Of differences between floats: what reaches a limit exactly reaches it.
_SLACK = 1e-9
_PARTS_SHOWN = 20  # classes that reasons name


@dataclass(frozen=True)
class Limits:
    """What figures must reach.

    Attributes:
        levels: Metric name to the value that it must reach.
        changes: Metric name to how much worse than the baseline's it may be: a difference, or a share of the
            baseline's value where the metric has no bounds.
        min_support: Records that a class or a slice needs to be judged by itself.
        per_class_alpha: Classes are judged whatever their support, and one is rejected only where chance does
            not explain it: the probability that any of them is rejected wrongly. None judges the values.
        at_lower_bound: What must be reached must be reached by the worse end of the 95 % interval, where
            there is one.
    """

    levels: Mapping[str, float]
    changes: Mapping[str, float]
    min_support: int = MIN_SUPPORT
    per_class_alpha: float | None = None
    at_lower_bound: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the limits as JSON values."""
        return {
            "levels": dict(self.levels),
            "changes": dict(self.changes),
            "min_support": self.min_support,
            "per_class_alpha": self.per_class_alpha,
            "at_lower_bound": self.at_lower_bound,
        }


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
            how much worse than the baseline they may be; `min_support`, `per_class_alpha`, `at_lower_bound`.
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
    return Limits(levels, changes, parsed["min_support"], parsed["per_class_alpha"], parsed["at_lower_bound"])


def _model(kind: Kind) -> type[BaseModel]:
    fields: dict[str, Any] = {
        "min_support": (int, Field(default=MIN_SUPPORT, ge=1)),
        "per_class_alpha": (float | None, Field(default=None, gt=0, lt=1)),
        "at_lower_bound": (bool, Field(default=False)),
    }
    for name, metric in kind.metrics.items():
        low = metric.low if math.isfinite(metric.low) else None
        high = metric.high if metric.is_bounded else None
        fields[name] = (float | None, Field(default=None, ge=low, le=high))
        allowed = kind.tolerance if name == kind.primary else None
        fields[change_key(name, metric)] = (float | None, Field(default=allowed, ge=0))
    made: type[BaseModel] = create_model("Thresholds", __base__=Config, **fields)
    return made


@dataclass(frozen=True)
class Missed:
    """A threshold that is not reached.

    Attributes:
        threshold: Its key, such as `top_1` or `max_top_1_drop`.
        text: What was found, one sentence.
        class_name: The class, where each is judged by itself; empty for a figure of all records.
        slice: The slice; empty for all records.
        is_measured: There is a value, a finite number, that does not reach it.
        parts_words: What is judged class by class; empty for a figure of all records.
    """

    threshold: str
    text: str
    class_name: str = ""
    slice: str = ""
    is_measured: bool = True
    parts_words: str = ""


def in_words(found: Sequence[Missed]) -> list[str]:
    """Return one sentence each; of one threshold's classes the first 20, and how many more there are."""
    groups: dict[tuple[str, str, str], list[Missed]] = {}
    for each in found:
        groups.setdefault((each.threshold, each.slice, each.parts_words), []).append(each)
    sentences: list[str] = []
    for (_, of_slice, words), some in groups.items():
        shown = some[:_PARTS_SHOWN] if words else some
        sentences += [each.text for each in shown]
        if more := len(some) - len(shown):
            sentences.append(f"{_where(of_slice)}{words}: {more} more classes likewise, in metrics.json")
    return sentences


def _where(of_slice: str) -> str:
    return f"{of_slice}: " if of_slice else ""


def missed(kind: Kind, figures: Mapping[str, Figure], limits: Limits, of_slice: str = "") -> list[Missed]:
    """Return the levels that figures do not reach.

    Args:
        kind: Their kind.
        figures: Figures by metric name.
        limits: What they must reach.
        of_slice: The slice that they are of; empty for all records.
    """
    found = []
    where = _where(of_slice)
    for name, limit in limits.levels.items():
        metric = kind.metrics[name]
        figure = figures.get(name)
        if figure is None or (figure.parts is None and math.isnan(figure.value)):
            text = f"{where}{metric.words} is not measured for these answers, and must reach {limit:g}"
            found.append(Missed(name, text, slice=of_slice, is_measured=False))
            continue
        if figure.parts is not None:
            found += [
                Missed(
                    name,
                    f"{where}{part.words} is {number(metric, part.value)}, {_side(metric)} "
                    f"{number(metric, limit)}{_blind(metric, figure)}{_certain(part, limits)}",
                    part.name or part.words,
                    of_slice,
                    math.isfinite(part.value),
                    metric.words,
                )
                for part in _missed_parts(metric, figure.parts, limit, limits)
            ]
            continue
        bound = figure.low if metric.is_higher_better else figure.high
        is_bound = limits.at_lower_bound and bound is not None
        value = bound if is_bound and bound is not None else figure.value
        if metric.is_worse(value, limit + _slack(metric)):
            end = f" at the worse end of its 95 % interval (measured {number(metric, figure.value)})"
            text = (
                f"{where}{metric.words} is {number(metric, value)}{end if is_bound else ''}, "
                f"{_side(metric)} {number(metric, limit)}{_blind(metric, figure)}"
            )
            found.append(Missed(name, text, slice=of_slice, is_measured=math.isfinite(figure.value)))
    return found


def _slack(metric: Metric) -> float:
    """Return what a limit is moved by: the comparison is right where a value only just reaches it."""
    return -_SLACK if metric.is_higher_better else _SLACK


def _certain(part: PartOfRecords, limits: Limits) -> str:
    if limits.per_class_alpha is None or not part.records:
        return ""
    return f" beyond chance ({part.hits} of {part.records} records)"


def _missed_parts(
    metric: Metric, parts: Sequence[PartOfRecords], limit: float, limits: Limits
) -> list[PartOfRecords]:
    """Return the parts that miss a level: of those with enough records, or beyond chance."""
    if limits.per_class_alpha is None:
        judged = [part for part in parts if part.is_supported]
        return [part for part in judged if metric.is_worse(part.value, limit + _slack(metric))]
    counted = [part for part in parts if part.records]
    tails = binomial_tails([part.hits for part in counted], [part.records for part in counted], limit)
    are_missed = holm(tails, limits.per_class_alpha)
    return [part for part, is_missed in zip(counted, are_missed, strict=True) if is_missed]


def _fallen_parts(
    metric: Metric, new: Sequence[PartOfRecords], old: Sequence[PartOfRecords], allowed: float, limits: Limits
) -> list[tuple[PartOfRecords, PartOfRecords]]:
    """Return the parts that fall behind the baseline's by more than allowed, each with the baseline's.

    Beyond chance is what remains where the allowed share of records counts as answered rightly (Fisher's
    exact test, Holm's method).
    """
    before = {part.words: part for part in old}
    pairs = [(part, before[part.words]) for part in new if part.words in before]
    if limits.per_class_alpha is None:
        return [
            (now, was)
            for now, was in pairs
            if now.is_supported
            and not (was.value - now.value if metric.is_higher_better else now.value - was.value)
            <= allowed + _SLACK
        ]
    counted = [(now, was) for now, was in pairs if now.records and now.records == was.records]
    spared = [min(now.records, now.hits + math.ceil(allowed * now.records - _SLACK)) for now, _ in counted]
    tails = fisher_tails(spared, [was.hits for _, was in counted], [now.records for now, _ in counted])
    are_fallen = holm(tails, limits.per_class_alpha)
    return [pair for pair, is_fallen in zip(counted, are_fallen, strict=True) if is_fallen]


def _blind(metric: Metric, figure: Figure) -> str:
    """Say so where an answer that does not look at the record is as good."""
    slack = _SLACK if metric.is_higher_better else -_SLACK
    if figure.naive is None or not metric.is_worse(figure.value, figure.naive + slack):
        return ""
    return f", no better than always answering {figure.naive_answer} ({number(metric, figure.naive)})"


def fallen(
    kind: Kind, new: Mapping[str, Figure], old: Mapping[str, Figure], limits: Limits, change: str
) -> list[Missed]:
    """Return which figures fall behind the baseline's by more than allowed.

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
        if name not in new or name not in old:
            continue
        key = change_key(name, metric)
        parts, parts_before = new[name].parts, old[name].parts
        if parts is not None and parts_before is not None:
            found += [
                Missed(
                    key,
                    f"{now.words} is {number(metric, now.value)} and falls behind the baseline's "
                    f"{number(metric, was.value)} by more than {allowed:g}{_certain(now, limits)}",
                    now.name or now.words,
                    is_measured=math.isfinite(now.value),
                    parts_words=metric.words,
                )
                for now, was in _fallen_parts(metric, parts, parts_before, allowed, limits)
            ]
            continue
        if math.isnan(old[name].value):
            continue
        before, now = old[name].value, new[name].value
        worse = before - now if metric.is_higher_better else now - before
        limit = allowed if metric.is_bounded else allowed * abs(before)
        if not worse <= limit + _SLACK:
            more = f"{allowed:g}" if metric.is_bounded else f"{100 * allowed:g} % of it"
            text = (
                f"{metric.words} falls behind the baseline's {number(metric, before)} by "
                f"{number(metric, worse)}, more than {more}{f' ({change})' if change else ''}"
            )
            found.append(Missed(key, text, is_measured=math.isfinite(now)))
    return found


def number(metric: Metric, value: float) -> str:
    """Return a value of a metric as text."""
    return f"{value:.4f}" if metric.is_bounded else f"{value:.4g}"


def _side(metric: Metric) -> str:
    return "below" if metric.is_higher_better else "above"
