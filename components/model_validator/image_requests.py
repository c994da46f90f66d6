"""Odd and broken photos, for models with the signatures of an image model."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def scaled(encoded: bytes, size: int) -> NDArray[np.uint8]:
    """Return a photo's pixels, scaled to a square."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def webp(photo: bytes) -> bytes:
    """Return a photo as a WebP file."""
    file = io.BytesIO()
    Image.open(io.BytesIO(photo)).convert("RGB").save(file, "WEBP")
    return file.getvalue()


def odd_images(photo: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield files that are unusual and readable, with a name for each."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")

    def encoded(changed: Image.Image, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        changed.save(file, kind, **options)
        return file.getvalue()

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    yield "grey PNG", encoded(image.convert("L"), "PNG")
    yield "PNG with transparency", encoded(image.convert("RGBA"), "PNG")
    yield "PNG with a palette", encoded(image.convert("P"), "PNG")
    yield "16-bit PNG", encoded(image.convert("I;16") if image.mode == "I" else _sixteen_bit(image), "PNG")
    yield "progressive JPEG", encoded(image, "JPEG", progressive=True)
    yield "CMYK JPEG", encoded(image.convert("CMYK"), "JPEG")
    yield "one pixel", encoded(image.resize((1, 1)), "PNG")
    yield "a strip", encoded(image.resize((2000, 8)), "JPEG")
    yield "12 megapixels", encoded(image.resize((4000, 3000)), "JPEG")
    yield "black", encoded(Image.new("RGB", (100, 100)), "JPEG")
    yield "white", encoded(Image.new("RGB", (100, 100), "white"), "JPEG")
    yield "noise", encoded(Image.fromarray(noise), "PNG")


def _sixteen_bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def broken_images(photo: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield files that are not a readable image, with a name for each."""
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(photo)).convert("RGB").save(jpeg, "JPEG")
    whole = png(scaled(photo, 64))
    yield "nothing", b""
    yield "text", b"this is no image"
    yield "a web page", b"<!doctype html><html><body>404</body></html>"
    yield "half a JPEG", jpeg.getvalue()[: len(jpeg.getvalue()) // 2]
    yield "a JPEG's first bytes", jpeg.getvalue()[:20]
    yield "half a PNG", whole[: len(whole) // 2]
