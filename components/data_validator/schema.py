"""The schema that the data must fit: read, or inferred and completed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.dsl.io import fileio

from mlplatform.components.data_validator.errors import SchemaFileError

_IDENTIFIER_SHARE = 0.5  # of values that differ, above which a text feature is no category
_TRAINING, _SERVING = "TRAINING", "SERVING"  # environments, named as TFX's own examples do
_LARGEST_DOMAIN = 100  # different values that a text feature may have to be a category


def read_schema(path: str) -> schema_pb2.Schema:
    """Return the schema in a text proto file, which may lie wherever TFX keeps its artifacts.

    Raises:
        SchemaFileError: There is no such file, or it holds no schema.
    """
    try:
        with fileio.open(path, "rb") as file:
            return text_format.Parse(file.read().decode(), schema_pb2.Schema())
    except (OSError, tf.errors.OpError) as error:
        raise SchemaFileError(path, f"cannot read it: {error}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise SchemaFileError(path, f"it is not a schema: {error}") from error


def with_image_domain(schema: schema_pb2.Schema, image_feature: str) -> schema_pb2.Schema:
    """Return a copy in which the photos are an image feature, so that statistics take their sizes alone."""
    marked = schema_pb2.Schema()
    marked.CopyFrom(schema)
    feature = next((f for f in marked.feature if f.name == image_feature), None)
    if feature is None:
        feature = marked.feature.add(name=image_feature, type=schema_pb2.BYTES)
    if feature.WhichOneof("domain_info") is None:
        feature.image_domain.SetInParent()
    return marked


def infer_schema(
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList],
    train_split: str,
    image_feature: str,
    label_feature: str,
) -> schema_pb2.Schema:
    """Return the schema that the training split suggests.

    A text feature with few different values becomes a category, one whose values hardly repeat (an id) does
    not. The classes are those of all splits: whether each is trained is checked separately.
    """
    train = statistics[train_split]
    schema = tfdv.infer_schema(train, max_string_domain_size=_LARGEST_DOMAIN)
    features = {feature.name: feature for feature in schema.feature}
    for name, values in feature_statistics(train).items():
        feature = features.get(name)
        if feature is None or feature.type != schema_pb2.BYTES:
            continue
        total = values.string_stats.common_stats.num_non_missing
        if name == label_feature:
            labels = sorted({label for split in statistics.values() for label in value_counts(split, name)})
            _forget_domain(schema, feature)
            feature.string_domain.CopyFrom(schema_pb2.StringDomain(name=name, value=labels))
        elif values.string_stats.unique > _IDENTIFIER_SHARE * total:
            _forget_domain(schema, feature)
    if image_feature in features:
        _forget_domain(schema, features[image_feature])
        features[image_feature].image_domain.SetInParent()
    return schema


def with_comparators(
    schema: schema_pb2.Schema,
    statistics: Sequence[statistics_pb2.DatasetFeatureStatisticsList],
    threshold: float,
    *,
    comparator: Literal["drift_comparator", "skew_comparator"],
) -> schema_pb2.Schema:
    """Return a copy that compares every number and category.

    Args:
        schema: Its own comparators stay.
        statistics: A feature that one of them lacks, or has as another type, is not compared.
        threshold: Jensen-Shannon divergence, 0 to 1, above which a feature is too far away.
        comparator: With a baseline (drift), or with what is asked in service (skew).
    """
    compared = schema_pb2.Schema()
    compared.CopyFrom(schema)
    kinds = [
        {(name, f.WhichOneof("stats")) for name, f in feature_statistics(some).items()} for some in statistics
    ]
    found = {name for name, _ in set.intersection(*kinds)}
    for feature in compared.feature:
        is_number = feature.type in (schema_pb2.INT, schema_pb2.FLOAT)
        is_category = feature.WhichOneof("domain_info") in ("string_domain", "domain")
        if feature.name in found and (is_number or is_category) and not feature.HasField(comparator):
            getattr(feature, comparator).jensen_shannon_divergence.threshold = threshold
    return compared


def training_environment(schema: schema_pb2.Schema) -> str | None:
    """Return the environment that the data is in: `TRAINING` where the schema has environments."""
    return _TRAINING if _TRAINING in schema.default_environment else None


def served_features(schema: schema_pb2.Schema, names: Iterable[str]) -> set[str]:
    """Return those of `names` that are in the environment `SERVING`: all where the schema does not say."""
    known = {feature.name: feature for feature in schema.feature}
    return {name for name in names if name not in known or _is_in(schema, known[name], _SERVING)}


def serving_only_features(schema: schema_pb2.Schema) -> set[str]:
    """Return the features that the schema wants in requests and not in the data."""
    return {feature.name for feature in schema.feature if not _is_in(schema, feature, _TRAINING)}


def presence(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
) -> dict[str, int]:
    """Return how many records have a value of each feature; a feature that none has is left out."""
    found = {}
    for name, feature in feature_statistics(statistics).items():
        kind = feature.WhichOneof("stats")
        count = int(getattr(feature, kind).common_stats.num_non_missing) if kind else 0
        if count:
            found[name] = count
    return found


def feature_statistics(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    """Return the statistics of each feature by its name."""
    return {
        ".".join(feature.path.step) or feature.name: feature
        for dataset in statistics.datasets[:1]
        for feature in dataset.features
    }


def value_counts(statistics: statistics_pb2.DatasetFeatureStatisticsList, feature: str) -> dict[str, int]:
    """Return how often each text value of a feature occurs, the most frequent first."""
    found = feature_statistics(statistics).get(feature)
    if found is None:
        return {}
    return {bucket.label: int(bucket.sample_count) for bucket in found.string_stats.rank_histogram.buckets}


def _is_in(schema: schema_pb2.Schema, feature: schema_pb2.Feature, environment: str) -> bool:
    """Say whether a feature is in an environment, as TensorFlow Data Validation decides it."""
    if environment in feature.not_in_environment:
        return False
    has_environments = bool(schema.default_environment or feature.in_environment)
    named = (*schema.default_environment, *feature.in_environment)
    return environment in named or not has_environments


def _forget_domain(schema: schema_pb2.Schema, feature: schema_pb2.Feature) -> None:
    """Take a feature's domain away; a domain of the schema that no feature names goes too."""
    kind = feature.WhichOneof("domain_info")
    if kind == "domain":
        name = feature.domain
        feature.ClearField("domain")
        if not any(other.domain == name for other in schema.feature):
            kept = [domain for domain in schema.string_domain if domain.name != name]
            del schema.string_domain[:]
            schema.string_domain.extend(kept)
    elif kind:
        feature.ClearField(kind)
