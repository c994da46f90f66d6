"""How bright photos are, and how much contrast they have: what their statistics are compared by.

Two features of each photo that no record holds. They go through the same statistics as the others, and are
then kept separate, since the schema is of what the records hold.
"""

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlplatform.arrow import pa

_SMALL_PX = 64  # a JPEG is decoded at the smallest scale that has this many


def brightness_features(image_feature: str) -> tuple[str, str]:
    """Return the names of the features: means and standard deviations of luma, 0 to 255."""
    return f"{image_feature}:brightness", f"{image_feature}:contrast"


def with_brightness(batch: pa.RecordBatch, image_feature: str) -> pa.RecordBatch:
    """Return a batch with brightness and contrast; a record without exactly one photo has none."""
    names = batch.schema.names
    if image_feature not in names:
        return batch
    found = [_brightness(image) for image in batch.column(names.index(image_feature)).to_pylist()]
    columns = [
        pa.array([None if pair is None else [pair[place]] for pair in found], pa.list_(pa.float32()))
        for place in range(2)
    ]
    return pa.RecordBatch.from_arrays(
        [*batch.columns, *columns], names=[*names, *brightness_features(image_feature)]
    )


def separated(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, image_feature: str
) -> tuple[statistics_pb2.DatasetFeatureStatisticsList, statistics_pb2.DatasetFeatureStatisticsList]:
    """Return the statistics of what the records hold, and those of their photos' brightness."""
    names = brightness_features(image_feature)
    return _only(statistics, names, is_among=False), _only(statistics, names, is_among=True)


def brightness_schema(image_feature: str, threshold: float) -> schema_pb2.Schema:
    """Return a schema that compares photos' brightness with a baseline and with what is served.

    Args:
        image_feature: The feature that holds the photo.
        threshold: Jensen-Shannon divergence, 0 to 1, above which it is too far away.
    """
    schema = schema_pb2.Schema()
    for name in brightness_features(image_feature):
        feature = schema.feature.add(name=name, type=schema_pb2.FLOAT)
        feature.drift_comparator.jensen_shannon_divergence.threshold = threshold
        feature.skew_comparator.jensen_shannon_divergence.threshold = threshold
    return schema


def _only(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, names: Iterable[str], *, is_among: bool
) -> statistics_pb2.DatasetFeatureStatisticsList:
    kept = statistics_pb2.DatasetFeatureStatisticsList()
    kept.CopyFrom(statistics)
    for dataset in kept.datasets:
        features = [f for f in dataset.features if (".".join(f.path.step) in names) == is_among]
        del dataset.features[:]
        dataset.features.extend(features)
    return kept


def _brightness(images: list[bytes] | None) -> tuple[float, float] | None:
    if images is None or len(images) != 1:
        return None
    try:
        with Image.open(io.BytesIO(images[0])) as image:
            image.draft("L", (_SMALL_PX, _SMALL_PX))
            luma = np.asarray(image.convert("L"), np.float32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return float(luma.mean()), float(luma.std())
