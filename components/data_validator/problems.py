"""From anomalies and repeated photos to problems, with the action that the policy has for them."""

from collections.abc import Container, Iterator, Mapping, Sequence, Set
from types import MappingProxyType

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from mlplatform.components.data_validator.look_alikes import Group
from mlplatform.components.data_validator.policy import KIND_FOR_LABEL, KIND_OF_ANOMALY, Kind, Policy
from mlplatform.components.data_validator.repetitions import Repeated, Sighting
from mlplatform.components.data_validator.schema import feature_statistics, presence
from mlplatform.components.data_validator.verdict import Offender, Problem
from mlplatform.taxonomy import Taxonomy

_Measurement = anomalies_pb2.DriftSkewInfo.Measurement
_DISTANCES = {
    _Measurement.L_INFTY: "largest difference of a value's share",
    _Measurement.JENSEN_SHANNON_DIVERGENCE: "Jensen-Shannon divergence",
    _Measurement.NORMALIZED_ABSOLUTE_DIFFERENCE: "normalized difference of the numbers of records",
}
_DISTANCE_REASONS = {
    "COMPARATOR_L_INFTY_HIGH",
    "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH",
    "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH",
}


def anomaly_problems(
    anomalies: anomalies_pb2.Anomalies,
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    split: str,
    label_feature: str,
    policy: Policy,
) -> Iterator[Problem]:
    """Yield a problem for each reason of each anomaly of a split.

    A value that is missing also spoils the shape of its feature; that is one problem, not two.
    """
    features, distances = feature_statistics(statistics), _distances(anomalies)
    for name, info in sorted(anomalies.anomaly_info.items()):
        feature = ".".join(info.path.step) or name
        is_label = feature == label_feature
        found = list(_reasons(info, feature, split, policy, is_label=is_label, distances=distances))
        is_missing = any(problem.kind in ("missing_values", "missing_label") for problem in found)
        if is_missing and feature in features and not _has_varying_count(features[feature]):
            found = [problem for problem in found if problem.kind != "shape"]
        yield from found
    if anomalies.HasField("dataset_anomaly_info"):
        yield from _reasons(anomalies.dataset_anomaly_info, "", split, policy)
    if anomalies.data_missing:
        yield _problem("too_few_examples", "", split, "the split has no records", policy)


def undeclared_missing_values(
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList],
    label_feature: str,
    reported: Container[tuple[str, str]],
    policy: Policy,
) -> Iterator[Problem]:
    """Yield a problem for each feature that some records lack, where no curated schema says that they may.

    An inferred schema calls optional what has gaps in the training split, so it never finds them.

    Args:
        statistics: Per split.
        label_feature: The feature that holds the class.
        reported: Split and feature of what the comparison with the schema has found already.
        policy: Says what each problem does.
    """
    held = {split: presence(some) for split, some in statistics.items()}
    features = sorted({name for some in statistics.values() for name in feature_statistics(some)})
    for split, some in statistics.items():
        total = record_count(some)
        for name in features:
            missing = total - held[split].get(name, 0)
            if missing and (split, name) not in reported:
                kind: Kind = "missing_label" if name == label_feature else "missing_values"
                found = _problem(kind, name, split, f"missing in {_share(missing, total)} records", policy)
                # Those without a label are looked for; gaps in other columns are counted alone, which is
                # cheaper: a table with optional columns has them in every run.
                yield found if kind == "missing_label" else found.with_offenders(missing, ())


def comparison_problems(
    anomalies: anomalies_pb2.Anomalies, kind: Kind, split: str, policy: Policy
) -> Iterator[Problem]:
    """Yield a problem for each feature that a comparison found too far away; other anomalies are skipped.

    Args:
        anomalies: What validating with a comparator found.
        kind: What such a distance is: `drift` or `skew`.
        split: The split that was compared.
        policy: Says what the problem does.
    """
    distances = _distances(anomalies)
    for name, info in sorted(anomalies.anomaly_info.items()):
        feature = ".".join(info.path.step) or name
        for problem in _reasons(info, feature, split, policy, distances=distances):
            if problem.kind == "drift":
                yield _problem(kind, feature, split, problem.description, policy)


