"""Silhouettes of things for the home."""

import math

from mlplatform.demo.photos.pen import Pen


def mug(pen: Pen) -> None:
    width, height = pen.between(0.45, 0.56), pen.between(0.5, 0.68)
    pen.arc(width, 0.05, 0.32, 0.34, (-90, 90), 0.13, "main")
    pen.box(-width, -height, width, height, round_by=0.12)
    pen.ellipse(0, -height, width, 0.14, "light")
    pen.ellipse(0, -height + 0.02, width - 0.07, 0.09, "ink")
    if pen.chance(0.5):
        pen.ellipse(0, 0.1, 0.2, 0.2, "accent")
    else:
        pen.box(-width, 0.2, width, 0.34, "accent")


def bottle(pen: Pen) -> None:
    body, neck = pen.between(0.27, 0.36), pen.between(0.09, 0.13)
    shoulder = pen.between(-0.35, -0.15)
    pen.mirrored(
        [(neck, -0.85), (neck, shoulder - 0.2), (body, shoulder + 0.15), (body, 0.9), (body - 0.06, 0.95)]
    )
    pen.box(-neck - 0.03, -0.97, neck + 0.03, -0.8, "accent", round_by=0.03)
    pen.box(-body, 0.15, body, 0.62, "paper")
    pen.line([(-body + 0.1, 0.3), (body - 0.1, 0.3)], 0.05, "accent")
    pen.line([(-body + 0.1, 0.44), (body - 0.18, 0.44)], 0.03, "ink")
    pen.line([(-body + 0.08, shoulder + 0.2), (-body + 0.08, 0.85)], 0.04, "light")


def lamp(pen: Pen) -> None:
    top, bottom = pen.between(0.22, 0.34), pen.between(0.56, 0.7)
    pen.line([(0, -0.2), (0, 0.82)], 0.07, "metal")
    pen.ellipse(0, 0.85, pen.between(0.3, 0.4), 0.1, "metal")
    pen.ellipse(0, 0.4, 0.14, pen.between(0.16, 0.34), "accent")
    pen.polygon([(-top, -0.9), (top, -0.9), (bottom, -0.08), (-bottom, -0.08)])
    pen.polygon(
        [(-top * 0.5, -0.9), (top * 0.3, -0.9), (bottom * 0.3, -0.08), (-bottom * 0.5, -0.08)], "light"
    )
    pen.line([(-bottom, -0.08), (bottom, -0.08)], 0.05, "dark")
    pen.line([(bottom * 0.6, -0.08), (bottom * 0.6, 0.2)], 0.02, "ink")


def chair(pen: Pen) -> None:
    width, seat = pen.between(0.4, 0.5), pen.between(0.05, 0.18)
    for x, foot in ((-width + 0.06, 0.0), (width - 0.06, 0.0)):
        pen.line([(x - 0.12, seat), (x - 0.14 + foot, 0.78)], 0.07, "dark")
    pen.box(-width, -0.95, width - 0.1, -0.45, round_by=0.12)
    for k in range(3):
        x = -width + 0.12 + k * (width - 0.17)
        pen.line([(x, -0.45), (x, seat)], 0.06, "main")
    pen.polygon(
        [
            (-width, seat - 0.05),
            (width - 0.1, seat - 0.05),
            (width + 0.16, seat + 0.22),
            (-width + 0.1, seat + 0.22),
        ]
    )
    pen.line([(-width + 0.1, seat + 0.24), (width + 0.16, seat + 0.24)], 0.06, "dark")
    for x in (-width + 0.14, width + 0.12):
        pen.line([(x, seat + 0.26), (x + 0.02, 0.95)], 0.08, "main")


def teapot(pen: Pen) -> None:
    body, height = pen.between(0.5, 0.6), pen.between(0.4, 0.5)
    pen.arc(-body, 0.12, 0.32, 0.3, (80, 280), 0.1, "main")
    pen.polygon(
        [
            (body - 0.18, 0.35),
            (body + 0.12, 0.1),
            (0.82, -0.3),
            (0.95, -0.3),
            (0.74, 0.25),
            (body - 0.1, 0.55),
        ]
    )
    pen.ellipse(0, 0.2, body, height)
    pen.ellipse(0, 0.2 - height + 0.04, 0.3, 0.1, "dark")
    pen.ellipse(0, 0.2 - height - 0.02, 0.27, 0.1)
    pen.ellipse(0, 0.2 - height - 0.16, 0.08, 0.09, "accent")
    pen.box(-0.3, 0.2 + height - 0.06, 0.3, 0.2 + height + 0.06, "dark", round_by=0.04)
    pen.ellipse(-body * 0.4, 0.02, 0.1, 0.16, "light")


