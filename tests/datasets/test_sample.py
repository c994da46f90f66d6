"""A sample: different records of the wanted splits, the same by seed, none that was erased; encoding."""

import math
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.format.features import decode, encode, example_of, record_features

INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.lists(st.binary(max_size=300), max_size=6),
    st.lists(INT64, max_size=6),
    st.lists(st.floats(width=32, allow_nan=False), max_size=6),
)


@pytest.fixture
def store(
    tmp_path: Path, write_examples: Callable[..., Path], make_example: Callable[..., bytes]
) -> DatasetStore:
    def items(numbers: range) -> list[bytes]:
        return [make_example({"id": f"item-{n}", "label": "a"}) for n in numbers]

    first = {"train": [items(range(40))], "eval": [items(range(40, 50)), items(range(50, 60))]}
    found = DatasetStore(tmp_path / "store")
    found.commit("items", write_examples(tmp_path / "one", first), key=["id"], label="label")
    return found


def ids(found: list) -> list[str]:
    return [decode(record_features(one.payload)["id"])[0].decode() for one in found]


def test_held_out_records_are_sampled_and_a_seed_chooses_the_same(store: DatasetStore) -> None:
    found = store.sample("items", "v1", 10)
    assert {one.split for one in found} == {"eval"}
    assert len(set(ids(found))) == 10
    assert ids(found) == ids(store.sample("items", "latest", 10))
    assert ids(found) != ids(store.sample("items", "v1", 10, seed=2))
    assert sorted(ids(store.sample("items", "v1", 1000))) == sorted(f"item-{n}" for n in range(40, 60))
    assert {one.split for one in store.sample("items", "v1", 9, splits=["train"])} == {"train"}
    assert store.sample("items", "v1", 0) == []


def test_each_record_is_as_likely(store: DatasetStore) -> None:
    seen = [name for seed in range(60) for name in ids(store.sample("items", "v1", 5, seed=seed))]
    counts = [seen.count(f"item-{n}") for n in range(40, 60)]
    assert 2 <= min(counts) <= max(counts) <= 35, "15 are expected"


def test_an_erased_record_is_never_sampled(store: DatasetStore) -> None:
    store.forget("items", ["item-45"], why="asked for", is_erasing=True)
    assert "item-45" not in ids(store.sample("items", "v1", 1000))


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=20), VALUES, max_size=5))
def test_what_is_encoded_is_decoded(features: dict[str, list]) -> None:
    record = example_of({name: encode(values) for name, values in features.items()})
    found = record_features(record)
    assert {name: decode(value) for name, value in found.items()} == features


def test_numbers_that_do_not_fit_are_refused() -> None:
    for values in ([2**63], [-(2**63) - 1, 0], [1e39]):
        with pytest.raises(OverflowError):
            encode(values)
    assert decode(encode([math.inf])) == [math.inf]
    assert struct.unpack("<f", encode([0.1])[-4:])[0] == decode(encode([0.1]))[0]
