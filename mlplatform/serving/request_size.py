"""What a request becomes in memory, counted before it becomes it.

A few bytes of a message or a document can stand for many objects. Each protocol's bytes are estimated from
above, cheaply, before they are parsed; all requests that are being answered share one budget.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from mlplatform.serving.status import Code, StatusError, TooLargeError

# Bytes that an object of a parsed message or document takes, whatever it holds.
_OBJECT_BYTES = 128
_JSON_VALUE_BYTES, _JSON_LIST_BYTES, _JSON_OBJECT_BYTES = 40, 64, 232
_UNPACKED_BYTES = 16  # of a number that came alone
_SMALL = 16 << 10  # bytes of a message that may become 64 times as much without being looked at
_FIRST_FIELDS = 256  # that are looked at one by one; a message of tensors has fewer

# First bytes of fields 1 to 15 that have a length: each object of a message has one, or a longer key.
_KEYS = bytes(number << 3 | 2 for number in range(1, 16)) + bytes(range(0x82, 0x100, 8))
_FIXED = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)


class RequestBudget:
    """Bytes that all requests together may take. Safe to use from any thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._taken = 0

    @contextmanager
    def reservation(self) -> Iterator["Reservation"]:
        """Give one request's part; it is given back at the end of the block."""
        mine = Reservation(self)
        try:
            yield mine
        finally:
            mine.release()

    def take(self, size: int) -> None:
        """Take bytes.

        Raises:
            StatusError: RESOURCE_EXHAUSTED: others hold them; asking again later may help.
        """
        with self._lock:
            if self._taken + size > self.limit:
                raise StatusError(
                    Code.RESOURCE_EXHAUSTED, f"requests of {self.limit} bytes are in flight already"
                )
            self._taken += size

    def give_back(self, size: int) -> None:
        """Return bytes."""
        with self._lock:
            self._taken -= size


class Reservation:
    """What one request takes of a budget."""

    def __init__(self, budget: RequestBudget) -> None:
        self._budget = budget
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes that this request has taken."""
        return self._size

    @property
    def left(self) -> int:
        """Bytes that this request may still take, were it alone."""
        return self._budget.limit - self._size

    def add(self, size: int) -> None:
        """Take more bytes.

        Raises:
            StatusError: RESOURCE_EXHAUSTED: this request alone needs more than there is, or others hold it.
        """
        if size > self.left:
            raise TooLargeError(
                f"the request would take {self._size + size} bytes of memory, at most {self._budget.limit} "
                "are given to requests: send fewer rows at a time"
            )
        self._budget.take(size)
        self._size += size

    def release(self) -> None:
        """Give back what was taken."""
        self._budget.give_back(self._size)
        self._size = 0


def json_size(body: bytes) -> int:
    """Return at most how many bytes the values of a JSON document take, its text not counted."""
    values = body.count(b",") + body.count(b":")
    lists, objects = body.count(b"["), body.count(b"{")
    return len(body) + (
        (values + lists + objects + 1) * _JSON_VALUE_BYTES
        + lists * _JSON_LIST_BYTES
        + objects * _JSON_OBJECT_BYTES
    )


def message_size(data: bytes, descriptor: Descriptor, limit: int) -> int:
    """Return at most how many bytes a serialized message takes once it is parsed and made arrays of.

    Args:
        data: The message; what is malformed is left to its parser.
        descriptor: Of its class.
        limit: Counting ends above it.
    """
    if len(data) <= _SMALL:
        return len(data)
    size, is_all = _walked(data, descriptor, limit, _FIRST_FIELDS)
    if is_all:
        return size
    bound = len(data) + _OBJECT_BYTES * (len(data) - len(data.translate(None, _KEYS)))
    if bound <= limit // 8:
        return bound
    return _walked(data, descriptor, limit, len(data))[0]


def _walked(data: bytes, descriptor: Descriptor, limit: int, max_fields: int) -> tuple[int, bool]:
    """Count field by field; returns the bytes, and whether nothing was left out."""
    size, fields = len(data), 0
    open_messages: list[tuple[int, int, Mapping[int, Any]]] = [(0, len(data), _plan(descriptor))]
    try:
        while open_messages:
            at, end, plan = open_messages.pop()
            while at < end:
                fields += 1
                if fields > max_fields:
                    return size, False
                if size > limit:
                    return size, True
                key, at = _varint(data, at)
                kind = key & 7
                if kind == 2:
                    length, at = _varint(data, at)
                    inner = plan.get(key >> 3, 0)
                    if isinstance(inner, int):
                        size += length * inner or _OBJECT_BYTES + length
                    else:
                        size += _OBJECT_BYTES
                        open_messages.append((at, min(at + length, end), _plan(inner)))
                    at += length
                else:
                    size += _UNPACKED_BYTES
                    at = _varint(data, at)[1] if kind == 0 else at + {1: 8, 5: 4}.get(kind, 0)
    except IndexError:  # cut short: the parser refuses it
        pass
    return size, True


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    for shift in range(7, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError(at)


@cache
def _plan(descriptor: Descriptor) -> Mapping[int, Any]:
    """Return, by field, its message's descriptor or how many bytes a packed byte becomes."""
    plan: dict[int, Any] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            plan[field.number] = field.message_type
        elif field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            # As much again in the array; a varint's one byte is up to eight in the message and in the array.
            plan[field.number] = 3 if field.type in _FIXED else 16
    return plan
