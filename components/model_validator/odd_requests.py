"""Odd and broken requests, made of real Examples: what clients send sooner or later."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import tensorflow as tf

from mlplatform.prediction.served_model import values_of, without

_MOST_FEATURES = 50  # of a record, that are changed one by one
_LONG_TEXT = 10_000


@dataclass(frozen=True)
class Oddity:
    """An Example with something odd in it.

    Attributes:
        group: What is odd, the same for all features.
        feature: Where; empty for the Example as a whole.
        example: The Example.
        may_be_not_finite: No finite answer is expected, as the input is not finite, or far from any.
    """

    group: str
    feature: str
    example: tf.train.Example
    may_be_not_finite: bool = False


# Per kind of feature: what is odd, and the odd value.
_ODD: dict[str, dict[str, float | bytes]] = {
    "float_list": {"NaN": math.nan, "infinity": math.inf, "a huge number": 1e30},
    "int64_list": {"a negative number": -1, "a huge number": 1 << 40},
    "bytes_list": {
        "an empty text": b"",
        "a text that is not UTF-8": b"\xff\xfe\x80",
        "a very long text": b"x" * _LONG_TEXT,
    },
}


def odd_values(sample: tf.train.Example) -> Iterator[Oddity]:
    """Yield the sample with one value after the other replaced by an odd one of its type."""
    for name in _changed(sample):
        kind = sample.features.feature[name].WhichOneof("kind")
        for group, value in _ODD[kind].items():
            yield Oddity(
                group, name, _with(sample, name, kind, value), may_be_not_finite=kind == "float_list"
            )


def odd_features(sample: tf.train.Example) -> Iterator[Oddity]:
    """Yield the sample without one feature after the other, without all, and with features of other types."""
    for name in _changed(sample):
        yield Oddity("a feature is missing", name, without(sample, name))
    yield Oddity("no feature at all", "", tf.train.Example())
    for name in _changed(sample):
        is_text = sample.features.feature[name].WhichOneof("kind") == "bytes_list"
        kind, value = ("float_list", 1.5) if is_text else ("bytes_list", b"text")
        yield Oddity("a feature of another type", name, _with(sample, name, kind, value))


def broken_examples(sample: tf.train.Example) -> Iterator[tuple[str, bytes]]:
    """Yield bytes that are not an Example, with a name for them."""
    whole = sample.SerializeToString(deterministic=True)
    yield "no Example", b"no Example"
    if len(whole) > 8:
        # Within the last feature: to TensorFlow's parser, what ends between two features is a whole Example.
        yield "a truncated Example", whole[:-1]


def _changed(sample: tf.train.Example) -> list[str]:
    names = sorted(sample.features.feature)
    return [name for name in names if values_of(sample, name)][:_MOST_FEATURES]


def _with(sample: tf.train.Example, name: str, kind: str, value: float | bytes) -> tf.train.Example:
    changed = copy.deepcopy(sample)
    count = len(values_of(sample, name))
    changed.features.feature[name].Clear()
    getattr(changed.features.feature[name], kind).value.extend([value] * count)
    return changed


# Errors with which a server refuses a request, as opposed to breaking over it.
REFUSALS = (
    tf.errors.InvalidArgumentError,
    tf.errors.UnknownError,
    tf.errors.OutOfRangeError,
    tf.errors.FailedPreconditionError,
    # TensorFlow's own errors quote the request; Python then cannot read those of bytes that are not UTF-8.
    UnicodeDecodeError,
)