def skew_problems(
    train: statistics_pb2.DatasetFeatureStatisticsList,
    serving: statistics_pb2.DatasetFeatureStatisticsList,
    damaged: int,
    split: str,
    policy: Policy,
) -> Iterator[Problem]:
    """Yield the problems of the requests themselves: none, of another type, or in damaged files.

    Args:
        train: Statistics of the training split.
        serving: Statistics of what was asked in service.
        damaged: How many log files end before they should.
        split: The training split.
        policy: Says what each problem does.
    """
    asked, trained = feature_statistics(serving), feature_statistics(train)
    if not asked:
        yield _problem("skew", "", split, "the serving logs hold no request that can be compared", policy)
    if damaged:
        text = f"{damaged} files of the serving logs are damaged; what comes before the damage was read"
        yield _problem("skew", "", split, text, policy)
    for name in sorted(set(asked) & set(trained)):
        found, expected = asked[name].WhichOneof("stats"), trained[name].WhichOneof("stats")
        if found != expected:
            text = f"it is {_words(found)} in service and {_words(expected)} here"
            yield _problem("skew", name, split, text, policy)


def presence_skew(
    train: statistics_pb2.DatasetFeatureStatisticsList,
    serving: statistics_pb2.DatasetFeatureStatisticsList,
    expected: Set[str],
    serving_only: Set[str],
    threshold: float,
    split: str,
    policy: Policy,
) -> Iterator[Problem]:
    """Yield a problem for each feature that requests lack or have, other than the training split does.

    Args:
        train: Statistics of the training split.
        serving: Statistics of the requests.
        expected: Features that requests should hold.
        serving_only: Features that requests may hold although the training split does not.
        threshold: Difference of the shares of records that lack a feature, 0 to 1, above which that is skew;
            a feature that one side lacks altogether always is.
        split: The training split.
        policy: Says what each problem does.
    """
    requests, records = record_count(serving), record_count(train)
    if not requests or not records:
        return
    asked, trained = presence(serving), presence(train)
    for name in sorted(expected | (set(asked) - set(trained) - serving_only)):
        served, here = asked.get(name, 0), trained.get(name, 0)
        is_one_sided = (served == 0) != (here == 0) or served == here == 0
        if is_one_sided or abs(served / requests - here / records) > threshold:
            text = (
                f"missing in {_share(requests - served, requests)} requests and "
                f"in {_share(records - here, records)} records here"
            )
            yield _problem("skew", name, split, text, policy)


def untrained_labels(
    labels: Mapping[str, Mapping[str, int]], train_split: str, label_feature: str, policy: Policy
) -> Iterator[Problem]:
    """Yield a problem for each other split that has classes which the training split lacks.

    Args:
        labels: Per split, how many records each class has.
        train_split: The split that is trained on.
        label_feature: The feature that holds the class.
        policy: Says what the problem does.
    """
    trained = labels.get(train_split, {})
    for split, counts in labels.items():
        missing = sorted(set(counts) - set(trained))
        if trained and missing:
            shown = ", ".join(map(repr, missing[:10])) + (" ..." if len(missing) > 10 else "")
            text = f"{len(missing)} of its {len(counts)} classes are not in {train_split!r}: {shown}"
            yield _problem("untrained_label", label_feature, split, text, policy)


def taxonomy_problems(
    labels: Mapping[str, Mapping[str, int]], taxonomy: Taxonomy, label_feature: str, policy: Policy
) -> Iterator[Problem]:
    """Yield the problems of classes that are not as the taxonomy has them, per split.

    Args:
        labels: Per split, how many records each class has.
        taxonomy: The design of the classes.
        label_feature: The feature that holds the class.
        policy: Says what each problem does.
    """
    for split, counts in labels.items():
        retired = {label: taxonomy.retired(label) for label in sorted(counts) if taxonomy.retired(label)}
        unlisted = sorted(set(counts) - set(taxonomy.paths) - set(retired)) if taxonomy.paths else []
        if retired:
            shown = ", ".join(f"{old!r} (now {' or '.join(new)})" for old, new in [*retired.items()][:10])
            more = " ..." if len(retired) > 10 else ""
            records = sum(counts[label] for label in retired)
            text = f"{records} records have a class under a name that was given up: {shown}{more}"
            yield _problem("retired_label", label_feature, split, text, policy)
        if unlisted:
            shown = ", ".join(map(repr, unlisted[:10])) + (" ..." if len(unlisted) > 10 else "")
            text = f"{len(unlisted)} of its {len(counts)} classes are not in the taxonomy's tree: {shown}"
            yield _problem("unlisted_label", label_feature, split, text, policy)


