"""The data gate's work: look at the data, compare it with its schema, say what is wrong and where."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import apache_beam as beam
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx_bsl.tfxio import tf_example_record

from mlplatform.beam.accounting import WriteCounts, read_counts
from mlplatform.beam.gathered import WriteGathered, read_gathered
from mlplatform.components.data_validator import photos, problems
from mlplatform.components.data_validator import schema as schemas
from mlplatform.components.data_validator.errors import NoTrainSplitError
from mlplatform.components.data_validator.offenders import (
    SHOWN,
    FindOffenders,
    KeepSome,
    concerns_records,
    with_found,
)
from mlplatform.components.data_validator.policy import Policy
from mlplatform.components.data_validator.verdict import Problem, Verdict

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
MakePipeline = Callable[[], beam.Pipeline]
_HISTOGRAM_BUCKETS = (
    10_000  # values of a text feature that are compared with its domain, the most frequent first
)
_TELEMETRY = ["mlplatform", "DataValidator"]


@dataclass(frozen=True)
class Data:
    """Examples and the names of what they hold.

    Attributes:
        files: Per split, the patterns of its TFRecord files.
        image_feature: The feature that holds an encoded photo; records need not have it.
        label_feature: The feature that holds the class.
        id_feature: The feature that names the record.
    """

    files: Mapping[str, Sequence[str]]
    image_feature: str = "image/encoded"
    label_feature: str = "label"
    id_feature: str = "item_id"


@dataclass(frozen=True)
class Validated:
    """What the gate learned.

    Attributes:
        statistics: Per split.
        schema: What the data was compared with.
        anomalies: Per split, as TensorFlow Data Validation reports them.
        labels: Per split, how many records each class has, the largest first.
        verdict: The decision and its grounds.
    """

    statistics: Mapping[str, Statistics]
    schema: schema_pb2.Schema
    anomalies: Mapping[str, anomalies_pb2.Anomalies]
    labels: Mapping[str, Mapping[str, int]]
    verdict: Verdict


def validate(
    data: Data,
    make_pipeline: MakePipeline,
    work_dir: str,
    *,
    schema: schema_pb2.Schema | None = None,
    schema_source: str = "inferred",
    baseline: Statistics | None = None,
    policy: Policy | None = None,
    train_split: str = "train",
    drift_threshold: float = 0.1,
) -> Validated:
    """Validate Examples.

    Args:
        data: What to look at.
        make_pipeline: Gives an empty Beam pipeline; called once, and once more when records have problems.
        work_dir: Folder for what Beam brings back; the caller removes it.
        schema: What the data must fit; None infers it from the training split.
        schema_source: What to call the schema in the verdict.
        baseline: Statistics that the training split is compared with, for drift.
        policy: What each kind of problem does.
        train_split: The split that is trained on.
        drift_threshold: Jensen-Shannon divergence above which a feature has drifted, where the schema does
            not say so itself.

    Raises:
        NoTrainSplitError: The schema is to be inferred, and there is no training split.
    """
    policy = policy or Policy()
    if schema is None and train_split not in data.files:
        raise NoTrainSplitError(train_split, list(data.files))
    statistics, repeated, counts = _gather(data, make_pipeline, work_dir, schema)
    if schema is None:
        schema = schemas.infer_schema(statistics, train_split, data.image_feature, data.label_feature)
    anomalies = {
        split: _anomalies(found, schema, baseline if split == train_split else None, drift_threshold)
        for split, found in statistics.items()
    }
    labels = {split: schemas.value_counts(found, data.label_feature) for split, found in statistics.items()}
    found = [
        *(
            p
            for split, some in anomalies.items()
            for p in problems.anomaly_problems(some, statistics[split], split, data.label_feature, policy)
        ),
        *problems.untrained_labels(labels, train_split, data.label_feature, policy),
        *problems.photo_problems(counts, repeated, list(data.files), data.image_feature, policy),
    ]
    found = [problem for problem in found if problem.action != "ignore"]
    found = _with_offenders(found, data, make_pipeline, work_dir, schema)
    found.sort(key=lambda problem: problem.action != "block")
    records = {
        split: int(some.datasets[0].num_examples) if some.datasets else 0
        for split, some in statistics.items()
    }
    return Validated(
        statistics, schema, anomalies, labels, Verdict(schema_source, records, tuple(found), counts)
    )


def _gather(
    data: Data, make_pipeline: MakePipeline, work_dir: str, schema: schema_pb2.Schema | None
) -> tuple[dict[str, Statistics], list[photos.Repeated], dict[str, int]]:
    """Read the data once: statistics of each split, and photos that occur more than once."""
    options = tfdv.StatsOptions(
        schema=schemas.with_image_domain(schema or schema_pb2.Schema(), data.image_feature),
        num_rank_histogram_buckets=_HISTOGRAM_BUCKETS,
    )
    samples_file, counts_file = posixpath.join(work_dir, "repeated"), posixpath.join(work_dir, "counts.json")
    with make_pipeline() as pipeline:
        seen = []
        for split in data.files:
            batches = pipeline | f"Read[{split}]" >> _source(data, split).BeamSource()
            _ = (
                batches
                | f"Statistics[{split}]" >> tfdv.GenerateStatistics(options)
                | f"WriteStatistics[{split}]"
                >> tfdv.WriteStatisticsToBinaryFile(_statistics_file(work_dir, split))
            )
            names = (split, data.image_feature, data.id_feature, data.label_feature)
            seen.append(batches | f"Photos[{split}]" >> beam.FlatMap(photos.sightings, *names))
        repeated = seen | "AllPhotos" >> beam.Flatten() | "RepeatedPhotos" >> photos.Repetitions()
        _ = {
            "leaks": repeated | "Leaks" >> beam.Map(lambda photo: int(photo.is_leak)),
            "conflicts": repeated | "Conflicts" >> beam.Map(lambda photo: int(photo.is_conflict)),
            "within": repeated | "Within" >> beam.Map(lambda photo: photo.copies_within),
        } | "CountRepeated" >> WriteCounts(counts_file)
        _ = (
            repeated
            | "SampleRepeated" >> photos.Samples(SHOWN)
            | "KeepRepeated" >> WriteGathered(samples_file)
        )
    statistics = {split: tfdv.load_stats_binary(_statistics_file(work_dir, split)) for split in data.files}
    samples = sorted(set(read_gathered(samples_file)), key=lambda photo: photo.sightings)
    return statistics, samples, read_counts(counts_file)


def _anomalies(
    statistics: Statistics, schema: schema_pb2.Schema, baseline: Statistics | None, drift_threshold: float
) -> anomalies_pb2.Anomalies:
    if baseline is None:
        return tfdv.validate_statistics(statistics, schema)
    compared = schemas.with_drift_comparators(schema, statistics, drift_threshold)
    return tfdv.validate_statistics(statistics, compared, previous_statistics=baseline)


def _with_offenders(
    found: list[Problem], data: Data, make_pipeline: MakePipeline, work_dir: str, schema: schema_pb2.Schema
) -> list[Problem]:
    """Read the data again, and give each problem of single records some of them."""
    numbered = [(number, problem) for number, problem in enumerate(found) if concerns_records(problem)]
    if not numbered:
        return found
    file = posixpath.join(work_dir, "offenders")
    with make_pipeline() as pipeline:
        offenders = []
        for split in data.files:
            look = FindOffenders(
                split, numbered, schema, data.image_feature, data.id_feature, data.label_feature
            )
            records = pipeline | f"ReadAgain[{split}]" >> _source(data, split).RawRecordBeamSource()
            offenders.append(records | f"Offenders[{split}]" >> beam.ParDo(look))
        _ = offenders | beam.Flatten() | KeepSome() | WriteGathered(file)
    kept = dict(read_gathered(file))
    return [
        with_found(problem, *kept[number]) if number in kept else problem
        for number, problem in enumerate(found)
    ]


def _source(data: Data, split: str) -> tf_example_record.TFExampleRecord:
    return tf_example_record.TFExampleRecord(list(data.files[split]), telemetry_descriptors=_TELEMETRY)


def _statistics_file(work_dir: str, split: str) -> str:
    return posixpath.join(work_dir, f"statistics-{split}.pb")
