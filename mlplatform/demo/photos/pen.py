"""Draws an item's silhouette in colour on a transparent square."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

LAYER_PX = 256  # side of the square that an item is drawn on, before it is placed in a scene

Tone = Literal["main", "dark", "light", "accent", "metal", "ink", "paper", "glass", "hole"]
Point = tuple[float, float]
Rgb = tuple[int, int, int]

_FIXED: dict[str, tuple[int, int, int, int]] = {
    "metal": (176, 180, 188, 255),
    "ink": (32, 32, 38, 255),
    "paper": (240, 238, 230, 255),
    "glass": (190, 214, 226, 235),
    "hole": (0, 0, 0, 0),
}


class Pen:
    """Draws on a square whose coordinates go from -1 to 1, x to the right and y down.

    Attributes:
        rng: Source of the item's own variation.
        layer: RGBA picture of what was drawn.
        cloth: Where the main colour is, 0 or 255: patterns and folds go there.
    """

    def __init__(self, colour: Rgb, accent: Rgb, rng: np.random.Generator) -> None:
        self.rng = rng
        self.layer = Image.new("RGBA", (LAYER_PX, LAYER_PX), (*colour, 0))
        self.cloth = Image.new("L", (LAYER_PX, LAYER_PX), 0)
        self._draw = ImageDraw.Draw(self.layer)
        self._draw_cloth = ImageDraw.Draw(self.cloth)
        self._tones = {
            "main": (*colour, 255),
            "dark": (*_scaled(colour, 0.62), 255),
            "light": (*_towards_white(colour, 0.45), 255),
            "accent": (*accent, 255),
            **_FIXED,
        }

    def between(self, low: float, high: float) -> float:
        """Return a random number from low to high."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return bool(self.rng.random() < probability)

    def polygon(self, points: Sequence[Point], tone: Tone = "main") -> None:
        """Fill a polygon."""
        pixels = [_pixel(point) for point in points]
        self._draw.polygon(pixels, fill=self._tones[tone])
        self._draw_cloth.polygon(pixels, fill=255 if tone == "main" else 0)

    def blob(self, points: Sequence[Point], tone: Tone = "main") -> None:
        """Fill the smooth closed curve through the points."""
        self.polygon(_smooth(points), tone)

    def mirrored(self, right: Sequence[Point], tone: Tone = "main", *, smooth: bool = False) -> None:
        """Fill a shape from its right half, given from top to bottom."""
        points = [*right, *[(-x, y) for x, y in reversed(right)]]
        self.polygon(_smooth(points) if smooth else points, tone)

    def ellipse(self, x: float, y: float, rx: float, ry: float, tone: Tone = "main") -> None:
        """Fill an ellipse around (x, y)."""
        box = [_pixel((x - rx, y - ry)), _pixel((x + rx, y + ry))]
        self._draw.ellipse(box, fill=self._tones[tone])
        self._draw_cloth.ellipse(box, fill=255 if tone == "main" else 0)

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        tone: Tone = "main",
        *,
        round_by: float = 0.0,
    ) -> None:
        """Fill a rectangle, its corners rounded by a radius."""
        corners = [_pixel((left, top)), _pixel((right, bottom))]
        radius = round_by * LAYER_PX / 2
        self._draw.rounded_rectangle(corners, radius, fill=self._tones[tone])
        self._draw_cloth.rounded_rectangle(corners, radius, fill=255 if tone == "main" else 0)

    def line(self, points: Sequence[Point], width: float, tone: Tone = "dark") -> None:
        """Draw a line of a width through the points, with round ends."""
        pixels = [_pixel(point) for point in points]
        thickness = max(1, round(width * LAYER_PX / 2))
        self._draw.line(pixels, fill=self._tones[tone], width=thickness, joint="curve")
        value = 255 if tone == "main" else 0
        self._draw_cloth.line(pixels, fill=value, width=thickness, joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            end = [x - thickness / 2, y - thickness / 2, x + thickness / 2, y + thickness / 2]
            self._draw.ellipse(end, fill=self._tones[tone])
            self._draw_cloth.ellipse(end, fill=value)

    def arc(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        degrees: tuple[float, float],
        width: float,
        tone: Tone = "dark",
    ) -> None:
        """Draw part of an ellipse's outline; 0 degrees is to the right, 90 is down."""
        start, end = degrees
        steps = max(8, int(abs(end - start) / 8))
        angles = [math.radians(start + (end - start) * k / steps) for k in range(steps + 1)]
        self.line([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles], width, tone)


def _pixel(point: Point) -> tuple[float, float]:
    return (point[0] + 1) * LAYER_PX / 2, (point[1] + 1) * LAYER_PX / 2


def _scaled(colour: Rgb, factor: float) -> Rgb:
    return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))


def _towards_white(colour: Rgb, share: float) -> Rgb:
    r, g, b = (int(value + (255 - value) * share) for value in colour)
    return (r, g, b)


def _smooth(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """Return points on the closed Catmull-Rom curve through `points`."""
    count, curve = len(points), []
    for k in range(count):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = (points[(k + offset) % count] for offset in (-1, 0, 1, 2))
        for step in range(steps):
            t = step / steps
            weights = (
                -0.5 * t**3 + t**2 - 0.5 * t,
                1.5 * t**3 - 2.5 * t**2 + 1,
                -1.5 * t**3 + 2 * t**2 + 0.5 * t,
                0.5 * t**3 - 0.5 * t**2,
            )
            curve.append(
                (
                    weights[0] * ax + weights[1] * bx + weights[2] * cx + weights[3] * dx,
                    weights[0] * ay + weights[1] * by + weights[2] * cy + weights[3] * dy,
                )
            )
    return curve
