"""Silhouettes of things to use and to play with."""

import math

from mlplatform.demo.photos.pen import Pen


def phone(pen: Pen) -> None:
    width = pen.between(0.4, 0.48)
    pen.box(-width, -0.92, width, 0.92, round_by=0.14)
    pen.box(-width + 0.06, -0.84, width - 0.06, 0.84, "ink", round_by=0.08)
    for row in range(pen.rng.integers(3, 5)):
        for column in range(3):
            x, y = (column - 1) * 0.23, -0.6 + row * 0.27
            tone = ("accent", "light", "glass", "paper")[int(pen.rng.integers(4))]
            pen.box(x - 0.08, y - 0.08, x + 0.08, y + 0.08, tone, round_by=0.04)  # type: ignore[arg-type]
    pen.line([(-0.12, 0.76), (0.12, 0.76)], 0.03, "paper")
    pen.line([(-0.08, -0.88), (0.08, -0.88)], 0.025, "ink")


def guitar(pen: Pen) -> None:
    upper, lower = pen.between(0.26, 0.32), pen.between(0.38, 0.46)
    pen.mirrored(
        [(0.12, -0.1), (upper, 0.08), (upper - 0.07, 0.3), (lower, 0.6), (0.25, 0.93), (0.06, 0.96)],
        smooth=True,
    )
    pen.ellipse(0, 0.34, 0.14, 0.14, "ink")
    pen.box(-0.055, -0.7, 0.055, 0.25, "dark")
    pen.polygon([(-0.1, -0.97), (0.1, -0.97), (0.07, -0.68), (-0.07, -0.68)], "ink")
    for y in (-0.92, -0.83, -0.74):
        pen.ellipse(-0.13, y, 0.04, 0.03, "metal")
        pen.ellipse(0.13, y, 0.04, 0.03, "metal")
    pen.box(-0.16, 0.66, 0.16, 0.73, "ink")
    for x in (-0.03, 0.0, 0.03):
        pen.line([(x, -0.9), (x, 0.68)], 0.01, "paper")


def ball(pen: Pen) -> None:
    size = pen.between(0.75, 0.9)
    pen.ellipse(0, 0, size, size)
    turn = pen.between(0, 1.2)

    def pentagon(x: float, y: float, radius: float, start: float) -> None:
        corners = [start + k * 2 * math.pi / 5 for k in range(5)]
        pen.polygon([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in corners], "ink")

    pentagon(0, 0, size * 0.3, turn)
    for k in range(5):
        angle = turn + k * 2 * math.pi / 5
        corner = (size * 0.3 * math.cos(angle), size * 0.3 * math.sin(angle))
        pen.line([corner, (size * 0.6 * math.cos(angle), size * 0.6 * math.sin(angle))], 0.03, "ink")
        pentagon(size * 0.8 * math.cos(angle), size * 0.8 * math.sin(angle), size * 0.2, angle)


def key(pen: Pen) -> None:
    ring = pen.between(0.26, 0.34)
    pen.line([(0, -0.3), (0, 0.88)], 0.14, "main")
    for y in (0.84, 0.68, pen.between(0.5, 0.56)):
        pen.box(0.0, y - 0.05, pen.between(0.2, 0.32), y + 0.05)
    pen.ellipse(0, -0.55, ring + 0.08, ring + 0.08)
    pen.ellipse(0, -0.55, ring - 0.08, ring - 0.08, "hole")
    pen.box(-0.12, -0.22, 0.12, -0.14, "dark")
    pen.line([(-0.02, -0.12), (-0.02, 0.84)], 0.025, "light")


def scissors(pen: Pen) -> None:
    spread, ring = pen.between(0.2, 0.42), pen.between(0.2, 0.25)
    for side in (-1, 1):
        pen.polygon(
            [(side * 0.05, 0.14), (side * spread, -0.96), (side * spread * 0.72, -0.9), (-side * 0.06, 0.08)],
            "metal",
        )
    for side in (-1, 1):
        x = side * (spread * 0.55 + 0.16)
        pen.line([(-side * 0.03, 0.08), (x * 0.7, 0.42)], 0.12, "main")
        pen.ellipse(x, 0.64, ring + 0.07, ring + 0.1)
        pen.ellipse(x, 0.64, ring - 0.06, ring - 0.03, "hole")
    pen.ellipse(0, 0.1, 0.06, 0.06, "ink")


def headphones(pen: Pen) -> None:
    width, height = pen.between(0.62, 0.74), pen.between(0.75, 0.9)
    pen.arc(0, 0.2, width, height, (180, 360), 0.12, "main")
    pen.arc(0, 0.2, width - 0.07, height - 0.07, (200, 340), 0.05, "dark")
    for side in (-1, 1):
        x = side * width
        pen.box(x - 0.2, 0.02, x + 0.16, 0.72, "dark", round_by=0.16)
        pen.box(min(x, x + side * 0.2), 0.06, max(x, x + side * 0.2), 0.68, round_by=0.1)
        pen.box(
            min(x - side * 0.22, x - side * 0.06),
            0.0,
            max(x - side * 0.22, x - side * 0.06),
            0.74,
            "ink",
            round_by=0.08,
        )
        pen.ellipse(x + side * 0.1, 0.37, 0.06, 0.1, "accent")


def camera(pen: Pen) -> None:
    width, top = pen.between(0.8, 0.92), pen.between(-0.42, -0.34)
    pen.polygon([(-0.3, top), (-0.2, top - 0.22), (0.2, top - 0.22), (0.3, top)], "dark")
    pen.box(-width + 0.1, top - 0.1, -width + 0.36, top + 0.1, "metal", round_by=0.03)
    pen.box(-width, top, width, 0.62, round_by=0.1)
    pen.box(-width, top, width, top + 0.16, "metal", round_by=0.05)
    pen.ellipse(0, 0.14, 0.42, 0.42, "ink")
    pen.ellipse(0, 0.14, 0.34, 0.34, "metal")
    pen.ellipse(0, 0.14, 0.28, 0.28, "ink")
    pen.ellipse(0, 0.14, 0.17, 0.17, "glass")
    pen.ellipse(-0.06, 0.07, 0.06, 0.06, "paper")
    pen.box(width - 0.3, top + 0.22, width - 0.1, top + 0.34, "glass")
