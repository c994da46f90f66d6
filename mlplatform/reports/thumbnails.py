"""Small copies of photos, for pages."""

import io

from mlplatform.reports.page import picture

_PICTURE_PX = 160  # largest side of a photo beside what is said of it
# What cameras and shops write. The bytes are strangers': no format whose reader runs programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_LARGEST_PIXELS = 40_000_000  # a few kilobytes can be said to be a photo that fills the memory


def thumbnail(encoded: bytes, side_px: int) -> bytes:
    """Return a small copy of an encoded photo, upright as it was held.

    Args:
        encoded: A JPEG, PNG, WebP, GIF or BMP file.
        side_px: Its largest width and height, in pixels, above 0.

    Returns:
        A JPEG file; empty where the photo cannot be decoded, or has more than 40 million pixels.
    """
    from PIL import Image

    from mlplatform.exif import upright

    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            if image.width * image.height > _LARGEST_PIXELS:
                return b""
            image.draft("RGB", (2 * side_px, 2 * side_px))  # JPEG: decoded at about this size
            small = upright(image.convert("RGB"), encoded)
            small.thumbnail((side_px, side_px))
            file = io.BytesIO()
            small.save(file, "JPEG", quality=80)
    except Exception:  # noqa: BLE001 - image readers trip over such bytes in any way; there is no picture then
        return b""
    return file.getvalue()


def small_picture(encoded: bytes) -> str:
    """Return a small copy of an encoded photo as a data URI; empty where the photo cannot be decoded."""
    small = thumbnail(encoded, _PICTURE_PX)
    return picture(small) if small else ""
