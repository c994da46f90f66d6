"""Curves of a metric over the epochs, as the points of an SVG drawing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 320, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 22


@dataclass(frozen=True)
class Curve:
    """One line; `points` is for an SVG `polyline`, `dots` the same as pairs, `last` its last value."""

    name: str
    points: str
    dots: tuple[tuple[float, float], ...]
    last: float


@dataclass(frozen=True)
class CurveChart:
    """A metric of training and validation over the epochs.

    Attributes:
        metric: Its name.
        curves: Its lines; a value that is not finite is left out.
        ticks: Heights of the scale and their values as text.
        epochs: How many epochs.
        best_x: Where the epoch of the kept weights is; None where none was kept.
        best_epoch: That epoch, counted from 1.
    """

    metric: str
    curves: tuple[Curve, ...]
    ticks: tuple[tuple[float, str], ...]
    epochs: int
    best_x: float | None
    best_epoch: int


def curve_chart(metric: str, epochs: Sequence[Mapping[str, float]], best_epoch: int) -> CurveChart | None:
    """Return the chart of a metric; None where no epoch has a finite value of it.

    Args:
        metric: The metric's name, without `val_`.
        epochs: Per epoch, metric names to their values.
        best_epoch: Epoch (from 0) whose weights were kept; -1 for none.
    """
    lines = {
        name: [(n, e[key]) for n, e in enumerate(epochs) if key in e and math.isfinite(e[key])]
        for name, key in (("training", metric), ("validation", f"val_{metric}"))
    }
    values = [value for line in lines.values() for _, value in line]
    if not values:
        return None
    low, high = min(values), max(values)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5

    def x(epoch: int) -> float:
        step = (WIDTH - _LEFT - _RIGHT) / max(len(epochs) - 1, 1)
        return round(_LEFT + step * epoch, 1)

    def y(value: float) -> float:
        return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low), 1)

    curves = []
    for name, line in lines.items():
        dots = tuple((x(epoch), y(value)) for epoch, value in line)
        if dots:
            curves.append(Curve(name, " ".join(f"{a},{b}" for a, b in dots), dots, line[-1][1]))
    ticks = tuple((y(value), f"{value:.3g}") for value in (low, (low + high) / 2, high))
    best_x = x(best_epoch) if 0 <= best_epoch < len(epochs) else None
    return CurveChart(metric.replace("_", " "), tuple(curves), ticks, len(epochs), best_x, best_epoch + 1)
