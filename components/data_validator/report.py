"""The page of a verdict."""

import math
from pathlib import Path
from typing import TypeAlias

from markupsafe import Markup
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.components.data_validator.problems import record_count
from mlplatform.components.data_validator.schema import feature_statistics
from mlplatform.components.data_validator.validate import Validated
from mlplatform.components.data_validator.verdict import Problem
from mlplatform.reports.charts import Bucket, histogram, top_values
from mlplatform.reports.data_page import (
    ClassRow,
    DataPage,
    FeatureOfSplit,
    FeatureRow,
    OffenderCard,
    ProblemRow,
    write_data_page,
)
from mlplatform.reports.page import picture

_MOST_CATEGORIES = 500  # different values that a text feature may have for its values to be drawn
_Feature: TypeAlias = statistics_pb2.FeatureNameStatistics
_TYPES = statistics_pb2.FeatureNameStatistics.Type


def write_report(path: Path, found: Validated) -> Path:
    """Write the page to `path` and return it."""
    verdict = found.verdict
    page = DataPage(
        is_accepted=verdict.accepted,
        schema_source=verdict.schema_source,
        compared_with=_compared_with(found),
        records=verdict.records,
        problems=[_problem(problem) for problem in verdict.problems],
        classes=_classes(found),
        features=_features(found),
    )
    return write_data_page(path, page)


def _compared_with(found: Validated) -> list[str]:
    verdict = found.verdict
    compared = [f"{verdict.baseline} (drift)"] if verdict.baseline else []
    if verdict.serving_records is not None:
        compared.append(f"{verdict.serving_records:,} requests (skew)")
    return compared


def _problem(problem: Problem) -> ProblemRow:
    return ProblemRow(
        action=problem.action,
        kind=problem.kind,
        feature=problem.feature,
        split=problem.split,
        description=problem.description,
        records=problem.records,
        waived=problem.waiver.words if problem.waiver else "",
        offenders=[
            OffenderCard(o.split, o.item_id, o.label, o.value, picture(o.thumbnail) if o.thumbnail else "")
            for o in problem.offenders
        ],
    )


def _classes(found: Validated) -> list[ClassRow]:
    totals: dict[str, int] = {}
    for counts in found.labels.values():
        for label, count in counts.items():
            totals[label] = totals.get(label, 0) + count
    ranked = sorted(totals, key=lambda label: (-totals[label], label))
    return [
        ClassRow(label, {split: counts.get(label, 0) for split, counts in found.labels.items()})
        for label in ranked
    ]


def _features(found: Validated) -> list[FeatureRow]:
    """Return a row per feature; its chart is of the split that was compared, or of the first."""
    rows = []
    charted = found.train_split if found.train_split in found.statistics else next(iter(found.statistics), "")
    baseline = found.baseline
    for mine, good, served in (
        (found.statistics, baseline.statistics if baseline else None, found.served[0]),
        (found.brightness, baseline.brightness if baseline else None, found.served[1]),
    ):
        by_split = {split: feature_statistics(some) for split, some in mine.items()}
        theirs = [
            (f"baseline {baseline.name}" if baseline else "", feature_statistics(good) if good else {}),
            ("requests", feature_statistics(served)),
        ]
        for name in sorted({name for some in by_split.values() for name in some}):
            charts = []
            if name in by_split.get(charted, {}):
                feature = by_split[charted][name]
                others = [(title, some[name]) for title, some in theirs if name in some]
                charts = [_chart(feature, other, (charted, title)) for title, other in others]
                charts = [chart for chart in charts if chart] or [_chart(feature, None, (charted, ""))]
            of_splits = [
                _split(split, some[name], record_count(mine[split]))
                for split, some in by_split.items()
                if name in some
            ]
            rows.append(FeatureRow(name, of_splits, [chart for chart in charts if chart]))
    return rows


def _chart(feature: _Feature, other: _Feature | None, names: tuple[str, str]) -> Markup:
    kind = feature.WhichOneof("stats")
    if other is not None and other.WhichOneof("stats") != kind:
        return Markup()
    if kind == "num_stats":
        return histogram(_buckets(feature), _buckets(other) if other else (), names=names)
    if kind == "string_stats" and feature.string_stats.unique <= _MOST_CATEGORIES:
        return top_values(_shares(feature), _shares(other) if other else (), names=names)
    return Markup()


def _buckets(feature: _Feature) -> list[Bucket]:
    return [
        Bucket(bucket.low_value, bucket.high_value, bucket.sample_count)
        for histogram in feature.num_stats.histograms
        if histogram.type == histogram.STANDARD
        for bucket in histogram.buckets
        if bucket.sample_count and math.isfinite(bucket.low_value) and math.isfinite(bucket.high_value)
    ]


def _shares(feature: _Feature) -> list[tuple[str, float]]:
    buckets = feature.string_stats.rank_histogram.buckets
    total = sum(bucket.sample_count for bucket in buckets) or 1
    return [(bucket.label, bucket.sample_count / total) for bucket in buckets]


def _split(split: str, feature: _Feature, records: int) -> FeatureOfSplit:
    kind = feature.WhichOneof("stats")
    common = getattr(feature, kind).common_stats if kind else None
    present = common.num_non_missing if common is not None else 0
    if not present:
        values = "no values"
    elif kind == "num_stats":
        n = feature.num_stats
        values = f"{n.min:g} to {n.max:g}, median {n.median:g}, mean {n.mean:.4g}"
    elif kind == "bytes_stats":
        b = feature.bytes_stats
        values = f"{b.min_num_bytes:,.0f} to {b.max_num_bytes:,.0f} bytes, mean {b.avg_num_bytes:,.0f}"
    else:
        s = feature.string_stats
        values = f"{s.unique:,} different" + ("" if s.unique > _MOST_CATEGORIES else _most_frequent(s))
    missing = 1 - present / records if records else 0.0
    return FeatureOfSplit(split, _TYPES.Name(feature.type).lower(), missing, values)


def _most_frequent(strings: statistics_pb2.StringStatistics) -> str:
    top = ", ".join(f"{value.value} ({value.frequency:g})" for value in strings.top_values[:3])
    return f"; most frequent: {top}"
