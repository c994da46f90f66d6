"""Puts an item into a scene: background, pose, light, occlusion, camera noise."""

import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from mlplatform.demo.photos.catalogue import CATEGORIES, COLOURS
from mlplatform.demo.photos.pen import LAYER_PX, Pen, Rgb

_OVERSAMPLING = 2  # scenes are drawn at twice their size


@dataclass(frozen=True)
class Conditions:
    """What a season of photos has in common.

    Attributes:
        light: Lowest and highest brightness of a photo, 1 is neutral.
        ground: Lowest and highest brightness of a background's colours, 0 to 255.
    """

    light: tuple[float, float] = (0.75, 1.15)
    ground: tuple[int, int] = (60, 235)


USUAL = Conditions()
DARK_SEASON = Conditions(light=(0.3, 0.55), ground=(10, 90))


def draw_photo(
    category: str, colour: str, size_px: int, rng: np.random.Generator, conditions: Conditions = USUAL
) -> Image.Image:
    """Return an RGB photo of an item, size_px x size_px; all its variation comes from `rng`."""
    side = size_px * _OVERSAMPLING
    scene = _background(side, rng, conditions)
    item = _posed(_item(category, colour, rng), side, rng)
    _cast_shadow(scene, item, rng)
    scene.paste(item, (0, 0), item)
    _occlude(scene, rng)
    photo = scene.resize((size_px, size_px), Image.Resampling.BOX)
    return _taken(photo, rng, conditions)


