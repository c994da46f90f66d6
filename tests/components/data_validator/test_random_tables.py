"""Random tables with faults put in, against an oracle that counts them one by one."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlplatform.components.data_validator.missing import with_missing
from mlplatform.serving.logged_requests import log_files

COLUMNS = {"count": "int64", "price": "float", "color": "bytes", "label": "bytes"}
ABOUT_RECORDS = {"missing_values", "missing_label", "missing_column", "leak"}


def cell(rng: random.Random, name: str) -> Any:
    return {
        "count": rng.randrange(5),
        "price": rng.randrange(5) + 0.5,
        "color": rng.choice(["red", "blue"]),
        "label": rng.choice(["hat", "shoe"]),
    }[name]


def is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, list) and value[1:] == [[]])


def table(rng: random.Random, split: str, size: int) -> list[dict[str, Any]]:
    gaps = {name: rng.choice([0.0, 0.0, 0.3, 1.0 if split != "train" else 0.3]) for name in COLUMNS}
    records = []
    for number in range(size):
        record: dict[str, Any] = {"item_id": f"{split}-{number}"}
        for name, kind in COLUMNS.items():
            is_gap = rng.random() < gaps[name]
            record[name] = rng.choice([None, [kind, []]]) if is_gap else cell(rng, name)
        records.append(record)
    return records


def expected_of_records(splits: dict[str, list[dict[str, Any]]]) -> set[tuple[str, str, str]]:
    gaps = {
        (split, name): sum(is_empty(record[name]) for record in records)
        for split, records in splits.items()
        for name in COLUMNS
    }
    found = set()
    for (split, name), count in gaps.items():
        if count == len(splits[split]) and not gaps["train", name]:
            found.add(("missing_column", name, split))
        elif count:
            found.add(("missing_label" if name == "label" else "missing_values", name, split))
    ids = {split: {record["item_id"] for record in records} for split, records in splits.items()}
    if ids["train"] & ids["eval"]:
        found.add(("leak", "item_id", "train, eval"))
    return found


def expected_skew(train: list[dict[str, Any]], requests: list[dict[str, Any]]) -> set[str]:
    found = set()
    for name in ("count", "price", "color", "coupon"):
        here = sum(not is_empty(record.get(name)) for record in train) / len(train)
        served = sum(name in request for request in requests) / len(requests)
        is_expected = here > 0 or served > 0
        if is_expected and ((here == 0) != (served == 0) or abs(here - served) > 0.1):
            found.add(name)
    return found


def check_a_table(seed: int, gate: Callable[..., Any], request_log: Callable[..., Path]) -> None:
    import tensorflow as tf

    rng = random.Random(seed)
    splits = {"train": table(rng, "train", 40), "eval": table(rng, "eval", 15)}
    for number in rng.sample(range(15), rng.choice([0, 3])):
        splits["eval"][number]["item_id"] = splits["train"][number]["item_id"]
    drop = {name: rng.choice([0.0, 0.5, 1.0]) for name in ("count", "price", "color")}
    requests = []
    for number in range(30):
        kept = {name: cell(rng, name) for name, share in drop.items() if rng.random() >= share}
        requests.append({**kept, **({"coupon": 1} if seed % 2 and number < 4 else {})})

    def feature(value: Any) -> Any:
        kinds = {int: "int64_list", float: "float_list", str: "bytes_list"}
        made = tf.train.Feature()
        encoded = value.encode() if isinstance(value, str) else value
        getattr(made, kinds[type(value)]).value.append(encoded)
        return made

    sent = []
    for request in requests:
        features = {name: feature(value) for name, value in {"always": 1, **request}.items()}
        sent.append(
            tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(
                deterministic=True
            )
        )
    done = gate(splits, serving_logs=log_files(str(request_log({"examples": sent}))))
    found = done.verdict.problems
    about = {(p.kind, p.feature, p.split) for p in found if p.kind in ABOUT_RECORDS}
    assert about == expected_of_records(splits), f"seed {seed}"
    counts = {(p.feature, p.split): p.records for p in found if p.kind in ("missing_values", "missing_label")}
    assert counts == {
        (name, split): sum(is_empty(record[name]) for record in splits[split]) for name, split in counts
    }, f"seed {seed}"
    skewed = {p.feature for p in found if p.kind == "skew" and p.description.startswith("missing in")}
    assert skewed - {"always"} == expected_skew(splits["train"], requests), f"seed {seed}"
    assert "always" in skewed


@pytest.mark.parametrize("seed", [3])
def test_the_faults_of_a_random_table_are_found(
    seed: int, gate: Callable[..., Any], request_log: Callable[..., Path]
) -> None:
    check_a_table(seed, gate, request_log)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 140))
def test_the_faults_of_many_random_tables_are_found(
    seed: int, gate: Callable[..., Any], request_log: Callable[..., Path]
) -> None:
    check_a_table(seed, gate, request_log)


@pytest.mark.parametrize("seed", range(50))
def test_empty_lists_become_nulls_and_nothing_else_changes(seed: int) -> None:
    rng = random.Random(seed)
    lists = [[None, [], [1.0], [1.0, 2.0]][rng.randrange(4)] for _ in range(rng.randrange(12))]
    kind = rng.choice([pa.list_(pa.float32()), pa.large_list(pa.float32())])
    column = pa.array([[], *lists], kind)[1:]  # a slice: its offsets do not begin at 0
    batch = pa.RecordBatch.from_arrays([column, column, pa.nulls(len(lists))], names=["a", "kept", "none"])
    done = with_missing(batch, frozenset({"kept"})).to_pydict()
    assert done["a"] == [value or None for value in lists]
    assert done["kept"] == lists
    assert done["none"] == [None] * len(lists)
