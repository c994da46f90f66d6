"""Photos as they come back: cropped, mirrored, re-lit, framed, compressed; the same each time."""

import io
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

from mlplatform.exif import upright

_QUALITY = 90
_FRAME = 0.15
_DEGREES = 12.0


def _saved(image: Image.Image, quality: int = _QUALITY) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _cropped(image: Image.Image, share: float) -> Image.Image:
    """Return the middle, with this share of each side."""
    width, height = image.size
    kept = (max(int(width * share), 1), max(int(height * share), 1))
    left, top = (width - kept[0]) // 2, (height - kept[1]) // 2
    return image.crop((left, top, left + kept[0], top + kept[1]))


def _framed(image: Image.Image) -> Image.Image:
    width = max(int(max(image.size) * _FRAME), 1)
    return ImageOps.expand(image, width, "white")


def _together(image: Image.Image) -> bytes:
    return _saved(ImageEnhance.Brightness(ImageOps.mirror(_cropped(image, 0.8))).enhance(0.7), 40)


ALTERATIONS: dict[str, Callable[[Image.Image], bytes]] = {
    "mirrored": lambda image: _saved(ImageOps.mirror(image)),
    "cropped to 80 %": lambda image: _saved(_cropped(image, 0.8)),
    "cropped to 60 %": lambda image: _saved(_cropped(image, 0.6)),
    "brighter": lambda image: _saved(ImageEnhance.Brightness(image).enhance(1.4)),
    "darker": lambda image: _saved(ImageEnhance.Brightness(image).enhance(0.6)),
    "less colour": lambda image: _saved(ImageEnhance.Color(image).enhance(0.5)),
    "rotated by 12 degrees": lambda image: _saved(image.rotate(_DEGREES, Image.Resampling.BILINEAR)),
    "JPEG quality 30": lambda image: _saved(image, 30),
    "JPEG quality 10": lambda image: _saved(image, 10),
    "64 pixels": lambda image: _saved(ImageOps.contain(image, (64, 64))),
    "white frame": lambda image: _saved(_framed(image)),
    "cropped, mirrored, darker, JPEG quality 40": _together,
}


def altered(photo: bytes) -> list[bytes]:
    """Return a photo as JPEG after each of `ALTERATIONS`, in their order.

    Raises:
        OSError: It is not an image that Pillow reads.
    """
    with Image.open(io.BytesIO(photo)) as opened:
        image = upright(opened, photo).convert("RGB")
        return [alter(image) for alter in ALTERATIONS.values()]
