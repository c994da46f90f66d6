"""From anomalies and repeated photos to problems, with the action that the policy has for them."""

from collections.abc import Iterator, Mapping, Sequence

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from mlplatform.components.data_validator.photos import Repeated
from mlplatform.components.data_validator.policy import KIND_FOR_LABEL, KIND_OF_ANOMALY, Kind, Policy
from mlplatform.components.data_validator.schema import feature_statistics
from mlplatform.components.data_validator.verdict import Offender, Problem


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
    features = feature_statistics(statistics)
    for name, info in sorted(anomalies.anomaly_info.items()):
        feature = ".".join(info.path.step) or name
        found = list(_reasons(info, feature, split, policy, is_label=feature == label_feature))
        is_missing = any(problem.kind in ("missing_values", "missing_label") for problem in found)
        if is_missing and feature in features and not _has_varying_count(features[feature]):
            found = [problem for problem in found if problem.kind != "shape"]
        yield from found
    if anomalies.HasField("dataset_anomaly_info"):
        yield from _reasons(anomalies.dataset_anomaly_info, "", split, policy)
    if anomalies.data_missing:
        yield _problem("too_few_examples", "", split, "the split has no records", policy)


def comparison_problems(
    anomalies: anomalies_pb2.Anomalies, kind: Kind, split: str, policy: Policy
) -> Iterator[Problem]:
    """Yield a problem for each feature that a comparison found too far away; other anomalies are passed over.

    Args:
        anomalies: What validating with a comparator found.
        kind: What such a distance is: `drift` or `skew`.
        split: The split that was compared.
        policy: Says what the problem does.
    """
    for name, info in sorted(anomalies.anomaly_info.items()):
        for problem in _reasons(info, ".".join(info.path.step) or name, split, policy):
            if problem.kind == "drift":
                yield _problem(kind, problem.feature, split, problem.description, policy)


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


def photo_problems(
    counts: Mapping[str, int],
    samples: Sequence[Repeated],
    splits: Sequence[str],
    image_feature: str,
    policy: Policy,
) -> Iterator[Problem]:
    """Yield the problems of photos that occur more than once.

    Args:
        counts: `leaks`, `conflicts` and `within`.
        samples: Some of the photos.
        splits: All splits.
        image_feature: The feature that holds the photo.
        policy: Says what each problem does.
    """
    everywhere = ", ".join(splits)
    texts: dict[Kind, tuple[int, str, list[Repeated]]] = {
        "leak": (
            counts.get("leaks", 0),
            "photos are, byte by byte, in several splits",
            [photo for photo in samples if photo.is_leak],
        ),
        "label_conflict": (
            counts.get("conflicts", 0),
            "photos have several labels",
            [photo for photo in samples if photo.is_conflict],
        ),
        "duplicate": (
            counts.get("within", 0),
            "records repeat a photo of their own split",
            [photo for photo in samples if photo.copies_within],
        ),
    }
    for kind, (count, text, photos) in texts.items():
        if count:
            offenders = [
                Offender(s.split, s.item_id, s.label, f"{s.split}: {s.label}" if s.label else s.split)
                for photo in photos[:6]  # two records each: as many as are shown
                for s in photo.sightings[:2]
            ]
            found = _problem(kind, image_feature, everywhere, f"{count} {text}", policy)
            yield found.with_offenders(None, offenders)


def _words(kind: str | None) -> str:
    return {"num_stats": "a number", "string_stats": "text", "bytes_stats": "bytes"}.get(
        kind or "", "nothing"
    )


def _has_varying_count(feature: statistics_pb2.FeatureNameStatistics) -> bool:
    """Say whether records that have the feature have different numbers of its values."""
    kind = feature.WhichOneof("stats")
    common = getattr(feature, kind).common_stats if kind else None
    return common is not None and common.min_num_values != common.max_num_values


def _reasons(
    info: anomalies_pb2.AnomalyInfo, feature: str, split: str, policy: Policy, *, is_label: bool = False
) -> Iterator[Problem]:
    for reason in info.reason:
        name = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
        kind = KIND_OF_ANOMALY.get(name, "other")
        if is_label:
            kind = KIND_FOR_LABEL.get(kind, kind)
        text = reason.description or reason.short_description or name
        yield _problem(kind, feature, split, " ".join(text.split()), policy)


def _problem(kind: Kind, feature: str, split: str, text: str, policy: Policy) -> Problem:
    return Problem(kind, feature, split, policy.action(kind, feature), text)
