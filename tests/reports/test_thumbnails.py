"""Small copies of photos, of whatever bytes there are."""

import io
import struct
import zlib

import pytest
from PIL import Image

from mlplatform.reports.thumbnails import thumbnail


def photo(kind: str = "JPEG", size: tuple[int, int] = (400, 200)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, kind)
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header names this size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_photo_is_a_small_jpeg(kind: str) -> None:
    small = Image.open(io.BytesIO(thumbnail(photo(kind), 100)))
    assert (small.format, small.size) == ("JPEG", (100, 50))


def test_a_photo_that_is_small_keeps_its_size() -> None:
    assert Image.open(io.BytesIO(thumbnail(photo(size=(30, 20)), 100))).size == (30, 20)


def test_a_photo_that_was_held_on_its_side_is_upright() -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    assert Image.open(io.BytesIO(thumbnail(file.getvalue(), 100))).size == (20, 40)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"text",
        photo()[:200],
        png_that_claims(20_000, 20_000),  # Pillow raises an error of its own
        png_that_claims(10_000, 5_000),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",  # Ghostscript would run
    ],
    ids=["empty", "text", "cut off", "a bomb", "50 million pixels", "EPS"],
)
def test_what_cannot_be_shown_has_no_thumbnail(encoded: bytes) -> None:
    assert thumbnail(encoded, 100) == b""
