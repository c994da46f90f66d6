"""The hot loops of the dataset store in C: frames, checksums, record ids and the canonical form.

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
        ("frame_starts", [_ARRAY, _COUNT, _ARRAY, _COUNT], ctypes.c_int64),
        ("crc32c_checksums", [_ARRAY, _ARRAY, _ARRAY, _COUNT, _ARRAY, ctypes.c_int], None),
        (
            "record_ids",
            [_ARRAY, _ARRAY, _ARRAY, _COUNT, _ARRAY, _ARRAY],
            ctypes.c_int,
        ),
        ("canonical_forms", [_ARRAY, _ARRAY, _ARRAY, _ARRAY, _COUNT], ctypes.c_int64),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


def is_built() -> bool:
    """Return whether the library is there."""
    return _library() is not None


def frame_starts(buffer: Bytes, size: int) -> Int64s:
    """Return where the whole frames in `buffer[:size]` begin; see `tfrecord.frame_starts`."""
    starts = np.empty(size // 16 + 1, np.int64)  # memory that is not written to is not taken
    found = _library().frame_starts(buffer.ctypes.data, size, starts.ctypes.data, starts.size)
    return starts[:found].copy()


def checksums(buffer: Bytes, starts: Int64s, ends: Int64s) -> npt.NDArray[np.uint32]:
    """Return the CRC-32C, not masked, of the bytes at each `buffer[start:end]`."""
    crcs = np.empty(starts.size, np.uint32)
    _library().crc32c_checksums(*_records(buffer, starts, ends), crcs.ctypes.data, USES_CRC_INSTRUCTION)
    return crcs


def record_ids(buffer: Bytes, starts: Int64s, ends: Int64s) -> tuple[UInt64s, UInt64s]:
    """Return the first 16 bytes of the BLAKE3 hash of each record, as big-endian numbers: high, low.

    Raises:
        MemoryError: There is none for the hashes of a record's parts, 3 % of its size.
    """
    high, low = np.empty(starts.size, np.uint64), np.empty(starts.size, np.uint64)
    if _library().record_ids(*_records(buffer, starts, ends), high.ctypes.data, low.ctypes.data):
        raise MemoryError("no memory to hash records")
    return high, low


def canonical_window(buffer: Bytes, starts: Int64s, ends: Int64s) -> Bytes:
    """Return a buffer in which these records have their canonical form: `buffer` itself where they have.

    Raises:
        MemoryError: There is none for the list of a record's features.
    """
    source, *records = _records(buffer, starts, ends)
    found = _library().canonical_forms(source, None, *records)
    if not found:
        return buffer
    result = buffer.copy()
    if found < 0 or _library().canonical_forms(source, result.ctypes.data, *records) < 0:
        raise MemoryError("no memory to sort the features of a record")
    return result


def _records(buffer: Bytes, starts: Int64s, ends: Int64s) -> tuple[int, int, int, int]:
    """Return the arguments that all functions take. The arrays must stay until the call is over."""
    for array, kind in ((buffer, np.uint8), (starts, np.int64), (ends, np.int64)):
        if array.dtype != kind or not array.flags.c_contiguous:
            raise TypeError(f"an array of {array.dtype} where a contiguous one of {np.dtype(kind)} belongs")
    if starts.size != ends.size:
        raise ValueError(f"{starts.size} begins and {ends.size} ends")
    if starts.size and not (starts.min() >= 0 and (starts <= ends).all() and ends.max() <= buffer.size):
        raise ValueError("records that do not lie in the buffer")
    return buffer.ctypes.data, starts.ctypes.data, ends.ctypes.data, starts.size
