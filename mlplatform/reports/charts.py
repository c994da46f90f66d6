"""Charts as inline SVG: no script and no file beside the page; they are as wide as their place.

Text is HTML around the drawing, so that it keeps its size on a narrow screen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

BINS = 24
_WIDTH, _HEIGHT = 240, 80  # units of the drawing, which is stretched


@dataclass(frozen=True)
class Bucket:
    """A part of a distribution of numbers; `low` equals `high` where it is one value."""

    low: float
    high: float
    count: float


def histogram(
    here: Sequence[Bucket], there: Sequence[Bucket] = (), *, names: tuple[str, str] = ("this", "baseline")
) -> Markup:
    """Draw a distribution as bars and another one as a line over them, both as shares of their own records.

    Args:
        here: The distribution that the page is about.
        there: What it is compared with; empty for nothing.
        names: What the two are called in the legend.
    """
    every = [*here, *there]
    if not every:
        return Markup()
    low, high = min(b.low for b in every), max(b.high for b in every)
    shares, others = _binned(here, low, high), _binned(there, low, high)
    top = max([*shares, *others, 1e-12])
    width = _WIDTH / BINS
    bars = Markup().join(
        Markup(
            '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{:.1%}</title></rect>'
        ).format(k * width + 0.5, _HEIGHT * (1 - share / top), width - 1, _HEIGHT * share / top, share)
        for k, share in enumerate(shares)
        if share
    )
    line = ""
    if there:
        steps = [f"{x:.1f},{_HEIGHT * (1 - s / top):.1f}" for k, s in enumerate(others)
                 for x in (k * width, (k + 1) * width)]  # fmt: skip
        line = Markup('<polyline points="{}"/>').format(
            " ".join([f"0,{_HEIGHT}", *steps, f"{_WIDTH},{_HEIGHT}"])
        )
    drawing = Markup(
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="distribution, {:g} to {:g}">{}{}</svg>'
    ).format(_WIDTH, _HEIGHT, low, high, bars, line)
    axis = Markup('<div class="axis"><span>{:g}</span><span>{:g}</span></div>').format(low, high)
    return Markup('<div class="chart">{}{}{}</div>').format(drawing, axis, _legend(names) if there else "")


def top_values(
    here: Sequence[tuple[str, float]],
    there: Sequence[tuple[str, float]] = (),
    *,
    names: tuple[str, str] = ("this", "baseline"),
    most: int = 8,
) -> Markup:
    """Draw the most frequent values as horizontal bars, with a second bar each for what is compared.

    Args:
        here: Values and their shares, 0 to 1.
        there: The same of what it is compared with; empty for nothing.
        names: What the two are called in the legend.
        most: How many values are shown: those with the largest share on either side.
    """
    ours, theirs = dict(here), dict(there)
    ranked = sorted({*ours, *theirs}, key=lambda v: (-max(ours.get(v, 0), theirs.get(v, 0)), v))
    top = max([*ours.values(), *theirs.values(), 1e-12])

    def bar(share: float, kind: str) -> Markup:
        return Markup('<i class="{}" style="width: {:.1f}%"></i>').format(kind, 100 * share / top)

    rows = Markup().join(
        Markup(
            '<div class="value"><span title="{0}">{0}</span><span class="pair">{1}{2}</span>'
            '<span class="share">{3:.1%}{4}</span></div>'
        ).format(
            value,
            bar(ours.get(value, 0), "here"),
            bar(theirs.get(value, 0), "there") if there else "",
            ours.get(value, 0),
            f" / {theirs.get(value, 0):.1%}" if there else "",
        )
        for value in ranked[:most]
    )
    more = len(ranked) - most
    rest = Markup('<div class="axis"><span>and {:,} more</span></div>').format(more) if more > 0 else ""
    return Markup('<div class="chart">{}{}{}</div>').format(rows, rest, _legend(names) if there else "")


def _binned(buckets: Sequence[Bucket], low: float, high: float) -> list[float]:
    """Return the share of each of `BINS` equal parts of a range; within a bucket values lie evenly."""
    shares = [0.0] * BINS
    total = sum(bucket.count for bucket in buckets) or 1.0
    width = (high - low) / BINS or 1.0
    for bucket in buckets:
        first = min(int((bucket.low - low) / width), BINS - 1)
        last = min(int((bucket.high - low) / width), BINS - 1)
        span = bucket.high - bucket.low
        for k in range(first, last + 1):
            begin, end = low + k * width, low + (k + 1) * width
            overlap = min(end, bucket.high) - max(begin, bucket.low)
            part = 1.0 if first == last or not span else max(overlap, 0.0) / span
            shares[k] += bucket.count * part / total
    return shares


def _legend(names: tuple[str, str]) -> Markup:
    return Markup(
        '<div class="legend"><span class="here">{}</span><span class="there">{}</span></div>'
    ).format(*names)
