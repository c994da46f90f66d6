"""Graphs and timelines as SVG: laid out here, with real links, no script and no inline style."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 212, 46, 48, 16, 8  # pixels
_LETTERS = 24  # that fit into a box
_SWEEPS = 4  # of ordering each layer by its neighbours


@dataclass(frozen=True)
class Box:
    """A node of a graph as it is drawn.

    Attributes:
        id: What edges name it by.
        title: Its first line.
        note: Its second line.
        tone: `good`, `bad`, `warn`, `here` (what the graph is about), or nothing.
        href: Where it leads; empty for nowhere.
    """

    id: str
    title: str
    note: str = ""
    tone: str = ""
    href: str = ""


@dataclass(frozen=True)
class Bar:
    """A row of a timeline.

    Attributes:
        title: What it is about.
        start_s: Seconds from the beginning of the timeline.
        seconds: How long it took.
        tone: `good`, `bad` or `soft`.
    """

    title: str
    start_s: float
    seconds: float
    tone: str = "good"


def draw_graph(boxes: Sequence[Box], edges: Iterable[tuple[str, str]], *, label: str) -> Markup:
    """Draw a graph from left to right; an edge that would close a circle is drawn backwards.

    Args:
        boxes: The nodes.
        edges: Pairs of ids, from and to; those of unknown ids are left out.
        label: What the graph shows, for who cannot see it.
    """
    known = {box.id: box for box in boxes}
    links = [(a, b) for a, b in dict.fromkeys(edges) if a in known and b in known and a != b]
    layers = _ordered(_layers(list(known), links), links)
    tallest = max((len(layer) for layer in layers), default=0)
    places = {
        node: (
            _MARGIN + column * (_WIDTH + _GAP_X),
            _MARGIN + row * (_HEIGHT + _GAP_Y) + (tallest - len(layer)) * (_HEIGHT + _GAP_Y) // 2,
        )
        for column, layer in enumerate(layers)
        for row, node in enumerate(layer)
    }
    width = 2 * _MARGIN + len(layers) * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + tallest * (_HEIGHT + _GAP_Y) - _GAP_Y
    return Markup(
        '<div class="graph" tabindex="0" role="region" aria-label="{0}">'
        '<svg width="{1}" height="{2}" viewBox="0 0 {1} {2}" role="group" aria-label="{0}">{3}{4}</svg></div>'
    ).format(
        label,
        max(width, 0),
        max(height, 0),
        Markup().join(_edge(places[a], places[b]) for a, b in links),
        Markup().join(_box(known[node], *place) for node, place in places.items()),
    )


def _layers(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the nodes by their longest way from a node without a way in."""
    after: dict[str, list[str]] = {node: [] for node in nodes}
    waits = dict.fromkeys(nodes, 0)
    for source, target in edges:
        after[source].append(target)
        waits[target] += 1
    depth = dict.fromkeys(nodes, 0)
    left, ready = dict.fromkeys(nodes), [node for node in nodes if not waits[node]]
    while left:
        if not ready:  # a circle: begin with the first of it
            ready = [next(iter(left))]
        node = ready.pop()
        if node not in left:
            continue
        del left[node]
        for target in after[node]:
            waits[target] -= 1
            if target in left:
                depth[target] = max(depth[target], depth[node] + 1)
                if not waits[target]:
                    ready.append(target)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in nodes:
        layers[depth[node]].append(node)
    return layers


