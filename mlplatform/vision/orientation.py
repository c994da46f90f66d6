"""EXIF orientation inside TensorFlow graphs, by the rules of `mlplatform.exif`.

Plain operations alone, so that an exported model turns photos wherever TensorFlow serves it. Every read is
bounded and clipped to the file: whatever the block says, the graph neither fails nor goes on for ever.
"""

import tensorflow as tf

from mlplatform.exif import MOST_PARTS, SCANNED_BYTES, UPRIGHT

_ANY = -1
_JPEG, _PNG, _WEBP, _OTHER = range(4)


def _octets(*values: bytes | int) -> list[int]:
    """Return 12 octets: text as such, a number as so many that may be any."""
    octets = [o for value in values for o in (value if isinstance(value, bytes) else [_ANY] * value)]
    return octets + [_ANY] * (12 - len(octets))


# How the parts of each kind of file look, by the 12 octets that each begins with: JPEG's segments, PNG's and
# WebP's chunks; nothing of another kind.
_NEVER = _octets(b"")[:-1] + [256]
_HAS_TIFF = [_octets(b"\xff\xe1", 2, b"Exif\0\0"), _octets(4, b"eXIf"), _octets(b"EXIF"), _NEVER]
_SIZE_WEIGHTS = [
    [0, 0, 256, 1] + [0] * 8,
    [256**3, 256**2, 256, 1] + [0] * 8,
    [0] * 4 + [1, 256, 256**2, 256**3] + [0] * 4,
    [0] * 12,
]
_FIRST = [2, 8, 12, 0]  # where the first part begins
_NEEDED = [10, 8, 8, 12]  # octets without which it is no part
_TIFF_START = [10, 8, 8, 0]  # within the part
_BEFORE_TIFF = [8, 0, 0, 0]  # octets of the part's size that are not of the TIFF block
_AROUND = [2, 12, 8, 0]  # octets of the part that its size does not count


