"""Finds the records that have a problem: a second pass over the data, only when there is one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import apache_beam as beam
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.components.data_validator.policy import Kind
from mlplatform.components.data_validator.verdict import Offender, Problem
from mlplatform.reports.thumbnails import thumbnail

SHOWN = 12  # offenders kept per problem
_THUMBNAIL_PX = 160
_BY_RECORD: set[Kind] = {
    "type_change",
    "missing_values",
    "missing_label",
    "unknown_value",
    "unknown_label",
    "out_of_range",
    "shape",
    "new_column",
}
_TYPES = {"bytes_list": schema_pb2.BYTES, "int64_list": schema_pb2.INT, "float_list": schema_pb2.FLOAT}


def concerns_records(problem: Problem) -> bool:
    """Say whether single records have the problem and can be shown."""
    return bool(problem.offenders) or (problem.kind in _BY_RECORD and problem.records is None)


class FindOffenders(beam.DoFn):
    """A serialized Example becomes (number of a problem, `Offender`) for each problem that it has."""

    def __init__(
        self,
        split: str,
        problems: Sequence[tuple[int, Problem]],
        schema: schema_pb2.Schema,
        image_feature: str,
        id_feature: str,
        label_feature: str,
    ) -> None:
        self._split, self._schema_bytes = split, schema.SerializeToString()
        self._problems = [(n, p) for n, p in problems if p.split == split and not p.offenders]
        self._wanted: dict[tuple[str, str, str], list[int]] = {}
        for number, problem in problems:
            for o in problem.offenders:
                self._wanted.setdefault((o.split, o.item_id, o.label), []).append(number)
        self._image, self._id, self._label = image_feature, id_feature, label_feature

    def setup(self) -> None:
        schema = schema_pb2.Schema.FromString(self._schema_bytes)
        self._features = {feature.name: feature for feature in schema.feature}
        self._domains = {domain.name: frozenset(domain.value) for domain in schema.string_domain}

    def process(self, record: bytes) -> Iterator[tuple[int, Offender]]:
        features = tf.train.Example.FromString(record).features.feature
        item_id, label = _first(features, self._id), _first(features, self._label)
        for number, problem in self._problems:
            value = self._wrong_value(problem.kind, problem.feature, features)
            if value is not None:
                yield number, Offender(self._split, item_id, label, value, self._thumbnail(features))
        for number in self._wanted.get((self._split, item_id, label), ()):
            yield number, Offender(self._split, item_id, label, "", self._thumbnail(features))

    def _wrong_value(self, kind: Kind, name: str, features: Mapping[str, tf.train.Feature]) -> str | None:
        """Return what is wrong with the feature in this record; None where nothing is."""
        feature = features.get(name) if name in features else None
        stored = feature.WhichOneof("kind") if feature is not None else None
        values = list(getattr(feature, stored).value) if stored else []
        if kind in ("missing_values", "missing_label"):
            return None if values else "missing"
        if kind == "new_column":
            return _shown(values) if values else None
        expected = self._features.get(name)
        if expected is None or not values:
            return None
        if kind == "type_change":
            has_type = _TYPES[stored or ""] == expected.type
            return None if has_type and expected.type != schema_pb2.BYTES else _shown(values)
        if kind in ("unknown_value", "unknown_label"):
            return self._unknown(expected, values)
        return _out_of_range(expected, values) if kind == "out_of_range" else _wrong_count(expected, values)

    def _unknown(self, expected: schema_pb2.Feature, values: list[object]) -> str | None:
        if expected.WhichOneof("domain_info") == "domain":
            known = self._domains.get(expected.domain, frozenset())
        else:
            known = frozenset(expected.string_domain.value)
        unknown = [value for value in values if _text(value) not in known]
        return _shown(unknown) if unknown else None

    def _thumbnail(self, features: Mapping[str, tf.train.Feature]) -> bytes:
        if self._image not in features or not features[self._image].bytes_list.value:
            return b""
        return thumbnail(features[self._image].bytes_list.value[0], _THUMBNAIL_PX)


class KeepSome(beam.PTransform):
    """(number, `Offender`) pairs become (number, (how many, the first of them in a fixed order))."""

    def expand(self, found: beam.PCollection) -> beam.PCollection:
        """Group `found`."""
        return found | beam.CombinePerKey(_Some())


class _Some(beam.CombineFn):
    def create_accumulator(self) -> tuple[int, list[Offender]]:
        return 0, []

    def add_input(self, kept: tuple[int, list[Offender]], offender: Offender) -> tuple[int, list[Offender]]:
        return kept[0] + 1, _smallest([*kept[1], offender])

    def merge_accumulators(self, several: Iterable[tuple[int, list[Offender]]]) -> tuple[int, list[Offender]]:
        counts, lists = zip(*several, strict=True)
        return sum(counts), _smallest([offender for some in lists for offender in some])

    def extract_output(self, kept: tuple[int, list[Offender]]) -> tuple[int, list[Offender]]:
        return kept


def with_found(problem: Problem, count: int, found: Sequence[Offender]) -> Problem:
    """Return the problem with the offenders that were found in the data."""
    if not problem.offenders:
        return problem.with_offenders(count, found)
    pictures = {(o.split, o.item_id, o.label): o.thumbnail for o in found}
    shown = [
        replace(o, thumbnail=pictures.get((o.split, o.item_id, o.label), b"")) for o in problem.offenders
    ]
    return problem.with_offenders(problem.records, shown)


def _smallest(offenders: list[Offender]) -> list[Offender]:
    key: Callable[[Offender], tuple[str, str, str]] = lambda o: (o.split, o.item_id, o.value)  # noqa: E731
    return sorted(offenders, key=key)[:SHOWN]


def _out_of_range(expected: schema_pb2.Feature, values: list[object]) -> str | None:
    kind = expected.WhichOneof("domain_info")
    domain = getattr(expected, kind) if kind in ("int_domain", "float_domain") else None
    low = domain.min if domain is not None and domain.HasField("min") else float("-inf")
    high = domain.max if domain is not None and domain.HasField("max") else float("inf")
    numbers = [value for value in values if isinstance(value, int | float)]
    outside = [
        value for value in numbers if not low <= value <= high or value in (float("inf"), float("-inf"))
    ]
    return _shown(outside) if outside else None


def _wrong_count(expected: schema_pb2.Feature, values: list[object]) -> str | None:
    if expected.WhichOneof("shape_type") == "shape":
        wanted = 1
        for dimension in expected.shape.dim:
            wanted *= dimension.size
        low = high = wanted
    else:
        low = expected.value_count.min
        high = expected.value_count.max or len(values)
    return None if low <= len(values) <= high else f"{len(values)} values"


def _first(features: Mapping[str, tf.train.Feature], name: str) -> str:
    if name not in features:
        return ""
    feature = features[name]
    kind = feature.WhichOneof("kind")
    values = getattr(feature, kind).value if kind else []
    return _text(values[0]) if values else ""


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _shown(values: Sequence[object]) -> str:
    text = ", ".join(_text(value) for value in values[:3])
    return text if len(text) <= 60 else text[:57] + "..."
