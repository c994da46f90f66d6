"""The data gate's work: look at the data, compare it with its schema, say what is wrong and where."""

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import apache_beam as beam
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx_bsl.tfxio import tf_example_record

from mlplatform.beam.accounting import WriteCounts, read_counts
from mlplatform.beam.gathered import WriteGathered, read_gathered
from mlplatform.components.data_validator import problems, repetitions
from mlplatform.components.data_validator import schema as schemas
from mlplatform.components.data_validator.baseline import Baseline
from mlplatform.components.data_validator.brightness import brightness_schema, separated, with_brightness
from mlplatform.components.data_validator.constants import with_wide_constants
from mlplatform.components.data_validator.errors import NoTrainSplitError
from mlplatform.components.data_validator.look_alikes import Group, groups_of, looks
from mlplatform.components.data_validator.missing import may_be_empty, with_missing
from mlplatform.components.data_validator.offenders import (
    SHOWN,
    FindOffenders,
    KeepSome,
    concerns_records,
    with_found,
)
from mlplatform.components.data_validator.policy import Kind, Policy
from mlplatform.components.data_validator.serving_logs import DAMAGED, UNREAD, ReadRequests
from mlplatform.components.data_validator.verdict import Problem, Verdict
from mlplatform.taxonomy import Taxonomy

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
MakePipeline = Callable[[], beam.Pipeline]
_HISTOGRAM_BUCKETS = (
    10_000  # values of a text feature that are compared with its domain, the most frequent first
)
_SERVING = "serving"
_ABOUT_MISSING = ("missing_values", "missing_label", "missing_column")
_ABOUT_LOOKS: tuple[Kind, ...] = ("near_leak", "near_duplicate")
_TELEMETRY = ["mlplatform", "DataValidator"]


@dataclass(frozen=True)
class Data:
    """Examples and the names of what they hold.

    Attributes:
        files: Per split, the patterns of its TFRecord files.
        image_feature: The feature that holds an encoded photo; records need not have it.
        label_feature: The feature that holds the class.
        id_feature: The feature that names the record.
        serving_logs: Files of a request log, of what the model is asked in service; none where there is none.
        serving_features: What a request must hold; None: every feature of the training split that the schema
            has in the environment `SERVING`, but not the label, the id, and what describes the photo.
    """

    files: Mapping[str, Sequence[str]]
    image_feature: str = "image/encoded"
    label_feature: str = "label"
    id_feature: str = "item_id"
    serving_logs: Sequence[str] = ()
    serving_features: Sequence[str] | None = None


@dataclass(frozen=True)
class Validated:
    """What the gate learned.

    Attributes:
        statistics: Per split.
        brightness: Per split, statistics of the brightness and contrast of its photos.
        schema: What the data was compared with.
        anomalies: Per split, as TensorFlow Data Validation reports them.
        labels: Per split, how many records each class has, the largest first.
        verdict: The decision and its grounds.
        train_split: The split that was compared.
        baseline: What it was compared with for drift; None for nothing.
        served: Statistics of the requests that it was compared with, and of their photos' brightness.
    """

    statistics: Mapping[str, Statistics]
    brightness: Mapping[str, Statistics]
    schema: schema_pb2.Schema
    anomalies: Mapping[str, anomalies_pb2.Anomalies]
    labels: Mapping[str, Mapping[str, int]]
    verdict: Verdict
    train_split: str
    baseline: Baseline | None
    served: tuple[Statistics, Statistics]