def turn_upright(pixels: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Turn an image as its EXIF orientation says; one without a note is returned as it is.

    Args:
        pixels: Any type, shape (size, size, channels): the decoded image, scaled to a square. (Scaling each
            side on its own and turning give the same in either order, and a small image is turned sooner.)
        encoded: string scalar, the file that it was decoded from.

    Returns:
        Like `pixels`.
    """
    # A function is traced once for tensors, but anew for each value of Python's.
    encoded = tf.convert_to_tensor(encoded)
    return tf.cond(_may_have_note(encoded), lambda: _turned(pixels, encoded), lambda: pixels)


# A call of its own and not written into the caller's graph: operations of a branch that is not taken still
# pass through TensorFlow's executor one by one.
@tf.function(experimental_attributes={"_noinline": True}, autograph=False)
def _turned(pixels: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    def across(image: tf.Tensor) -> tf.Tensor:
        return tf.transpose(image, [1, 0, 2])

    turns = [
        lambda: pixels,
        lambda: tf.reverse(pixels, [1]),
        lambda: tf.reverse(pixels, [0, 1]),
        lambda: tf.reverse(pixels, [0]),
        lambda: across(pixels),
        lambda: tf.reverse(across(pixels), [1]),
        lambda: tf.reverse(across(pixels), [0, 1]),
        lambda: tf.reverse(across(pixels), [0]),
    ]
    return tf.switch_case(tf.cast(orientation(encoded), tf.int32) - 1, turns)


def _may_have_note(encoded: tf.Tensor) -> tf.Tensor:
    """Say quickly whether `orientation` has to look: no for most images without an EXIF block.

    There is none in a JPEG whose tables follow its JFIF header, in a PNG whose pixels
    follow its header, in a WebP without the extended header, and in no file of another kind.
    """
    begin, jfif, after_jfif, webp, png = tf.unstack(
        tf.strings.substr(encoded, [0, 2, 20, 12, 37], [2, 4, 2, 4, 4])
    )
    has_tables = (jfif == b"\xff\xe0\0\x10") & (after_jfif == b"\xff\xdb")
    return (
        ((begin == b"\xff\xd8") & ~has_tables)
        | ((begin == b"RI") & (webp == b"VP8X"))
        | ((begin == b"\x89P") & (png != b"IDAT"))
    )


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Return the EXIF orientation of one image, int64 scalar, 1 to 8.

    Args:
        encoded: string scalar, any bytes.
    """
    length = tf.cast(tf.strings.length(encoded), tf.int64)
    kind = _kind(_bytes(encoded, length, 0, 24))
    has_tiff, weights, first, needed, tiff_start, before, around = (
        tf.gather(tf.constant(table, tf.int64), kind)
        for table in (_HAS_TIFF, _SIZE_WEIGHTS, _FIRST, _NEEDED, _TIFF_START, _BEFORE_TIFF, _AROUND)
    )
    is_jpeg, is_png, is_webp = kind == _JPEG, kind == _PNG, kind == _WEBP
    last = tf.where(is_webp, length, SCANNED_BYTES - 1)
    last = tf.minimum(last, length - needed)

    def is_going(at: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return at <= last

    def step(at: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
        head = _bytes(encoded, length, at, 12)
        size = tf.reduce_sum(head * weights)
        is_found = tf.reduce_all((head == has_tiff) | (has_tiff == _ANY))
        is_end = (
            is_found
            | (is_jpeg & ((head[0] != 0xFF) | ~_is_application_data(head[1]) | (size < 2)))
            | (is_png & (_starts(head[4:], b"IDAT") | _starts(head[4:], b"IEND")))
        )
        following = at + around + size + tf.where(is_webp, size % 2, 0)
        return (
            tf.where(is_end, length + 1, following),
            tf.where(is_found, at + tiff_start, 0),
            tf.where(is_found, tf.maximum(size - before, 0), 0),
        )

    zero = tf.constant(0, tf.int64)
    _, start, size = tf.while_loop(
        is_going, step, (first, zero, zero), maximum_iterations=MOST_PARTS, parallel_iterations=1
    )
    return _orientation_in(tf.strings.substr(encoded, tf.minimum(start, length), size))


def _kind(head: tf.Tensor) -> tf.Tensor:
    is_webp = _starts(head, b"RIFF") & _starts(head[8:], b"WEBPVP8X") & (head[20] & 0x08 > 0)
    is_kind = tf.stack([_starts(head, b"\xff\xd8"), _starts(head, b"\x89PNG\r\n\x1a\n"), is_webp, True])
    return tf.argmax(tf.cast(is_kind, tf.int32))


def _is_application_data(marker: tf.Tensor) -> tf.Tensor:
    """APP0 to APP15, or a comment."""
    return ((marker >= 0xE0) & (marker <= 0xEF)) | (marker == 0xFE)


def _orientation_in(block: tf.Tensor) -> tf.Tensor:
    """Return the orientation that a TIFF block (an optional `Exif` mark before it) notes."""
    length = tf.cast(tf.strings.length(block), tf.int64)
    mark = tf.where(
        _starts(_bytes(block, length, 0, 6), b"Exif\0\0"), tf.constant(6, tf.int64), tf.constant(0, tf.int64)
    )
    head = _bytes(block, length, mark, 8)
    is_little = _starts(head, b"II*\0")
    is_tiff = (is_little | _starts(head, b"MM\0*")) & (length - mark >= 8)

    def number(octets: tf.Tensor) -> tf.Tensor:  # (..., bytes) -> (...)
        return tf.where(is_little, _big(octets[..., ::-1]), _big(octets))

    first = mark + number(head[4:8]) + 2
    fitting = tf.maximum(length - first, 0) // 12
    entries = tf.where(is_tiff, tf.minimum(number(_bytes(block, length, first - 2, 2)), fitting), 0 * fitting)
    raw = tf.strings.substr(block, tf.minimum(first, length), 12 * entries)
    table = tf.reshape(tf.cast(tf.io.decode_raw(raw, tf.uint8), tf.int64), [-1, 12])
    is_note = (number(table[:, :2]) == 0x0112) & (number(table[:, 2:4]) == 3) & (number(table[:, 4:8]) == 1)
    notes = tf.boolean_mask(number(table[:, 8:10]), is_note)
    found = tf.concat([notes, tf.constant([UPRIGHT], tf.int64)], axis=0)[0]
    return tf.where((found >= 1) & (found <= 8), found, tf.constant(UPRIGHT, tf.int64))


def _bytes(text: tf.Tensor, length: tf.Tensor, start: tf.Tensor | int, count: int) -> tf.Tensor:
    """Return `count` bytes from `start` on, int64; zeros beyond the end."""
    begin = tf.minimum(tf.cast(start, tf.int64), length)
    part = tf.cast(tf.io.decode_raw(tf.strings.substr(text, begin, count), tf.uint8), tf.int64)
    return tf.ensure_shape(tf.pad(part, [[0, count - tf.size(part)]]), [count])


def _big(octets: tf.Tensor) -> tf.Tensor:
    """Return the number that bytes (..., n) are, the highest first."""
    count = octets.shape[-1]
    return tf.reduce_sum(
        octets * tf.constant([256**place for place in reversed(range(count))], tf.int64), axis=-1
    )


def _starts(octets: tf.Tensor, mark: bytes) -> tf.Tensor:
    return tf.reduce_all(octets[: len(mark)] == tf.constant(list(mark), tf.int64))
