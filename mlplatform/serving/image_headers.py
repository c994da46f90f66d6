"""How many pixels an encoded image says it has, read from its header before anything is decoded.

Follows what TensorFlow's decoders accept rather than what is common: chunks before a PNG's header, bytes
between the segments of a JPEG. Needs no library; a few microseconds an image.
"""

from collections.abc import Callable
from typing import NamedTuple

# Steps through an image's blocks; real ones have some hundreds, an animated GIF of 50 MB has 200,000.
_MAX_STEPS = 1_000_000
_MAX_SEGMENTS = 10_000  # of a JPEG, and chunks of a PNG, before the sizes
_NO_SIZES = frozenset({0xC4, 0xC8, 0xCC})  # JPEG markers between the frame headers that are none
_BMP_HEADER = 30


class ImageSize(NamedTuple):
    """What a header declares; `frames` is above 1 for animations, which decoders unpack whole."""

    width: int
    height: int
    frames: int = 1

    @property
    def pixels(self) -> int:
        """Pixels of all frames."""
        return self.width * self.height * self.frames

    def __str__(self) -> str:
        frames = f" x {self.frames} frames" if self.frames > 1 else ""
        return f"{self.width} x {self.height}{frames}"


ENDLESS = ImageSize(1 << 31, 1 << 31)  # of what has more blocks than any real image


def declared_size(encoded: bytes) -> ImageSize | None:
    """Return what an encoded JPEG, PNG, GIF, WebP or BMP declares.

    None where the bytes are no such image, or end before they say.
    """
    for magic, read in _READERS:
        if encoded.startswith(magic):
            try:
                return read(encoded)
            except IndexError:  # cut short
                return None
    return None


def may_hold_image(content: bytes) -> bool:
    """Say whether the beginning of an image lies anywhere in these bytes."""
    return any(magic in content for magic in _MAGICS)


def _big(content: bytes, at: int, size: int) -> int:
    return int.from_bytes(_part(content, at, size), "big")


def _little(content: bytes, at: int, size: int) -> int:
    return int.from_bytes(_part(content, at, size), "little")


def _part(content: bytes, at: int, size: int) -> bytes:
    part = content[at : at + size]
    if len(part) < size:
        raise IndexError(at)
    return part


def _jpeg(content: bytes) -> ImageSize | None:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        at = content.find(b"\xff", at)  # decoders skip what lies between two segments
        if at < 0:
            return None
        while content[at] == 0xFF:
            at += 1
        marker = content[at]
        at += 1
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZES:
            return ImageSize(_big(content, at + 5, 2), _big(content, at + 3, 2))
        if marker in (0xD9, 0xDA):  # the end, or pixels without a frame header
            return None
        if not (marker == 0x01 or 0xD0 <= marker <= 0xD8 or marker == 0x00):  # those have no length
            at += _big(content, at, 2)
    return ENDLESS


def _png(content: bytes) -> ImageSize | None:
    at = 8
    for _ in range(_MAX_SEGMENTS):
        length, kind = _big(content, at, 4), _part(content, at + 4, 4)
        if kind == b"IHDR":
            return ImageSize(_big(content, at + 8, 4), _big(content, at + 12, 4))
        if kind == b"IDAT":
            return None
        at += 12 + length
    return ENDLESS


def _gif(content: bytes) -> ImageSize | None:
    width, height, flags = _little(content, 6, 2), _little(content, 8, 2), content[10]
    at, frames, steps = 13 + _colours(flags), 0, 0
    try:
        while steps < _MAX_STEPS:
            kind = content[at]
            if kind == 0x2C:
                frames += 1
                width = max(width, _little(content, at + 1, 2) + _little(content, at + 5, 2))
                height = max(height, _little(content, at + 3, 2) + _little(content, at + 7, 2))
                at += 11 + _colours(content[at + 9])
            elif kind == 0x21:
                at += 2
            else:
                break
            while content[at] and steps < _MAX_STEPS:
                at += 1 + content[at]
                steps += 1
            at += 1
            steps += 1
    except IndexError:  # the frames before the cut are decoded
        pass
    if steps >= _MAX_STEPS:
        return ENDLESS
    return ImageSize(width, height, frames) if frames else None


def _colours(flags: int) -> int:
    """Return the bytes of a GIF's colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(content: bytes) -> ImageSize | None:
    if content[8:12] != b"WEBP":
        return None
    canvas: ImageSize | None = None
    at, frames = 12, 0
    try:
        for _ in range(_MAX_STEPS):
            kind, length = _part(content, at, 4), _little(content, at + 4, 4)
            if kind == b"VP8X":
                canvas = ImageSize(_little(content, at + 12, 3) + 1, _little(content, at + 15, 3) + 1)
            elif kind == b"ANMF":
                frames += 1
            elif kind == b"VP8 " and canvas is None:
                return ImageSize(_little(content, at + 14, 2) & 0x3FFF, _little(content, at + 16, 2) & 0x3FFF)
            elif kind == b"VP8L" and canvas is None:
                bits = _little(content, at + 9, 4)
                return ImageSize((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
            at += 8 + length + (length & 1)
        return ENDLESS
    except IndexError:
        return canvas._replace(frames=max(1, frames)) if canvas else None


def _bmp(content: bytes) -> ImageSize | None:
    if len(content) < _BMP_HEADER:
        return None
    width = int.from_bytes(content[18:22], "little", signed=True)
    height = int.from_bytes(content[22:26], "little", signed=True)
    bytes_each = _little(content, 28, 2) // 8
    # Pixels are not compressed: one that declares more than there is is no image, and may be a text.
    is_there = width > 0 and bytes_each > 0 and width * abs(height) * bytes_each <= len(content)
    return ImageSize(width, abs(height)) if is_there else None


_READERS: tuple[tuple[bytes, Callable[[bytes], ImageSize | None]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF8", _gif),
    (b"RIFF", _webp),
    (b"BM", _bmp),
)
_MAGICS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"WEBP")  # BMPs are as large as their bytes