def vase(pen: Pen) -> None:
    belly, neck = pen.between(0.4, 0.5), pen.between(0.13, 0.2)
    for x, y, lean in ((-0.1, -0.6, -0.3), (0.0, -0.72, 0.05), (0.1, -0.58, 0.34)):
        pen.line([(x * 0.3, -0.15), (x + lean * 0.5, y)], 0.03, "dark")
        for k in range(5):
            angle = k * 2 * math.pi / 5 + lean
            pen.ellipse(
                x + lean * 0.5 + 0.1 * math.cos(angle), y + 0.1 * math.sin(angle), 0.08, 0.08, "accent"
            )
        pen.ellipse(x + lean * 0.5, y, 0.06, 0.06, "paper")
    pen.mirrored(
        [(neck + 0.08, -0.2), (neck, -0.05), (belly, 0.35), (belly * 0.9, 0.6), (0.22, 0.93), (0.1, 0.95)],
        smooth=True,
    )
    pen.line([(-belly * 0.95, 0.36), (belly * 0.95, 0.36)], 0.08, "light")


def clock(pen: Pen) -> None:
    size = pen.between(0.78, 0.92)
    pen.ellipse(0, 0, size, size)
    pen.ellipse(0, 0, size - 0.13, size - 0.13, "paper")
    for hour in range(12):
        angle = math.radians(30 * hour)
        inner, outer = (size - 0.3, size - 0.18) if hour % 3 == 0 else (size - 0.25, size - 0.18)
        pen.line(
            [
                (inner * math.cos(angle), inner * math.sin(angle)),
                (outer * math.cos(angle), outer * math.sin(angle)),
            ],
            0.05 if hour % 3 == 0 else 0.03,
            "ink",
        )
    for length, width in ((0.36, 0.07), (0.52, 0.05)):
        angle = pen.between(0, 2 * math.pi)
        pen.line([(0, 0), (length * math.cos(angle), length * math.sin(angle))], width, "ink")
    pen.ellipse(0, 0, 0.06, 0.06, "accent")


def book(pen: Pen) -> None:
    width, height = pen.between(0.5, 0.62), pen.between(0.72, 0.85)
    pen.box(-width + 0.12, -height + 0.1, width + 0.12, height + 0.1, "dark")
    pen.polygon(
        [(-width, height), (width, height), (width + 0.1, height + 0.07), (-width + 0.14, height + 0.07)],
        "paper",
    )
    pen.polygon(
        [(width, -height), (width + 0.09, -height + 0.1), (width + 0.09, height + 0.06), (width, height)],
        "paper",
    )
    pen.box(-width, -height, width, height)
    pen.box(-width, -height, -width + 0.12, height, "dark")
    pen.box(-width + 0.25, -height + 0.2, width - 0.12, -height + 0.3, "paper")
    pen.box(-width + 0.25, -height + 0.38, width - 0.3, -height + 0.45, "paper")
    pen.ellipse(0.06, 0.2, 0.24, 0.24, "accent")


def sofa(pen: Pen) -> None:
    width, back = pen.between(0.8, 0.92), pen.between(-0.5, -0.35)
    for x in (-width + 0.12, width - 0.12):
        pen.box(x - 0.05, 0.45, x + 0.05, 0.66, "ink")
    pen.box(-width + 0.1, back, width - 0.1, 0.3, round_by=0.14)
    pen.line([(0, back + 0.06), (0, 0.1)], 0.03, "dark")
    pen.box(-width + 0.1, 0.08, -0.01, 0.34, "light", round_by=0.07)
    pen.box(0.01, 0.08, width - 0.1, 0.34, "light", round_by=0.07)
    pen.box(-width + 0.05, 0.32, width - 0.05, 0.5, "dark", round_by=0.05)
    for x in (-width, width):
        pen.box(x - 0.13, -0.12, x + 0.13, 0.52, round_by=0.13)
    pen.polygon([(-0.55, -0.16), (-0.3, -0.2), (-0.24, 0.08), (-0.52, 0.1)], "accent")