def validate(
    data: Data,
    make_pipeline: MakePipeline,
    work_dir: str,
    *,
    schema: schema_pb2.Schema | None = None,
    schema_source: str = "inferred",
    baseline: Baseline | None = None,
    policy: Policy | None = None,
    train_split: str = "train",
    drift_threshold: float = 0.1,
    taxonomy: Taxonomy | None = None,
) -> Validated:
    """Validate Examples.

    Args:
        data: What to look at.
        make_pipeline: Gives an empty Beam pipeline; called once, and once more when records have problems.
        work_dir: Folder for what Beam brings back; the caller removes it.
        schema: What the data must fit; None infers it from the training split.
        schema_source: What to call the schema in the verdict.
        baseline: Good data that the training split is compared with, for drift.
        policy: What each kind of problem does; each of its waivers counts.
        train_split: The split that is trained on.
        drift_threshold: Jensen-Shannon divergence above which a feature has drifted, or is skewed in service,
            where the schema does not say so itself.
        taxonomy: The design of the classes.

    Raises:
        NoTrainSplitError: The schema is to be inferred, and there is no training split.
    """
    policy = policy or Policy()
    if train_split not in data.files and (schema is None or data.serving_logs):
        raise NoTrainSplitError(train_split, list(data.files))
    compares_looks = any(policy.action(kind, data.image_feature) != "ignore" for kind in _ABOUT_LOOKS)
    gathered = _gather(data, make_pipeline, work_dir, schema, compares_looks=compares_looks)
    statistics = gathered.statistics
    is_inferred = schema is None
    if schema is None:
        schema = schemas.infer_schema(statistics, train_split, data.image_feature, data.label_feature)
    anomalies = {
        split: _anomalies(some, schema, baseline if split == train_split else None, drift_threshold)
        for split, some in statistics.items()
    }
    labels = {split: schemas.value_counts(some, data.label_feature) for split, some in statistics.items()}
    found = [
        *(
            p
            for split, some in anomalies.items()
            for p in problems.anomaly_problems(some, statistics[split], split, data.label_feature, policy)
        ),
        *problems.untrained_labels(labels, train_split, data.label_feature, policy),
        *(problems.taxonomy_problems(labels, taxonomy, data.label_feature, policy) if taxonomy else ()),
        *problems.repetition_problems(
            gathered.counts,
            gathered.repeated,
            list(data.files),
            data.image_feature,
            data.id_feature,
            policy,
        ),
        *problems.look_alike_problems(gathered.look_alikes, list(data.files), data.image_feature, policy),
    ]
    if is_inferred:
        reported = {(p.split, p.feature) for p in found if p.kind in _ABOUT_MISSING}
        found += problems.undeclared_missing_values(statistics, data.label_feature, reported, policy)
    if baseline is not None and train_split in statistics:
        found += _brightness_drift(gathered, baseline, data, drift_threshold, train_split, policy)
    if data.serving_logs:
        found += _skew(gathered, schema, data, drift_threshold, train_split, policy)
    found = [_waived(problem, policy) for problem in found if problem.action != "ignore"]
    found = _with_offenders(found, data, make_pipeline, work_dir, schema)
    found.sort(key=lambda problem: problem.action != "block")
    verdict = Verdict(
        schema_source,
        {split: problems.record_count(some) for split, some in statistics.items()},
        tuple(found),
        baseline=baseline.name if baseline else "",
        serving_records=problems.record_count(gathered.served) if data.serving_logs else None,
        duplicates={name: count for name, count in _duplicates(gathered).items() if count},
        waivers=tuple(policy.waivers),
    )
    return Validated(
        statistics,
        gathered.brightness,
        schema,
        anomalies,
        labels,
        verdict,
        train_split,
        baseline,
        (gathered.served, gathered.served_brightness),
    )


def _waived(problem: Problem, policy: Policy) -> Problem:
    """Return a problem that warns where it would block and somebody waived it."""
    waiver = policy.waiver(problem.kind, problem.feature, problem.split)
    is_waived = problem.action == "block" and waiver is not None
    return replace(problem, action="warn", waiver=waiver) if is_waived else problem


def measure(
    data: Data, make_pipeline: MakePipeline, work_dir: str
) -> Mapping[str, tuple[Statistics, Statistics]]:
    """Return, per split, the statistics of its records and those of its photos' brightness."""
    gathered = _gather(data, make_pipeline, work_dir, None)
    return {split: (some, gathered.brightness[split]) for split, some in gathered.statistics.items()}


def _duplicates(gathered: "_Gathered") -> dict[str, int]:
    counts = {name: count for name, count in gathered.counts.items() if name != DAMAGED}
    counts["near_leaks"] = sum(group.is_leak for group in gathered.look_alikes)
    counts["near_within"] = sum(group.is_within for group in gathered.look_alikes)
    return counts