def _ordered(layers: list[list[str]], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the layers with each node near its neighbours: fewer edges cross."""
    beside: dict[str, list[str]] = {node: [] for layer in layers for node in layer}
    for source, target in edges:
        beside[source].append(target)
        beside[target].append(source)
    place = {node: float(row) for layer in layers for row, node in enumerate(layer)}
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            layer.sort(key=lambda node: _mean([place[other] for other in beside[node]], place[node]))
            for row, node in enumerate(layer):
                place[node] = row - (len(layer) - 1) / 2
    return layers


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _edge(start: tuple[int, int], end: tuple[int, int]) -> Markup:
    x, y, u, v = start[0] + _WIDTH, start[1] + _HEIGHT // 2, end[0] - 5, end[1] + _HEIGHT // 2
    bend = max(_GAP_X // 2, (u - x) // 2)
    return Markup(
        '<path class="edge" d="M{0} {1}C{2} {1} {3} {5} {4} {5}"/><path class="tip" d="M{6} {5}l-7 -4v8z"/>'
    ).format(x, y, x + bend, u - bend, u, v, u + 5)


def _box(box: Box, x: int, y: int) -> Markup:
    drawing = Markup(
        '<g class="box {}" transform="translate({} {})"><title>{}</title>'
        '<rect width="{}" height="{}" rx="7"/><text class="title" x="10" y="{}">{}</text>{}</g>'
    ).format(
        box.tone,
        x,
        y,
        f"{box.title} {box.note}".strip(),
        _WIDTH,
        _HEIGHT,
        20 if box.note else 28,
        _short(box.title),
        Markup('<text class="note" x="10" y="37">{}</text>').format(_short(box.note)) if box.note else "",
    )
    return Markup('<a href="{}">{}</a>').format(box.href, drawing) if box.href else drawing


def _short(text: str) -> str:
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…"


def draw_timeline(bars: Sequence[Bar], *, label: str) -> Markup:
    """Draw what ran when, a row for each, as wide as its place.

    Args:
        bars: The rows, in their order.
        label: What the timeline shows, for who cannot see it.
    """
    end = max([bar.start_s + bar.seconds for bar in bars] + [0.001])
    title, room, row = 170, 620, 24
    rows = Markup().join(
        Markup(
            '<text x="0" y="{y}">{title}</text><rect class="track" x="{left}" y="{top}" width="{room}" '
            'height="14" rx="3"/><rect class="{tone}" x="{x:.1f}" y="{top}" width="{width:.1f}" height="14" '
            'rx="3"><title>{title}: {seconds:.1f} s</title></rect><text x="{after}" y="{y}">{seconds:.1f} s'
            "</text>"
        ).format(
            y=index * row + 16,
            top=index * row + 5,
            title=_short(bar.title),
            left=title,
            room=room,
            tone=bar.tone,
            x=title + room * bar.start_s / end,
            width=max(room * bar.seconds / end, 1.5),
            after=title + room + 8,
            seconds=bar.seconds,
        )
        for index, bar in enumerate(bars)
    )
    return Markup(
        '<div class="gantt" tabindex="0" role="region" aria-label="{0}"><svg viewBox="0 0 {1} {2}" '
        'role="img" aria-label="{0}">{3}</svg></div>'
    ).format(label, title + room + 70, max(len(bars), 1) * row, rows)


def draw_line(points: Sequence[tuple[object, float]], *, label: str) -> Markup:
    """Draw a figure over versions as a line with dots, each with its value.

    Args:
        points: What each dot is of, and its value; in their order.
        label: What the line shows, for who cannot see it.
    """
    if not points:
        return Markup()
    width, height, edge = 300, 90, 12
    low, high = min(value for _, value in points), max(value for _, value in points)
    room = (high - low) or 1.0
    step = (width - 2 * edge) / max(len(points) - 1, 1)
    places = [
        (edge + index * step, height - edge - (height - 2 * edge) * (value - low) / room)
        for index, (_, value) in enumerate(points)
    ]
    dots = Markup().join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}: {:.4g}</title></circle>').format(
            x, y, name, value
        )
        for (x, y), (name, value) in zip(places, points, strict=True)
    )
    return Markup(
        '<div class="line"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<polyline points="{}"/>{}</svg>'
        '<div class="axis"><span>{}: {:.4g}</span><span>{}: {:.4g}</span></div></div>'
    ).format(
        width,
        height,
        label,
        " ".join(f"{x:.1f},{y:.1f}" for x, y in places),
        dots,
        points[0][0],
        points[0][1],
        points[-1][0],
        points[-1][1],
    )


def draw_intervals(points: Sequence[tuple[object, float, Sequence[float] | None]], *, label: str) -> Markup:
    """Draw values beside each other as dots, each with a bar from the low to the high end of its interval.

    Args:
        points: What each dot is of, its value, and the ends of its interval; None for none.
        label: What is shown, for who cannot see it.
    """
    if not points:
        return Markup()
    width, height, edge = 300, 90, 12
    every = [number for _, value, ends in points for number in (value, *(ends or ()))]
    low, high = min(every), max(every)
    room, step = (high - low) or 1.0, (width - 2 * edge) / max(len(points) - 1, 1)

    def y(value: float) -> float:
        return height - edge - (height - 2 * edge) * (value - low) / room

    marks = []
    for index, (name, value, ends) in enumerate(points):
        x = edge + index * step
        text = f"{name}: {value:.4g}"
        if ends:
            text += f" ({ends[0]:.4g} to {ends[1]:.4g})"
            path = Markup(
                '<path class="interval" d="M{:.1f} {:.1f}V{:.1f}M{:.1f} {:.1f}h8M{:.1f} {:.1f}h8"/>'
            )
            marks.append(path.format(x, y(ends[0]), y(ends[1]), x - 4, y(ends[0]), x - 4, y(ends[1])))
        marks.append(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>').format(
                x, y(value), text
            )
        )
    return Markup(
        '<div class="line"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        '<div class="axis"><span>{}</span><span>{:.4g} to {:.4g}</span><span>{}</span></div></div>'
    ).format(width, height, label, Markup().join(marks), points[0][0], low, high, points[-1][0])