def repetition_problems(
    counts: Mapping[str, int],
    samples: Sequence[Repeated],
    splits: Sequence[str],
    image_feature: str,
    id_feature: str,
    policy: Policy,
) -> Iterator[Problem]:
    """Yield the problems of photos and keys that occur more than once.

    Args:
        counts: `leaks`, `key_leaks`, `conflicts` and `within`.
        samples: Some of the photos and keys.
        splits: All splits.
        image_feature: The feature that holds the photo.
        id_feature: The feature that holds the key.
        policy: Says what each problem does.
    """
    photos = [one for one in samples if one.what == "photo"]
    leaks = [photo.leak_shown() for photo in photos if photo.is_leak]
    key_leaks = [one.leak_shown() for one in samples if one.what == "key" and one.is_leak]
    conflicts = [photo.conflict_shown() for photo in photos if photo.is_conflict]
    copies = [photo.copy_shown() for photo in photos if photo.copies_within]
    faults: list[tuple[Kind, str, str, str, list[list[Sighting]]]] = [
        ("leak", image_feature, "leaks", "photos are, byte by byte, in several splits", leaks),
        ("leak", id_feature, "key_leaks", "keys are in several splits", key_leaks),
        ("label_conflict", image_feature, "conflicts", "photos have several labels", conflicts),
        ("duplicate", image_feature, "within", "records repeat a photo of their own split", copies),
    ]
    for kind, feature, name, text, shown in faults:
        if counts.get(name, 0):
            found = _problem(kind, feature, ", ".join(splits), f"{counts[name]} {text}", policy)
            yield found.with_offenders(None, _offenders(shown))


def look_alike_problems(
    groups: Sequence[Group], splits: Sequence[str], image_feature: str, policy: Policy
) -> Iterator[Problem]:
    """Yield the problems of photos that look alike without being the same byte by byte.

    Args:
        groups: All groups of them.
        splits: All splits.
        image_feature: The feature that holds the photo.
        policy: Says what each problem does.
    """
    leaks = [group.leak_shown() for group in groups if group.is_leak]
    within = [group.within_shown() for group in groups if group.is_within]
    faults: list[tuple[Kind, str, list[list[Sighting]]]] = [
        ("near_leak", "groups of photos that look alike are in several splits", leaks),
        ("near_duplicate", "groups of photos that look alike are in one split", within),
    ]
    for kind, text, shown in faults:
        if shown:
            found = _problem(kind, image_feature, ", ".join(splits), f"{len(shown)} {text}", policy)
            yield found.with_offenders(None, _offenders(shown))


def _offenders(shown: Sequence[Sequence[Sighting]]) -> list[Offender]:
    return [
        Offender(s.split, s.item_id, s.label, f"{s.split}: {s.label}" if s.label else s.split)
        for pair in shown[:6]  # two records each: as many as are shown
        for s in pair
    ]


def record_count(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> int:
    """Return how many records statistics are of."""
    return int(statistics.datasets[0].num_examples) if statistics.datasets else 0


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)"


def _words(kind: str | None) -> str:
    return {"num_stats": "a number", "string_stats": "text", "bytes_stats": "bytes"}.get(
        kind or "", "nothing"
    )


def _has_varying_count(feature: statistics_pb2.FeatureNameStatistics) -> bool:
    """Say whether records that have the feature have different numbers of its values."""
    kind = feature.WhichOneof("stats")
    common = getattr(feature, kind).common_stats if kind else None
    return common is not None and common.min_num_values != common.max_num_values


def _distances(anomalies: anomalies_pb2.Anomalies) -> dict[str, str]:
    """Return, per feature that was compared, how far it is away and how far it may be."""
    found = {}
    for info in anomalies.drift_skew_info:
        name = ".".join(info.path.step)
        for measured in (*info.drift_measurements, *info.skew_measurements):
            kind = _DISTANCES.get(measured.type)
            if kind and measured.value > measured.threshold:
                found[name] = f"the {kind} is {measured.value:.2g}; at most {measured.threshold:g} is allowed"
    return found


def _reasons(
    info: anomalies_pb2.AnomalyInfo,
    feature: str,
    split: str,
    policy: Policy,
    *,
    is_label: bool = False,
    distances: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Problem]:
    for reason in info.reason:
        name = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
        kind = KIND_OF_ANOMALY.get(name, "other")
        if is_label:
            kind = KIND_FOR_LABEL.get(kind, kind)
        text = reason.description or reason.short_description or name
        if name in _DISTANCE_REASONS:
            text = distances.get(feature, text)
        yield _problem(kind, feature, split, " ".join(text.split()), policy)


def _problem(kind: Kind, feature: str, split: str, text: str, policy: Policy) -> Problem:
    return Problem(kind, feature, split, policy.action(kind, feature), text)
