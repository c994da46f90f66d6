"""Looks at an encoded photo: what it is, or why it cannot be used. Needs Pillow alone."""

import io
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image, UnidentifiedImageError

from mlplatform.exif import UPRIGHT, is_on_its_side, orientation

_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp"}
_READERS = ("JPEG", "PNG", "WEBP")  # MPO is what the reader of JPEG makes of several in one file
_EXTENSIONS = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".webp": "webp",
}
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, always the same; TensorFlow takes no PNG without it


@dataclass(frozen=True)
class Photo:
    """What an encoded photo is.

    Attributes:
        format: `jpeg`, `png` or `webp`.
        height: Pixels, of the photo as it is shown.
        width: Likewise.
        is_turned: It has an EXIF orientation other than upright, which is applied wherever it is decoded.
    """

    format: str
    height: int
    width: int
    is_turned: bool


@dataclass(frozen=True)
class PhotoRefusal:
    """Why bytes are not taken as a photo.

    Attributes:
        reason: One of the reason codes that `docs/how-to/ingest-images.md` lists.
        detail: What was found.
    """

    reason: str
    detail: str


def look_at(encoded: bytes, *, max_pixels: int) -> Photo | PhotoRefusal:
    """Decode a photo to its last row and say what it is.

    Args:
        encoded: The whole file.
        max_pixels: Largest width times height.
    """
    if not encoded:
        return PhotoRefusal("empty_file", "0 bytes")
    try:
        # No other format's reader sees the file: some fail at broken ones, some start programs.
        with Image.open(io.BytesIO(encoded), formats=_READERS) as image:
            width, height = image.size
            if width * height > max_pixels:
                return PhotoRefusal("too_many_pixels", f"{width} x {height}, at most {max_pixels:,} pixels")
            image.draft("RGB", (1, 1))  # a JPEG is still read to its end, at an eighth of the size
            image.load()
            if image.format == "PNG" and _is_cut(encoded):  # Pillow does without the end
                return PhotoRefusal("truncated", "it has no IEND chunk, which ends a PNG")
            turn = orientation(encoded)
            if is_on_its_side(turn):
                width, height = height, width
            return Photo(_FORMATS[image.format or ""], height, width, turn != UPRIGHT)
    except Image.DecompressionBombError as error:
        return PhotoRefusal("too_many_pixels", str(error))
    except UnidentifiedImageError:
        return _not_identified(encoded)
    except Exception as error:  # noqa: BLE001 - Pillow's readers trip over broken files in any way
        reason = "truncated" if _is_cut(encoded) or "truncated" in str(error).lower() else "damaged"
        return PhotoRefusal(reason, str(error) or type(error).__name__)


def format_by_extension(path: str) -> str | None:
    """Return the format that a file's name promises; None where it promises none that is read."""
    return _EXTENSIONS.get(PurePosixPath(path).suffix.lower())


def _not_identified(encoded: bytes) -> PhotoRefusal:
    if other := _other_format(encoded):
        return PhotoRefusal("unsupported_format", f"{other}, not JPEG, PNG or WebP")
    if _format_by_magic(encoded):
        reason = "truncated" if _is_cut(encoded) else "damaged"
        return PhotoRefusal(
            reason, f"{_format_by_magic(encoded)} without a readable header, {len(encoded)} bytes"
        )
    return PhotoRefusal("not_an_image", f"it begins with {encoded[:16]!r}")


def _other_format(encoded: bytes) -> str | None:
    """Return the format that the first bytes name, by the readers' own look at them; no reader is run."""
    Image.init()
    for name in Image.ID:
        accepts = Image.OPEN[name][1]
        try:
            accepted = name not in _READERS and accepts is not None and accepts(encoded[:16])
        except Exception:  # noqa: BLE001 - the readers of others
            continue
        if accepted and not isinstance(accepted, str):
            return name
    return None


def _format_by_magic(encoded: bytes) -> str | None:
    if encoded.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return "WebP"
    return None


def _is_cut(encoded: bytes) -> bool:
    """Say whether the end that the format asks for is missing."""
    kind = _format_by_magic(encoded)
    if kind == "JPEG":
        return b"\xff\xd9" not in encoded[-64:]
    if kind == "PNG":
        return encoded.rfind(_PNG_END) < 0  # other bytes may follow it
    return kind == "WebP" and int.from_bytes(encoded[4:8], "little") + 8 > len(encoded)
