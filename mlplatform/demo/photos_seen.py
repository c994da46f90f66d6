"""Photos that strangers give: what is let through, and the pixels that a model sees of it."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mlplatform.demo.errors import PhotoError
from mlplatform.exif import is_on_its_side, orientation, upright
from mlplatform.serving.image_headers import declared_size
from mlplatform.serving.tensors import Array

MAX_BYTES = 20 << 20  # of one photo
MAX_PIXELS = 50_000_000  # as the model server has it
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # none whose reader runs programs (EPS)
_READ_BY_MODELS = ("JPEG", "PNG")


@dataclass(frozen=True)
class GivenPhoto:
    """A photo that a model can be asked about.

    Attributes:
        name: What it is called: the name of its file.
        encoded: The file, as it is sent to the model: JPEG or PNG.
        width: Its width, before it is turned upright.
        height: Its height.
        note: What was done to it; empty where nothing was.
    """

    name: str
    encoded: bytes
    width: int
    height: int
    note: str = ""


def read_photo(name: str, encoded: bytes) -> GivenPhoto:
    """Look at a photo before anything decodes it.

    Args:
        name: What it is called.
        encoded: The file.

    Raises:
        PhotoError: It is empty, too large, has too many pixels, or is not an image of a known format.
    """
    if not encoded:
        raise PhotoError(name, "the file is empty.")
    if len(encoded) > MAX_BYTES:
        raise PhotoError(name, f"it has {len(encoded):,} bytes; a photo has at most {MAX_BYTES:,}.")
    size = declared_size(encoded)
    if size is None:
        raise PhotoError(name, f"it is not an image of the formats {', '.join(_FORMATS)}.")
    if size.pixels > MAX_PIXELS:
        raise PhotoError(name, f"it has {size} pixels; at most {MAX_PIXELS:,} are decoded.")
    try:
        with _opened(encoded) as image:
            kind, width, height = image.format or "", image.width, image.height
            if width * height > MAX_PIXELS:
                raise PhotoError(
                    name, f"it has {width} x {height} pixels; at most {MAX_PIXELS:,} are decoded."
                )
            if kind in _READ_BY_MODELS:
                return GivenPhoto(name, encoded, width, height)
            out = io.BytesIO()
            upright(image.convert("RGB"), encoded).save(out, "PNG", compress_level=1)
    except PhotoError:
        raise
    except Exception as error:  # image readers trip over such bytes in any way
        raise PhotoError(name, "it is not a complete image.") from error
    return GivenPhoto(
        name, out.getvalue(), width, height, f"{kind} was converted to PNG, which every model reads."
    )


def seen_pixels(photo: GivenPhoto, height: int, width: int) -> Array:
    """Return a photo as the image models of this library see it: upright, each side scaled by itself.

    What `mlplatform.vision.decoding` does with TensorFlow, done with Pillow: uint8, shape (height, width, 3),
    within 3 of 255 of that.

    Raises:
        PhotoError: It cannot be decoded.
    """
    try:
        with _opened(photo.encoded) as image:
            size = (height, width) if is_on_its_side(orientation(photo.encoded)) else (width, height)
            scaled = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
            return np.asarray(upright(scaled, photo.encoded))
    except Exception as error:
        raise PhotoError(photo.name, "it is not a complete image.") from error


def pixels_picture(pixels: Array) -> bytes:
    """Return pixels, uint8 (height, width, 3), as a PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _opened(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded), formats=_FORMATS)