@dataclass(frozen=True)
class _Gathered:
    """What one pass over the data brings.

    Attributes:
        statistics: Per split, of the records.
        brightness: Per split, of the brightness and contrast of their photos.
        served: Of the records of the serving logs; empty without logs.
        served_brightness: Of the brightness and contrast of their photos.
        repeated: Some of the photos and keys that occur more than once.
        counts: How many are `leaks`, `key_leaks`, `conflicts` and `within`, and `damaged` log files.
        unread: Inputs of requests that are too large to be a feature, such as pixels.
        look_alikes: Groups of photos that look alike; none where they were not compared.
    """

    statistics: dict[str, Statistics]
    brightness: dict[str, Statistics]
    served: Statistics
    served_brightness: Statistics
    repeated: list[repetitions.Repeated]
    counts: dict[str, int]
    unread: frozenset[str]
    look_alikes: list[Group]


def _gather(
    data: Data,
    make_pipeline: MakePipeline,
    work_dir: str,
    schema: schema_pb2.Schema | None,
    *,
    compares_looks: bool = False,
) -> _Gathered:
    """Read the data once."""
    options = tfdv.StatsOptions(
        schema=schemas.with_image_domain(schema or schema_pb2.Schema(), data.image_feature),
        num_rank_histogram_buckets=_HISTOGRAM_BUCKETS,
    )
    samples_file, counts_file = posixpath.join(work_dir, "repeated"), posixpath.join(work_dir, "counts.json")
    unread_file, looks_file = posixpath.join(work_dir, "unread"), posixpath.join(work_dir, "looks")
    empty_features = may_be_empty(schema or schema_pb2.Schema())

    def measured(batches: beam.PCollection, name: str) -> None:
        """Write the statistics of batches, with the brightness and contrast of their photos."""
        _ = (
            batches
            | f"Missing[{name}]" >> beam.Map(with_missing, empty_features)
            | f"Brightness[{name}]" >> beam.Map(with_brightness, data.image_feature)
            | f"Statistics[{name}]" >> tfdv.GenerateStatistics(options)
            | f"WriteStatistics[{name}]" >> tfdv.WriteStatisticsToBinaryFile(_statistics_file(work_dir, name))
        )

    with make_pipeline() as pipeline:
        seen, looked = [], []
        for split in data.files:
            batches = pipeline | f"Read[{split}]" >> _source(data, split).BeamSource()
            measured(batches, f"split-{split}")
            names = (split, data.image_feature, data.id_feature, data.label_feature)
            seen.append(batches | f"Sightings[{split}]" >> beam.FlatMap(repetitions.sightings, *names))
            if compares_looks:
                looked.append(batches | f"Looks[{split}]" >> beam.FlatMap(looks, *names))
        if compares_looks:
            _ = looked | "AllLooks" >> beam.Flatten() | "KeepLooks" >> WriteGathered(looks_file)
        repeated = seen | "AllSightings" >> beam.Flatten() | "Repeated" >> repetitions.Repetitions()
        counts = {
            fault: repeated | f"Count[{fault}]" >> beam.Map(repetitions.fault_count, fault)
            for fault in repetitions.FAULTS
        }
        if data.serving_logs:
            requests = (
                pipeline
                | "ServingLogs" >> beam.Create(list(data.serving_logs))
                | "ReadRequests"
                >> beam.ParDo(ReadRequests(data.image_feature)).with_outputs(DAMAGED, UNREAD, main="examples")
            )
            as_batches = tf_example_record.TFExampleBeamRecord("prediction_log", _TELEMETRY).BeamSource()
            asked = requests["examples"] | "Typed" >> beam.Map(bytes).with_output_types(bytes)
            measured(asked | "RequestBatches" >> as_batches, _SERVING)
            counts[DAMAGED] = requests[DAMAGED]
            _ = (
                requests[UNREAD]
                | "UnreadNames" >> beam.Distinct()
                | "KeepUnread" >> WriteGathered(unread_file)
            )
        _ = counts | "Count" >> WriteCounts(counts_file)
        _ = (
            repeated
            | "SampleRepeated" >> repetitions.Samples(SHOWN)
            | "KeepRepeated" >> WriteGathered(samples_file)
        )

    def read(name: str) -> tuple[Statistics, Statistics]:
        return separated(tfdv.load_stats_binary(_statistics_file(work_dir, name)), data.image_feature)

    by_split = {split: read(f"split-{split}") for split in data.files}
    served, served_brightness = read(_SERVING) if data.serving_logs else (Statistics(), Statistics())
    chosen = {(one.what, one.digest): one for one in read_gathered(samples_file)}
    samples = sorted(chosen.values(), key=lambda one: (one.what, one.sightings))
    return _Gathered(
        {split: some for split, (some, _) in by_split.items()},
        {split: brightness for split, (_, brightness) in by_split.items()},
        served,
        served_brightness,
        samples,
        read_counts(counts_file),
        frozenset(read_gathered(unread_file)) if data.serving_logs else frozenset(),
        groups_of(read_gathered(looks_file)) if compares_looks else [],
    )


