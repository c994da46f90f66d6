"""Compressed requests, bodies of HTTP and messages of gRPC: inflated piece by piece, within limits."""

import zlib

from mlplatform.serving.request_size import Reservation
from mlplatform.serving.status import StatusError, TooLargeError, invalid_argument

_STEP = 1 << 20  # bytes inflated at a time
_GZIP = 16 + zlib.MAX_WBITS
_IDENTITY = ("", "identity")
_GZIP_BEGINS, _DEFLATE_BEGINS = b"\x1f\x8b\x08", b"\x78"  # of what gRPC's clients send


def inflated(body: bytes, encoding: str, limit: int, held: Reservation) -> bytes:
    """Return the body that was sent with a `Content-Encoding`.

    Args:
        body: What was sent.
        encoding: The header's value; `gzip`, `deflate` or nothing.
        limit: Bytes of the result at most.
        held: Where its bytes are counted.

    Raises:
        StatusError: RESOURCE_EXHAUSTED past a limit; INVALID_ARGUMENT for another encoding or a broken body.
    """
    encoding = encoding.strip().lower()
    if encoding in _IDENTITY:
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise invalid_argument(
            f"Content-Encoding {encoding} is not supported: send the body as it is, or as gzip or deflate"
        )
    return _inflated(body, _window(body, encoding), limit, held)


def inflated_message(data: bytes, limit: int, held: Reservation) -> bytes:
    """Return a gRPC message, whatever of gRPC's encodings it was sent in.

    gRPC keeps the encoding's name to itself, but it shows: `gzip` begins with bytes that no message may begin
    with, `deflate` (a zlib stream) with the key of a field number 15, which no request to this server has.

    Args:
        data: As it was sent; gRPC sends what would not become smaller as it is.
        limit: Bytes of the result at most.
        held: Where the bytes of what was inflated are counted.

    Raises:
        StatusError: RESOURCE_EXHAUSTED past a limit; INVALID_ARGUMENT for a broken stream.
    """
    if data.startswith(_GZIP_BEGINS):
        return _inflated(data, _GZIP, limit, held)
    if data.startswith(_DEFLATE_BEGINS) and _has_zlib_header(data):
        return _inflated(data, zlib.MAX_WBITS, limit, held)
    return data


def _window(body: bytes, encoding: str) -> int:
    if encoding != "deflate":
        return _GZIP
    return zlib.MAX_WBITS if _has_zlib_header(body) else -zlib.MAX_WBITS  # some clients leave the header out


def _has_zlib_header(data: bytes) -> bool:
    return len(data) > 1 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0


def _inflated(body: bytes, window: int, limit: int, held: Reservation) -> bytes:
    try:
        return _within(body, window, limit, held)
    except (zlib.error, EOFError) as error:
        raise invalid_argument(f"the body cannot be read: {error}") from error


def _within(body: bytes, window: int, limit: int, held: Reservation) -> bytes:
    inflater = zlib.decompressobj(window)
    parts, size, rest = [], 0, body
    while not inflater.eof:
        part = inflater.decompress(rest, _STEP)
        rest = inflater.unconsumed_tail
        size += len(part)
        if size > limit:
            raise too_large(limit)
        held.add(len(part))
        parts.append(part)
        if not part and not rest and not inflater.eof:
            raise EOFError("the compressed body ends too early")
    if inflater.unused_data:
        raise EOFError(f"{len(inflater.unused_data)} bytes follow the end of the compressed body")
    return b"".join(parts)


def too_large(limit: int) -> StatusError:
    """Return the error of a request whose body is larger than may be."""
    return TooLargeError(f"the request is larger than {limit} bytes")
