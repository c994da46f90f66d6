"""Walks the feature maps of many tf.Examples at once, straight on their bytes.

A *plain* tf.Example is one field, the feature map (0x0a), which holds only map entries (0x0a) of a key (0x0a,
up to 127 bytes) and a value (0x12), in this order. Everything else is left alone by those who use this walk.
Source: TensorFlow, `tensorflow/core/example/feature.proto`, and protobuf's encoding of maps.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.datasets.format.tfrecord import WIDE_BYTES, Bytes, Int64s, UInt64s, gather64, gather_wide

Bools = npt.NDArray[np.bool_]
LANES = 1 << 13  # records walked side by side: their words fit the processor's cache

_MAP, _KEY, _VALUE = np.uint64(0x0A), np.uint64(0x0A), np.uint64(0x12)
_BYTE, _LOW7, _HIGH = np.uint64(0xFF), np.uint64(0x7F), np.uint64(0x80)
_LOW = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)


@dataclass(frozen=True)
class MapEntry:
    """The n-th map entry of every record that has one.

    Attributes:
        is_there: bool, shape (records,).
        start: int64, where the entry begins; the record's end where it has no such entry.
        key_words: One uint64 array per 8 bytes of key, big-endian and filled with zeros, so that comparing
            the words and then `key_size` compares the keys' bytes.
        key_size: int64, bytes of the key.
        value: int64, where the value (a serialized `Feature`) begins.
        value_size: int64, its bytes.
    """

    is_there: Bools
    start: Int64s
    key_words: list[UInt64s]
    key_size: Int64s
    value: Int64s
    value_size: Int64s

    def keys(self, records: Int64s) -> list[bytes]:
        """Return the keys of some records."""
        if not self.key_words:
            return [b""] * records.size
        words = np.stack([word[records] for word in self.key_words], axis=1).astype(">u8")
        data, width = words.tobytes(), 8 * len(self.key_words)
        sizes = self.key_size[records].tolist()
        return [data[width * place : width * place + size] for place, size in enumerate(sizes)]


@dataclass(frozen=True)
class Walk:
    """The feature maps of some records.

    Attributes:
        is_plain: bool, shape (records,): the record is a plain tf.Example, and its entries are meaningful.
        entries: The first, second, ... entry of every record.
    """

    is_plain: Bools
    entries: list[MapEntry]


def walk(buffer: Bytes, starts: Int64s, ends: Int64s) -> Walk:
    """Find the map entries of the records at `buffer[starts:ends]`.

    Args:
        buffer: uint8 with `SLACK_BYTES` behind the last record.
        starts: int64, shape (records,).
        ends: int64, shape (records,).
    """
    first_word = gather64(buffer, starts)
    size, width = _varint(first_word >> np.uint64(8))
    at = starts + 1 + width
    is_plain = ((first_word & _BYTE) == _MAP) & (width > 0) & (at + size == ends)
    entries: list[MapEntry] = []
    active = is_plain & (at < ends)
    while active.any():
        everywhere = bool(active.all())  # then nothing has to be masked
        here = at if everywhere else np.where(active, at, 0)
        wide = gather_wide(buffer, here)
        word = np.ascontiguousarray(wide[:, 0])
        size, width = _varint(word >> np.uint64(8))
        end = here + 1 + width + size
        fits = ((word & _BYTE) == _MAP) & (width > 0) & (end <= ends)
        # The tag and size of the key follow in the same word.
        word = word >> ((width + 1) << 3).astype(np.uint64)
        key = here + 3 + width
        key_size = ((word >> np.uint64(8)) & _BYTE).astype(np.int64)
        value = key + key_size
        fits &= ((word & _BYTE) == _KEY) & (key_size < 128) & (value < end)
        if not fits.all():
            key_size, value = np.where(fits, key_size, 0), np.where(fits, value, 0)
        word = gather64(buffer, value)
        value_size, value_width = _varint(word >> np.uint64(8))
        value = value + 1 + value_width
        fits &= ((word & _BYTE) == _VALUE) & (value_width > 0) & (value + value_size == end)
        if not everywhere:
            fits |= ~active
        if not fits.all():
            is_plain &= fits
            active = active & fits
            key_size = np.where(active, key_size, 0)
            everywhere = False
        start = at if everywhere else np.where(active, at, ends)
        key_words = _key_words(buffer, wide, here, 3 + width, key_size)
        entries.append(MapEntry(active, start, key_words, key_size, value, value_size))
        at = end if everywhere else np.where(active, end, at)
        active = active & (at < ends)
    return Walk(is_plain, entries)


def is_before(left: MapEntry, right: MapEntry) -> Bools:
    """Return where the left key sorts before the right one, by bytes; meaningless where either is missing."""
    before = left.key_size < right.key_size
    for index in reversed(range(max(len(left.key_words), len(right.key_words)))):
        a, b = _word(left, index), _word(right, index)
        before = (a < b) | ((a == b) & before)
    return before


def has_key(entry: MapEntry, key: bytes) -> Bools:
    """Return where the entry's key is `key`."""
    same: Bools = entry.is_there & (entry.key_size == len(key))
    for index in range(0, len(key), 8):
        same &= _word(entry, index // 8) == np.uint64(
            int.from_bytes(key[index : index + 8].ljust(8, b"\0"), "big")
        )
    return same


def _word(entry: MapEntry, index: int) -> UInt64s | np.uint64:
    return entry.key_words[index] if index < len(entry.key_words) else np.uint64(0)


def _key_words(
    buffer: Bytes, wide: UInt64s, here: Int64s, skipped: Int64s, key_size: Int64s
) -> list[UInt64s]:
    """Return the words of the keys that begin `skipped` bytes behind `here`, where `wide` was gathered."""
    found = []
    largest = int(key_size.max(initial=0))
    is_one_size = largest == int(key_size.min(initial=largest))
    low = (skipped << 3).astype(np.uint64)
    high = np.uint64(64) - low
    for index, offset in enumerate(range(0, largest, 8)):
        if offset + 16 <= WIDE_BYTES:
            word = (wide[:, index] >> low) | (wide[:, index + 1] << high)
        else:
            word = gather64(buffer, np.minimum(here + skipped + offset, buffer.size - 8))
        rest = largest - offset if is_one_size else np.clip(key_size - offset, 0, 8)
        if not is_one_size or rest < 8:
            word &= _LOW[rest]
        found.append(word.byteswap())
    return found


def _varint(word: UInt64s) -> tuple[Int64s, Int64s]:
    """Decode the varint in the low bytes of each word; its width is 0 where it is longer than 5 bytes."""
    value, width = word & _LOW7, np.ones(word.shape, np.int64)
    goes_on = (word & _HIGH) != 0
    place = 1
    while goes_on.any():
        if place == 5:
            width[goes_on] = 0
            break
        following = word >> np.uint64(8 * place)
        value = np.where(goes_on, value | ((following & _LOW7) << np.uint64(7 * place)), value)
        width += goes_on
        goes_on &= (following & _HIGH) != 0
        place += 1
    return value.astype(np.int64), width
