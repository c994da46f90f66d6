"""The hot loops of the dataset store in C: frames, checksums, features, record ids and their order.

Every function here does the same as one with NumPy or a Python library elsewhere in this package, which calls
it where the library was built (`is_built`), and many times quicker. ctypes lets go of the interpreter
meanwhile, so threads read shards side by side. The library links nothing of Python: one file serves all
versions of it. BLAKE3 is the official implementation, in `blake3/`.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

LIBRARY = "library.abi3.so"
USES_CRC_INSTRUCTION = True  # where the processor has one; tests turn it off
_ARRAY, _COUNT = ctypes.c_void_p, ctypes.c_int64


@cache
def _library() -> Any:
    """Return the library; None where it was not built, for want of a C compiler, or for another machine."""
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name(LIBRARY)))
    except OSError:
        return None  # `mlplatform doctor` says why
    for name, arguments, result in (
        (
            "find_frames",
            [_ARRAY, _COUNT, _ARRAY, _ARRAY, _COUNT, ctypes.c_int, _ARRAY, _ARRAY],
            ctypes.c_int64,
        ),
        ("lie_within", [_ARRAY, _ARRAY, _COUNT, _COUNT], ctypes.c_int),
        ("crc32c_checksums", [_ARRAY, _ARRAY, _ARRAY, _COUNT, _ARRAY, ctypes.c_int], None),
        (
            "record_ids",
            [_ARRAY, _ARRAY, _ARRAY, _COUNT, _ARRAY, _ARRAY],
            ctypes.c_int,
        ),
        ("first_damaged", [_ARRAY, _ARRAY, _ARRAY, _COUNT, ctypes.c_int], ctypes.c_int64),
        ("find_feature", [*[_ARRAY] * 3, _COUNT, ctypes.c_char_p, _COUNT, _ARRAY, _ARRAY], None),
        ("sort_ids", [_ARRAY, _ARRAY, _COUNT, *[ctypes.c_uint64] * 2, *[_ARRAY] * 3], ctypes.c_int),
        ("find_ids", [*[*[_ARRAY] * 3, _COUNT] * 2, _ARRAY], None),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


def is_built() -> bool:
    """Return whether the library is there."""
    return _library() is not None


def find_frames(buffer: Bytes, size: int) -> tuple[Int64s, Int64s, int, bool]:
    """Return begins and sizes of the payloads in `buffer[:size]`, where what follows them begins, and whether
    that is damaged; see `tfrecord.find_frames`.
    """
    _check((buffer, np.uint8))
    if size > buffer.size:
        raise ValueError(f"{size} bytes in a buffer of {buffer.size}")
    starts, sizes = np.empty((2, size // 16 + 1), np.int64)  # memory that is not written to is not taken
    used, is_damaged = ctypes.c_int64(), ctypes.c_int64()
    arrays = starts.ctypes.data, sizes.ctypes.data, starts.size
    rest = USES_CRC_INSTRUCTION, ctypes.byref(used), ctypes.byref(is_damaged)
    found = _library().find_frames(buffer.ctypes.data, size, *arrays, *rest)
    return starts[:found].copy(), sizes[:found].copy(), used.value, bool(is_damaged.value)


def checksums(buffer: Bytes, starts: Int64s, ends: Int64s) -> npt.NDArray[np.uint32]:
    """Return the CRC-32C, not masked, of the bytes at each `buffer[start:end]`."""
    crcs = np.empty(starts.size, np.uint32)
    _library().crc32c_checksums(*_records(buffer, starts, ends), crcs.ctypes.data, USES_CRC_INSTRUCTION)
    return crcs


def first_damaged(buffer: Bytes, starts: Int64s, ends: Int64s) -> int:
    """Return the first record that does not fit the masked checksum at its end; their number where all do."""
    records = _records(buffer, starts, ends, behind=4)
    return int(_library().first_damaged(*records, USES_CRC_INSTRUCTION))


def record_ids(buffer: Bytes, starts: Int64s, ends: Int64s) -> tuple[UInt64s, UInt64s]:
    """Return the first 16 bytes of the BLAKE3 hash of each record's canonical form, as big-endian numbers:
    high, low.

    Raises:
        MemoryError: There is none for the hashes of a record's parts, 3 % of its size, its features, or its
            canonical form.
    """
    high, low = np.empty(starts.size, np.uint64), np.empty(starts.size, np.uint64)
    if _library().record_ids(*_records(buffer, starts, ends), high.ctypes.data, low.ctypes.data):
        raise MemoryError("no memory to hash records")
    return high, low


def find_feature(buffer: Bytes, starts: Int64s, ends: Int64s, key: bytes) -> tuple[Int64s, Int64s]:
    """Return where a feature's value begins in each record, and its bytes: -1 where there is none."""
    begins, sizes = np.zeros(starts.size, np.int64), np.full(starts.size, -1, np.int64)
    records = _records(buffer, starts, ends)
    _library().find_feature(*records, key, len(key), begins.ctypes.data, sizes.ctypes.data)
    return begins, sizes


