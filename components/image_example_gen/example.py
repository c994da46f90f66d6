"""Builds the Example of a photo."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from mlplatform.components.image_example_gen.columns import Typed
from mlplatform.components.image_example_gen.listing import LABEL
from mlplatform.components.image_example_gen.photo import Photo


def photo_example(
    encoded: bytes,
    photo: Photo,
    labels: Sequence[str],
    item_id: str,
    columns: Mapping[str, Typed],
    label_feature: str = LABEL,
) -> bytes:
    """Return the serialized Example: equal content gives equal bytes.

    Args:
        encoded: The photo as it came.
        photo: What it is.
        labels: Class names, at least one; the first is the photo's own, others are right as well.
        item_id: The item.
        columns: Further features by name, each with at least one value.
        label_feature: The feature that holds the class names.
    """
    features = {name: _feature(values) for name, values in columns.items()}
    features["image/encoded"] = _feature([encoded])
    features["image/format"] = _feature([photo.format.encode()])
    features["image/height"] = _feature([photo.height])
    features["image/width"] = _feature([photo.width])
    features[label_feature] = _feature([label.encode() for label in labels])
    features["item_id"] = _feature([item_id.encode()])
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString(deterministic=True))


def _feature(values: Typed) -> tf.train.Feature:
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