def _expected_in_requests(
    data: Data, schema: schema_pb2.Schema, train: Statistics, unread: frozenset[str]
) -> set[str]:
    """Return the features that every request should hold.

    What was asked as pixels or as an embedding is there, although no statistics are made of it; and where
    there is such an input of another name, it may be the photo.
    """
    if data.serving_features is not None:
        expected = set(data.serving_features)
    else:
        folder, slash, _ = data.image_feature.rpartition("/")
        described = {name for name in schemas.presence(train) if slash and name.startswith(folder + slash)}
        expected = schemas.served_features(schema, schemas.presence(train))
        expected -= {data.label_feature, data.id_feature} | (described - {data.image_feature})
    return expected - unread - ({data.image_feature} if unread else set())


def _anomalies(
    statistics: Statistics, schema: schema_pb2.Schema, baseline: Baseline | None, drift_threshold: float
) -> anomalies_pb2.Anomalies:
    if baseline is None:
        return tfdv.validate_statistics(statistics, schema, schemas.training_environment(schema))
    compared = schemas.with_comparators(
        schema, [statistics, baseline.statistics], drift_threshold, comparator="drift_comparator"
    )
    return _compare(statistics, compared, previous_statistics=baseline.statistics)


def _brightness_drift(
    gathered: _Gathered, baseline: Baseline, data: Data, threshold: float, train_split: str, policy: Policy
) -> Iterator[Problem]:
    """Yield the problems of photos that are darker, brighter, flatter or harsher than the baseline's."""
    if baseline.brightness is not None and _has_features(baseline.brightness):
        wanted = brightness_schema(data.image_feature, threshold)
        here = gathered.brightness[train_split]
        moved = _compare(here, wanted, previous_statistics=baseline.brightness)
        yield from problems.comparison_problems(moved, "drift", train_split, policy)


def _skew(
    gathered: _Gathered,
    schema: schema_pb2.Schema,
    data: Data,
    threshold: float,
    train_split: str,
    policy: Policy,
) -> Iterator[Problem]:
    """Yield the problems of what the model is asked in service and differs from the training split."""
    train, served = gathered.statistics[train_split], gathered.served
    compared = schemas.with_comparators(schema, [train, served], threshold, comparator="skew_comparator")
    of_photos = brightness_schema(data.image_feature, threshold)
    for here, wanted, there in (
        (train, compared, served),
        (gathered.brightness[train_split], of_photos, gathered.served_brightness),
    ):
        if _has_features(there):
            skewed = _compare(here, wanted, serving_statistics=there)
            yield from problems.comparison_problems(skewed, "skew", train_split, policy)
    damaged = gathered.counts.get(DAMAGED, 0)
    yield from problems.skew_problems(train, served, damaged, train_split, policy)
    expected = _expected_in_requests(data, schema, train, gathered.unread)
    serving_only = schemas.serving_only_features(schema) | {data.label_feature, data.id_feature}
    yield from problems.presence_skew(train, served, expected, serving_only, threshold, train_split, policy)


def _compare(
    statistics: Statistics,
    schema: schema_pb2.Schema,
    **other: Statistics,  # previous_statistics or serving_statistics
) -> anomalies_pb2.Anomalies:
    """Validate, and compare with other statistics."""
    ((name, there),) = other.items()
    here = with_wide_constants(statistics, there)
    return tfdv.validate_statistics(
        here, schema, schemas.training_environment(schema), **{name: with_wide_constants(there, statistics)}
    )


def _has_features(statistics: Statistics) -> bool:
    return bool(schemas.feature_statistics(statistics))


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


def _statistics_file(work_dir: str, name: str) -> str:
    return posixpath.join(work_dir, f"statistics-{name}.pb")