def encode_jpeg(photo: Image.Image, rng: np.random.Generator) -> bytes:
    """Return the photo as JPEG, its quality from 55 to 92."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=int(rng.integers(55, 93)))
    return file.getvalue()


def _item(category: str, colour: str, rng: np.random.Generator) -> Image.Image:
    accent = COLOURS[list(COLOURS)[int(rng.integers(len(COLOURS)))]]
    jitter = rng.integers(-14, 15, 3)
    main = _clipped(np.array(COLOURS[colour]) + jitter)
    pen = Pen(main, accent, rng)
    CATEGORIES[category](pen)
    _pattern(pen, accent)
    return pen.layer


def _pattern(pen: Pen, accent: Rgb) -> None:
    """Print stripes, checks or dots on the main parts, and shade them from one side to the other."""
    kind = pen.rng.choice(["plain", "plain", "plain", "stripes", "checks", "dots"])
    if kind != "plain":
        printed = Image.new("L", pen.layer.size, 0)
        draw = ImageDraw.Draw(printed)
        step = int(pen.rng.integers(18, 40))
        strength = int(pen.rng.integers(70, 150))
        for at in range(0, LAYER_PX, step):
            if kind in ("stripes", "checks"):
                draw.rectangle([0, at, LAYER_PX, at + step // 3], fill=strength)
            if kind == "checks":
                draw.rectangle([at, 0, at + step // 3, LAYER_PX], fill=strength)
            if kind == "dots":
                for x in range(0, LAYER_PX, step):
                    draw.ellipse([x, at, x + step // 2, at + step // 2], fill=strength)
        colour = Image.new("RGBA", pen.layer.size, (*accent, 255))
        pen.layer.paste(colour, (0, 0), ImageChops.multiply(printed, pen.cloth))
    shade = Image.linear_gradient("L").rotate(90 * int(pen.rng.integers(4)))
    depth = pen.between(0.1, 0.45)
    colours = pen.layer.convert("RGB")
    colours.paste((0, 0, 0), (0, 0), shade.resize(colours.size).point(lambda level: int(level * depth)))
    colours.putalpha(pen.layer.getchannel("A"))
    pen.layer = colours


def _posed(item: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """Return the item turned, mirrored, tilted, scaled and moved on a transparent square of `side` pixels."""
    extent = rng.uniform(0.68, 0.98) * side  # of the item's square in the scene
    turn = math.radians(rng.normal(0, 12))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    shear, squeeze = rng.uniform(-0.15, 0.15), rng.uniform(0.85, 1.1)
    room = (side - extent) / 2 + 0.04 * side
    x, y = side / 2 + rng.uniform(-room, room), side / 2 + rng.uniform(-room, room)
    scale = LAYER_PX / extent
    cos, sin = math.cos(turn) * scale, math.sin(turn) * scale
    # Scene pixel -> item pixel, what Image.transform asks for.
    a, b = mirror * (cos + shear * sin), mirror * (sin - shear * cos)
    d, e = -sin * squeeze, cos * squeeze
    centre = LAYER_PX / 2
    matrix = (a, b, centre - a * x - b * y, d, e, centre - d * x - e * y)
    return item.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _background(side: int, rng: np.random.Generator, conditions: Conditions) -> Image.Image:
    low, high = conditions.ground

    def colour() -> Rgb:
        grey = rng.integers(low, high)
        return _clipped(grey + rng.integers(-45, 46, 3))

    scene = Image.new("RGB", (side, side), colour())
    draw = ImageDraw.Draw(scene)
    kind = rng.choice(["plain", "gradient", "wall", "boards", "tiles"])
    if kind == "gradient":
        start, end = np.array(colour(), np.float32), np.array(colour(), np.float32)
        ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None]
        column = (start + (end - start) * ramp).astype(np.uint8)
        scene = Image.fromarray(np.repeat(column[:, None], side, axis=1), "RGB")
        draw = ImageDraw.Draw(scene)
    elif kind == "wall":
        draw.rectangle([0, int(side * rng.uniform(0.5, 0.85)), side, side], fill=colour())
    elif kind == "boards":
        base, width = np.array(colour()), int(rng.integers(side // 10, side // 4))
        for left in range(0, side, width):
            draw.rectangle([left, 0, left + width - 2, side], fill=_clipped(base + rng.integers(-14, 15)))
    elif kind == "tiles":
        width, joint = int(rng.integers(side // 7, side // 3)), colour()
        for at in range(int(rng.integers(width)), side, width):
            draw.line([at, 0, at, side], fill=joint, width=2)
            draw.line([0, at, side, at], fill=joint, width=2)
    for _ in range(int(rng.integers(0, 5))):  # clutter, mostly towards the edges
        angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.38, 0.6) * side
        x, y = side / 2 + reach * math.cos(angle), side / 2 + reach * math.sin(angle)
        rx, ry = rng.uniform(0.03, 0.14, 2) * side
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape([x - rx, y - ry, x + rx, y + ry], fill=colour())
    return scene.filter(ImageFilter.BoxBlur(float(rng.uniform(0.5, 2.5))))


def _cast_shadow(scene: Image.Image, item: Image.Image, rng: np.random.Generator) -> None:
    reach = scene.width // 24
    dx, dy = (int(value) for value in rng.integers(-reach, reach + 1, 2))
    strength = float(rng.uniform(0.1, 0.5))
    outline = ImageChops.offset(item.getchannel("A").filter(ImageFilter.BoxBlur(4)), dx, dy)
    scene.paste((12, 12, 16), (0, 0), outline.point(lambda alpha: int(alpha * strength)))


def _occlude(scene: Image.Image, rng: np.random.Generator) -> None:
    """Let a strip or a sticker hide a little of one photo in four."""
    if rng.random() > 0.25:
        return
    side, draw = scene.width, ImageDraw.Draw(scene)
    colour = _clipped(rng.integers(20, 240, 3))
    x, y = rng.uniform(0.15, 0.85, 2) * side
    if rng.random() < 0.5:
        angle, width = rng.uniform(0, math.pi), int(rng.uniform(0.03, 0.07) * side)
        dx, dy = side * math.cos(angle), side * math.sin(angle)
        draw.line([x - dx, y - dy, x + dx, y + dy], fill=colour, width=width)
    else:
        rx, ry = rng.uniform(0.05, 0.11, 2) * side
        draw.rectangle([x - rx, y - ry, x + rx, y + ry], fill=colour)


def _taken(photo: Image.Image, rng: np.random.Generator, conditions: Conditions) -> Image.Image:
    """Apply light, its colour and fall-off, a soft lens and sensor noise."""
    if rng.random() < 0.4:
        photo = photo.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.7))))
    pixels = np.asarray(photo, np.float32)
    side = photo.width
    tint = rng.uniform(0.9, 1.1, 3).astype(np.float32)
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    fall_x, fall_y = rng.uniform(-0.2, 0.2, 2)
    fall = 1 + fall_x * axis[None, :] + fall_y * axis[:, None]
    pixels = pixels * tint * fall[..., None] * rng.uniform(*conditions.light)
    pixels = pixels + rng.normal(0, rng.uniform(2, 7), pixels.shape).astype(np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")


def _clipped(colour: npt.NDArray[np.int64]) -> Rgb:
    r, g, b = (int(value) for value in np.clip(colour, 0, 255))
    return (r, g, b)
