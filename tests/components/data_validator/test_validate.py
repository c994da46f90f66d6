"""What the gate finds in data, and what it does about it."""

from collections.abc import Callable
from typing import Any

import pytest

from mlplatform.components.data_validator.baseline import Baseline
from mlplatform.components.data_validator.policy import KIND_OF_ANOMALY, KINDS, Policy
from mlplatform.components.data_validator.problems import taxonomy_problems
from mlplatform.config import ConfigError, parse_config
from mlplatform.taxonomy import Taxonomy

Gate = Callable[..., Any]
Shop = Callable[..., dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def usual(shop: Shop, gate: Gate) -> Any:
    """The gate's findings on good data; what other data is compared with."""
    return gate(shop())


def found(verdict: Any) -> dict[tuple[str, str, str], Any]:
    """Problems by kind, feature and split."""
    return {(p.kind, p.feature, p.split): p for p in verdict.problems}


def test_good_data_is_accepted_and_described(usual: Any) -> None:
    done = usual
    assert done.verdict.problems == ()
    assert done.verdict.accepted
    assert done.verdict.records == {"train": 30, "eval": 12}
    assert done.labels["train"] == {"hat": 10, "shoe": 10, "bag": 10}
    features = {feature.name: feature for feature in done.schema.feature}
    assert list(features["label"].string_domain.value) == ["bag", "hat", "shoe"]
    assert features["color"].domain == "color"
    assert features["item_id"].WhichOneof("domain_info") is None, "an id is no category"
    assert features["image/encoded"].WhichOneof("domain_info") == "image_domain"
    statistics = done.statistics["train"]
    assert statistics.ByteSize() < 20_000, "photos are not in the statistics"
    (image,) = [f for f in statistics.datasets[0].features if f.path.step[0] == "image/encoded"]
    assert image.bytes_stats.min_num_bytes > 100
    assert done.anomalies.keys() == {"train", "eval"}


def test_an_unknown_class_blocks_and_its_records_are_shown(shop: Shop, gate: Gate, usual: Any) -> None:
    schema = usual.schema
    data = shop()
    for record in data["train"][:4]:
        record["label"] = "submarine"
    done = gate({"train": data["train"]}, schema=schema, schema_source="shop.pbtxt")
    assert not done.verdict.accepted
    problem = found(done.verdict)["unknown_label", "label", "train"]
    assert problem.action == "block"
    assert "submarine" in problem.description
    assert problem.records == 4
    assert [(o.item_id, o.label, o.value) for o in problem.offenders] == [
        (f"item-{n:02d}", "submarine", "submarine") for n in range(4)
    ]
    assert all(o.thumbnail.startswith(b"\xff\xd8") for o in problem.offenders)
    assert "item-00 (submarine)" in str(problem)


def test_each_fault_of_a_record_is_its_own_kind_of_problem(shop: Shop, gate: Gate, usual: Any) -> None:
    schema = usual.schema
    schema = type(schema).FromString(schema.SerializeToString())
    features = {feature.name: feature for feature in schema.feature}
    features["price"].float_domain.min, features["price"].float_domain.max = 0.0, 100.0
    data = shop()
    evaluation = data["eval"]
    evaluation[0]["price"] = -3.0
    evaluation[1]["color"] = "ultraviolet"
    evaluation[2]["label"] = None
    evaluation[3]["item_id"] = ["item-33", "item-34"]
    evaluation[4]["weight"] = 7
    for record in data["train"]:
        record["image/width"] = "wide"
        record["image/format"] = None
    done = gate(data, schema=schema)
    problems = found(done.verdict)
    assert {key: problem.action for key, problem in problems.items()} == {
        ("out_of_range", "price", "eval"): "block",
        ("unknown_value", "color", "eval"): "warn",
        ("missing_label", "label", "eval"): "block",
        ("shape", "item_id", "eval"): "block",
        ("new_column", "weight", "eval"): "warn",
        ("type_change", "image/width", "train"): "block",
        ("missing_column", "image/format", "train"): "block",
    }
    shown = {key[1]: [(o.item_id, o.value) for o in problem.offenders] for key, problem in problems.items()}
    assert shown["price"] == [("item-30", "-3.0")]
    assert shown["color"] == [("item-31", "ultraviolet")]
    assert shown["label"] == [("item-32", "missing")]
    assert shown["item_id"] == [("item-33", "2 values")]
    assert shown["weight"] == [("item-34", "7")]
    assert shown["image/width"][0] == ("item-00", "wide")
    assert problems["type_change", "image/width", "train"].records == 30
    assert [p.action for p in done.verdict.problems] == ["block"] * 5 + ["warn"] * 2
    assert len(done.verdict.blocking) == 5


def test_the_policy_decides(shop: Shop, gate: Gate, usual: Any) -> None:
    policy = Policy(new_column="ignore", features={"color": {"unknown_value": "block"}})
    data = {"eval": shop()["eval"]}
    data["eval"][0]["color"] = "ultraviolet"
    data["eval"][1]["weight"] = 7
    done = gate(data, policy=policy, schema=usual.schema)
    assert {key: p.action for key, p in found(done.verdict).items()} == {
        ("unknown_value", "color", "eval"): "block"
    }


def test_photos_that_occur_twice_are_found(shop: Shop, gate: Gate) -> None:
    data = shop()
    train, evaluation = data["train"], data["eval"]
    evaluation[0]["image/encoded"] = train[0]["image/encoded"]  # a leak, same class
    evaluation[1]["image/encoded"] = train[2]["image/encoded"]  # a leak, another class
    train[7]["image/encoded"] = train[4]["image/encoded"]  # a copy, same class
    done = gate(data)
    assert done.verdict.duplicates == {"leaks": 2, "conflicts": 1, "within": 1}
    problems = {p.kind: p for p in done.verdict.problems}
    assert set(problems) == {"leak", "label_conflict", "duplicate"}
    assert {o.item_id for o in problems["leak"].offenders} == {"item-00", "item-30", "item-02", "item-31"}
    assert {o.item_id for o in problems["label_conflict"].offenders} == {"item-02", "item-31"}
    assert {o.item_id for o in problems["duplicate"].offenders} == {"item-04", "item-07"}
    assert all(o.thumbnail for p in problems.values() for o in p.offenders)
    assert {p.kind: p.action for p in done.verdict.problems} == {
        "leak": "block",
        "label_conflict": "warn",
        "duplicate": "warn",
    }


def test_the_same_key_in_training_and_evaluation_blocks_and_the_policy_can_relax_it(
    shop: Shop, gate: Gate
) -> None:
    data = shop()
    data["eval"][0]["item_id"] = "item-03"
    data["train"][5]["item_id"] = "item-04"  # two photos of one item in one split are fine
    done = gate(data)
    assert not done.verdict.accepted
    assert done.verdict.duplicates == {"key_leaks": 1}
    (problem,) = done.verdict.problems
    assert (problem.kind, problem.feature, problem.action) == ("leak", "item_id", "block")
    assert [(o.split, o.item_id) for o in problem.offenders] == [("eval", "item-03"), ("train", "item-03")]
    assert gate(data, policy={"features": {"item_id": {"leak": "warn"}}}).verdict.accepted


def test_empty_cells_are_missing_values(gate: Gate) -> None:
    def rows(start: int, count: int, label: Callable[[int], str | list[str]]) -> list[dict[str, Any]]:
        return [
            {
                "item_id": f"{n}",
                "label": label(n),
                "price": 1.5 if n % 10 == 0 else ["float", []],  # an empty list, as CsvExampleGen writes
                "note": None,  # a feature without a kind
                "size": 3 + n % 4,
            }
            for n in range(start, start + count)
        ]

    splits = {
        "train": rows(0, 40, lambda n: "hat" if n % 8 else []),
        "eval": rows(100, 20, lambda n: "hat"),
    }
    done = gate(splits)
    problems = found(done.verdict)
    assert {key: (p.action, p.records) for key, p in problems.items()} == {
        ("missing_label", "label", "train"): ("block", 5),
        ("missing_values", "price", "train"): ("warn", 36),
        ("missing_values", "price", "eval"): ("warn", 18),
    }
    assert "missing in 36 of 40 (90.0 %) records" in problems["missing_values", "price", "train"].description
    assert {o.item_id for o in problems["missing_label", "label", "train"].offenders} == {
        "0", "8", "16", "24", "32",
    }  # fmt: skip
    price = next(f for f in done.schema.feature if f.name == "price")
    assert not price.presence.min_fraction, "the schema for other components says that it is optional"
    schema = type(done.schema).FromString(done.schema.SerializeToString())
    for feature in schema.feature:
        if feature.name == "price":
            feature.presence.min_fraction = 1.0
            feature.value_count.min = 0  # a record may have none
        if feature.name == "label":
            feature.presence.min_fraction = 1.0
    again = found(gate({"train": splits["train"]}, schema=schema).verdict)
    assert set(again) == {("missing_label", "label", "train")}


def test_a_column_that_is_empty_throughout_is_reported(gate: Gate) -> None:
    splits = {
        split: [{"item_id": f"{split}{n}", "note": ["bytes", []], "size": 3 + n % 4} for n in range(20)]
        for split in ("train", "eval")
    }
    assert {key: p.records for key, p in found(gate(splits).verdict).items()} == {
        ("missing_values", "note", "train"): 20,
        ("missing_values", "note", "eval"): 20,
    }


def test_a_class_that_is_not_trained_is_told(shop: Shop, gate: Gate) -> None:
    data = shop()
    data["eval"][0]["label"] = "gloves"
    done = gate(data)
    problem = found(done.verdict)["untrained_label", "label", "eval"]
    assert problem.action == "warn"
    assert "'gloves'" in problem.description
    assert "gloves" in next(f for f in done.schema.feature if f.name == "label").string_domain.value


def test_classes_that_are_not_as_the_taxonomy_has_them_are_reported() -> None:
    taxonomy = Taxonomy.parse("tree: {all: [hat, cup]}\nrenames: {cap: hat}", "taxonomy.yaml")
    labels = {"train": {"hat": 5, "cap": 2}, "eval": {"cup": 1, "lamp": 1}}
    problems = {
        (p.kind, p.split): p.description for p in taxonomy_problems(labels, taxonomy, "label", Policy())
    }
    assert problems == {
        ("retired_label", "train"): "2 records have a class under a name that was given up: 'cap' (now hat)",
        ("unlisted_label", "eval"): "1 of its 2 classes are not in the taxonomy's tree: 'lamp'",
    }
    without_tree = Taxonomy.parse("renames: {cap: hat}", "taxonomy.yaml")
    assert [p.kind for p in taxonomy_problems(labels, without_tree, "label", Policy())] == ["retired_label"]


def test_drift_from_a_baseline_is_told_and_can_block(shop: Shop, gate: Gate, usual: Any) -> None:
    baseline = Baseline("items@v1", usual.statistics["train"], usual.brightness["train"])
    data = {"train": shop()["train"]}
    assert gate(data, baseline=baseline).verdict.problems == ()
    for record in data["train"][:25]:
        record["label"], record["price"] = "hat", 90.0
    drifted = gate(data, baseline=baseline, policy=Policy(features={"label": {"drift": "block"}}))
    assert {(p.kind, p.feature): p.action for p in drifted.verdict.problems} == {
        ("drift", "label"): "block",
        ("drift", "price"): "warn",
    }
    assert not drifted.verdict.accepted
    assert not any(f.HasField("drift_comparator") for f in drifted.schema.feature)


def test_a_table_without_photos_and_labels_is_validated_too(gate: Gate) -> None:
    def rows(count: int, company: str) -> list[dict[str, Any]]:
        return [
            {"fare": 3.5 + n, "miles": n, "company": ("blue", "red", company)[n % 3]} for n in range(count)
        ]

    done = gate({"train": rows(60, "red"), "eval": rows(30, "yellow")})
    (problem,) = done.verdict.problems
    assert (problem.kind, problem.feature, problem.split) == ("unknown_value", "company", "eval")
    assert problem.records == 10
    assert {o.value for o in problem.offenders} == {"yellow"}
    assert done.verdict.accepted
    assert done.verdict.duplicates == {}


def test_many_classes_are_all_compared_with_the_schema(gate: Gate) -> None:
    def records(labels: range) -> list[dict[str, Any]]:
        return [{"label": f"class {n:04d}", "item_id": f"{n}"} for n in labels]

    data = {"train": records(range(1500)), "eval": [*records(range(1200)), {"label": "rare", "item_id": "x"}]}
    done = gate(data)
    label = next(feature for feature in done.schema.feature if feature.name == "label")
    assert len(label.string_domain.value) == 1501
    assert "'rare'" in found(done.verdict)["untrained_label", "label", "eval"].description
    label.string_domain.value.remove("rare")
    again = gate({"eval": data["eval"]}, schema=done.schema)
    problem = found(again.verdict)["unknown_label", "label", "eval"]
    assert (problem.action, problem.records) == ("block", 1)
    assert [o.item_id for o in problem.offenders] == ["x"]


def test_no_records_block(shop: Shop, gate: Gate, usual: Any) -> None:
    schema = usual.schema
    done = gate({"eval": []}, schema=schema)
    assert {p.action for p in done.verdict.problems} == {"block"}


def test_every_anomaly_of_the_installed_tfdv_has_a_kind() -> None:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    known = set(anomalies_pb2.AnomalyInfo.Type.keys())
    assert known - set(KIND_OF_ANOMALY) == {"UNKNOWN_TYPE", "MULTIPLE_REASONS"}
    assert set(KIND_OF_ANOMALY) - known == set()
    assert set(KIND_OF_ANOMALY.values()) <= set(KINDS)
    assert set(Policy.model_fields) == {*KINDS, "features", "waivers"}


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"dirft": "warn"}, "did you mean 'drift'"),
        ({"drift": "stop"}, "drift is 'stop'"),
        ({"features": {"label": {"drft": "warn"}}}, "features.label"),
        ({"features": "label"}, "features is 'label'"),
    ],
)
def test_a_wrong_policy_is_one_clear_error(policy: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config(Policy, policy, source="policy")
