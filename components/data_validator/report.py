"""The page of a verdict."""

from pathlib import Path

from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.components.data_validator.schema import feature_statistics
from mlplatform.components.data_validator.validate import Validated
from mlplatform.components.data_validator.verdict import Problem
from mlplatform.reports.data_page import (
    ClassRow,
    DataPage,
    FeatureRow,
    OffenderCard,
    ProblemRow,
    write_data_page,
)
from mlplatform.reports.page import picture

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
        features=[
            row
            for split, some in found.statistics.items()
            for row in (*_features(split, some), *_features(split, found.light[split]))
        ],
    )
    return write_data_page(path, page)


def _compared_with(found: Validated) -> list[str]:
    verdict = found.verdict
    compared = [f"{verdict.baseline} (drift)"] if verdict.baseline else []
    if verdict.serving_records is not None:
        compared.append(f"{verdict.serving_records:,} records asked in service (skew)")
    return compared


def _problem(problem: Problem) -> ProblemRow:
    return ProblemRow(
        action=problem.action,
        kind=problem.kind,
        feature=problem.feature,
        split=problem.split,
        description=problem.description,
        records=problem.records,
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


def _features(split: str, statistics: statistics_pb2.DatasetFeatureStatisticsList) -> list[FeatureRow]:
    records = statistics.datasets[0].num_examples if statistics.datasets else 0
    return [
        _feature(split, name, feature, int(records))
        for name, feature in sorted(feature_statistics(statistics).items())
    ]


def _feature(
    split: str, name: str, feature: statistics_pb2.FeatureNameStatistics, records: int
) -> FeatureRow:
    kind = feature.WhichOneof("stats")
    common = getattr(feature, kind).common_stats if kind else None
    present = common.num_non_missing if common is not None else 0
    if kind == "num_stats":
        n = feature.num_stats
        values = f"{n.min:g} to {n.max:g}, median {n.median:g}, mean {n.mean:.4g}"
    elif kind == "bytes_stats":
        b = feature.bytes_stats
        values = f"{b.min_num_bytes:,.0f} to {b.max_num_bytes:,.0f} bytes, mean {b.avg_num_bytes:,.0f}"
    elif kind == "string_stats":
        s = feature.string_stats
        top = ", ".join(f"{value.value} ({value.frequency:g})" for value in s.top_values[:3])
        values = f"{s.unique} different; most frequent: {top}"
    else:
        values = ""
    missing = 1 - present / records if records else 0.0
    return FeatureRow(split, name, _TYPES.Name(feature.type).lower(), missing, values)