def sort_ids(
    high: UInt64s, low: UInt64s, least: int, most: int, found: tuple[UInt64s, UInt64s, Int64s]
) -> None:
    """Sort the ids whose high numbers lie between `least` and `most`, both included.

    Args:
        high, low: The ids.
        least, most: Bounds of the high numbers.
        found: Where to write the ids in order, and the place that each had; equal ones come in the order of
            their places.

    Raises:
        ValueError: There is no room for as many ids.
        MemoryError: There is none to sort them.
    """
    _check((high, np.uint64), (low, np.uint64))
    _check((found[0], np.uint64), (found[1], np.uint64), (found[2], np.int64))
    count = int(np.count_nonzero((high >= np.uint64(least)) & (high <= np.uint64(most))))
    if high.size != low.size or any(array.size < count for array in found):
        raise ValueError(f"{high.size} and {low.size} numbers, and room for {found[0].size}")
    arrays = [array.ctypes.data for array in found]
    if _library().sort_ids(high.ctypes.data, low.ctypes.data, high.size, least, most, *arrays):
        raise MemoryError("no memory to sort the ids of records")


def find_ids(
    known: tuple[UInt64s, UInt64s, Int64s], others: tuple[UInt64s, UInt64s, Int64s], found: Int64s
) -> None:
    """Look up ids in others.

    Args:
        known, others: Ids in order, high and low, and the place that each had before.
        found: Where to write the place in the known ones, at the place of each of the others; what is not
            known stays as it is.
    """
    for high, low, places in (known, others):
        _check((high, np.uint64), (low, np.uint64), (places, np.int64))
        if not high.size == low.size == places.size:
            raise ValueError(f"{high.size} and {low.size} numbers, and {places.size} places")
    _check((found, np.int64))
    places = others[2]
    if places.size and not (places.min() >= 0 and places.max() < found.size):
        raise ValueError(f"places that do not lie in an array of {found.size}")
    arrays = [
        argument
        for ids in (known, others)
        for argument in (*(array.ctypes.data for array in ids), ids[0].size)
    ]
    _library().find_ids(*arrays, found.ctypes.data)


def _check(*arrays: tuple[npt.NDArray[Any], type]) -> None:
    for array, kind in arrays:
        if array.dtype != kind or not array.flags.c_contiguous:
            raise TypeError(f"an array of {array.dtype} where a contiguous one of {np.dtype(kind)} belongs")


def _records(buffer: Bytes, starts: Int64s, ends: Int64s, behind: int = 0) -> tuple[int, int, int, int]:
    """Return the arguments that functions on records take; they read `behind` bytes more than the records.

    The arrays must stay until the call is over.
    """
    _check((buffer, np.uint8), (starts, np.int64), (ends, np.int64))
    if starts.size != ends.size:
        raise ValueError(f"{starts.size} begins and {ends.size} ends")
    records = starts.ctypes.data, ends.ctypes.data, starts.size
    if not _library().lie_within(*records, buffer.size - behind):
        raise ValueError("records that do not lie in the buffer")
    return buffer.ctypes.data, *records
