"""A column of byte strings: the values of a feature of many records, kept without the records."""

from dataclasses import dataclass

import numpy as np

from mlplatform.datasets.format.features import hash_spans
from mlplatform.datasets.format.tfrecord import SLACK_BYTES, Bytes, Int64s, word64
from mlplatform.datasets.format.walk import Bools


@dataclass(frozen=True)
class Values:
    """Byte strings.

    Attributes:
        data: uint8, the strings one after another, with `SLACK_BYTES` behind the last.
        begins: int64, shape (records,): where each begins.
        sizes: int64, shape (records,): its bytes; -1 where a record has none.
    """

    data: Bytes
    begins: Int64s
    sizes: Int64s

    def __getitem__(self, record: int) -> bytes | None:
        begin, size = int(self.begins[record]), int(self.sizes[record])
        return self.data[begin : begin + size].tobytes() if size >= 0 else None

    @classmethod
    def copied(cls, buffer: Bytes, begins: Int64s, sizes: Int64s) -> "Values":
        """Copy the strings at some places of a buffer; sizes below 0 stand for none."""
        lengths = np.maximum(sizes, 0)
        ends = np.cumsum(lengths)
        starts = ends - lengths
        data = np.zeros(int(lengths.sum()) + SLACK_BYTES, np.uint8)
        data[: data.size - SLACK_BYTES] = buffer[
            np.repeat(begins - starts, lengths) + np.arange(data.size - SLACK_BYTES)
        ]
        return cls(data, starts, sizes)

    @classmethod
    def join(cls, parts: "list[Values]") -> "Values":
        """Return the strings of all parts, in order."""
        if not parts:
            none = np.zeros(0, np.int64)
            return cls(np.zeros(SLACK_BYTES, np.uint8), none, none)
        offsets = np.cumsum([0, *(part.data.size for part in parts[:-1])])
        return cls(
            np.concatenate([part.data for part in parts]),
            np.concatenate([part.begins + offset for part, offset in zip(parts, offsets, strict=True)]),
            np.concatenate([part.sizes for part in parts]),
        )

    def codes(self) -> Int64s:
        """Return a number per record, from 0 on: the same for the same string, -1 where there is none."""
        hashes = hash_spans(self.data, [(self.begins, self.sizes)], self.sizes.size)
        order = np.argsort(hashes)
        same = hashes[order[1:]] == hashes[order[:-1]]
        if not self._are_equal(order[1:][same], order[:-1][same]).all():
            return self._codes_one_by_one()  # somebody made different strings of one hash
        codes = np.empty(self.sizes.size, np.int64)
        codes[order] = np.cumsum(np.concatenate([np.zeros(min(1, order.size), np.int64), ~same]))
        codes[self.sizes < 0] = -1
        return codes

    def _are_equal(self, left: Int64s, right: Int64s) -> Bools:
        """Compare the strings of two lists of records: bool, of their shape."""
        words = word64(self.data)
        result: Bools = self.sizes[left] == self.sizes[right]
        pairs, offset = np.flatnonzero(result), 0
        while (pairs := pairs[self.sizes[left[pairs]] > offset]).size:
            rest = np.minimum(self.sizes[left[pairs]] - offset, 8).astype(np.uint64)
            unlike = words[self.begins[left[pairs]] + offset] ^ words[self.begins[right[pairs]] + offset]
            result[pairs] &= (unlike << (np.uint64(8) * (np.uint64(8) - rest))) == 0
            offset += 8
        return result

    def _codes_one_by_one(self) -> Int64s:
        known: dict[bytes, int] = {}
        strings = map(self.__getitem__, range(self.sizes.size))
        return np.array(
            [-1 if one is None else known.setdefault(one, len(known)) for one in strings], np.int64
        )


def joint_codes(columns: list[Values]) -> Int64s:
    """Return a number per record: the same where all columns have the same strings, -1 where one has none."""
    first, *others = (column.codes() for column in columns)
    for codes in others:
        is_missing = (first < 0) | (codes < 0)
        _, first = np.unique(first * (codes.max(initial=0) + 1) + codes, return_inverse=True)
        first = np.where(is_missing, -1, first.reshape(-1))
    return first
