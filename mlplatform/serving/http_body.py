"""Compressed bodies of HTTP requests: inflated piece by piece, within limits."""

import zlib

from mlplatform.serving.request_size import Reservation
from mlplatform.serving.status import StatusError, TooLargeError, invalid_argument

_STEP = 1 << 20  # bytes inflated at a time
_GZIP = 16 + zlib.MAX_WBITS
_IDENTITY = ("", "identity")


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
    try:
        return _inflated(body, _window(body, encoding), limit, held)
    except (zlib.error, EOFError) as error:
        raise _broken(error) from error


def _window(body: bytes, encoding: str) -> int:
    if encoding != "deflate":
        return _GZIP
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS  # some clients leave the header out


def _inflated(body: bytes, window: int, limit: int, held: Reservation) -> bytes:
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


def _broken(error: Exception) -> StatusError:
    return invalid_argument(f"the body cannot be read: {error}")
