"""How a photo was held: the EXIF orientation of an encoded JPEG, PNG or WebP image.

Cameras store the sensor's rows as they lie and note in EXIF how to turn them; what shows photos turns them.
`mlplatform.vision.decoding` reads the note with TensorFlow's operations, by the same rules: browsers' rules,
not Pillow's, which also believes XMP, further types of the tag, and PNG text.

- The block is the first EXIF block before tables and pixels (WebP: anywhere, if its header promises one),
  and begins within the first `SCANNED_BYTES` (JPEG and PNG) and `MOST_PARTS` parts of the file.
- The tag is the first 0x0112 of the first directory that is one SHORT, with a value from 1 to 8.
- Whatever is broken is no note: orientation 1.

Sources: EXIF 2.32 (4.6.4, orientation), TIFF 6.0 (section 2), PNG third edition (eXIf), WebP container.
"""

from typing import Literal

from PIL import Image

SCANNED_BYTES = 1 << 18
MOST_PARTS = 64
UPRIGHT = 1
_TAG, _SHORT = 0x0112, 3
_MARK = b"Exif\0\0"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(encoded: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1 is upright, and what an image without a (whole) note has."""
    if encoded.startswith(b"\xff\xd8"):
        tiff = _in_jpeg(encoded)
    elif encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        tiff = _in_png(encoded)
    elif encoded[:4] == b"RIFF" and encoded[8:16] == b"WEBPVP8X":
        tiff = _in_webp(encoded)
    else:
        tiff = b""
    return _orientation_in(tiff.removeprefix(_MARK))


def is_on_its_side(orientation: int) -> bool:
    """Say whether height and width change places when the image is turned upright."""
    return orientation >= 5


def upright(image: Image.Image, encoded: bytes) -> Image.Image:
    """Return the image that was decoded from `encoded`, turned as its EXIF orientation says."""
    turn = _TURNS.get(orientation(encoded))
    return image if turn is None else image.transpose(turn)


def _in_jpeg(encoded: bytes) -> bytes:
    at = 2
    for _ in range(MOST_PARTS):
        head = encoded[at : at + 10]
        if at >= SCANNED_BYTES or len(head) < 10 or head[0] != 0xFF:
            break
        marker, size = head[1], int.from_bytes(head[2:4], "big")
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or size < 2:  # neither application data nor comment
            break
        if marker == 0xE1 and head[4:10] == _MARK:
            return encoded[at + 10 : at + 2 + size]
        at += 2 + size
    return b""


def _in_png(encoded: bytes) -> bytes:
    at = 8
    for _ in range(MOST_PARTS):
        head = encoded[at : at + 8]
        if at >= SCANNED_BYTES or len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            break
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            return encoded[at + 8 : at + 8 + size]
        at += 12 + size
    return b""


def _in_webp(encoded: bytes) -> bytes:
    at = 12
    has_exif = len(encoded) > 20 and encoded[20] & 0x08
    for _ in range(MOST_PARTS if has_exif else 0):
        head = encoded[at : at + 8]
        if len(head) < 8:
            break
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF":
            return encoded[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return b""


def _orientation_in(tiff: bytes) -> int:
    order: Literal["little", "big"]
    if tiff.startswith(b"II*\0"):
        order = "little"
    elif tiff.startswith(b"MM\0*"):
        order = "big"
    else:
        return UPRIGHT

    def number(start: int, size: int) -> int:
        return int.from_bytes(tiff[start : start + size], order)

    first = number(4, 4) + 2
    if first > len(tiff) or len(tiff) < 8:
        return UPRIGHT
    entries = min(number(first - 2, 2), (len(tiff) - first) // 12)
    for entry in range(first, first + 12 * entries, 12):
        if (number(entry, 2), number(entry + 2, 2), number(entry + 4, 4)) == (_TAG, _SHORT, 1):
            found = number(entry + 8, 2)
            return found if 1 <= found <= 8 else UPRIGHT
    return UPRIGHT
