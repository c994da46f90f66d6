"""Builds the Example of a photo."""

import datetime
import decimal
import json
import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mlplatform.components.image_example_gen.photo import Photo


def photo_example(
    encoded: bytes, photo: Photo, label: str, item_id: str, columns: Mapping[str, Any]
) -> bytes:
    """Return the serialized Example: equal content gives equal bytes.

    Args:
        encoded: The photo as it came.
        photo: What it is.
        label: Class name.
        item_id: The item.
        columns: Further features by name: numbers, truth values, text, bytes, dates, or lists of one kind;
            None, empty text and empty lists are left out.
    """
    features = {name: feature for name, value in columns.items() if (feature := _feature(value)) is not None}
    features["image/encoded"] = _bytes(encoded)
    features["image/format"] = _bytes(photo.format.encode())
    features["image/height"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[photo.height]))
    features["image/width"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[photo.width]))
    features["label"] = _bytes(label.encode())
    features["item_id"] = _bytes(item_id.encode())
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString(deterministic=True))


def _feature(value: Any) -> tf.train.Feature | None:
    values = list(value) if isinstance(value, list | tuple) else [value]
    values = [v for v in values if v is not None and v != "" and not (isinstance(v, float) and math.isnan(v))]
    if not values:
        return None
    if all(isinstance(v, int) for v in values) and all(-(2**63) <= v < 2**63 for v in values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(v) for v in values]))
    if all(isinstance(v, int | float | decimal.Decimal) for v in values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[float(v) for v in values]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[_as_bytes(v) for v in values]))


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat().encode()
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, default=str).encode()
    return str(value).encode()


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
