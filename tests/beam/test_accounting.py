"""Books that balance, shards that depend on their records alone, small collections that come back."""

import random
from pathlib import Path

import apache_beam as beam
import pytest

from mlplatform.beam.accounting import RecordsLostError, WriteCounts, check_all_left, read_counts
from mlplatform.beam.gathered import WriteGathered, read_gathered
from mlplatform.beam.shards import WriteShards


def test_collections_are_added_up_by_name(tmp_path: Path) -> None:
    file = str(tmp_path / "new" / "counts.json")
    with beam.Pipeline() as pipeline:
        numbers = pipeline | beam.Create(range(5))
        ones = numbers | beam.Map(lambda _: 1)
        none = numbers | "None" >> beam.Filter(lambda n: n > 10)
        _ = {"all": numbers, "ones": ones, "none": none} | WriteCounts(file)
    assert read_counts(file) == {"all": 10, "ones": 5}


def test_books_that_do_not_balance_fail() -> None:
    check_all_left("ingest", 10, 10)
    with pytest.raises(RecordsLostError, match="10 records went in and 9 came out"):
        check_all_left("ingest", 10, 9)


def test_shards_depend_on_their_records_alone(tmp_path: Path) -> None:
    records = [("", b"a record without a key"), *((f"item-{n}", f"record {n}".encode()) for n in range(50))]
    for name in ("a", "b"):
        random.Random(name).shuffle(records)
        with beam.Pipeline() as pipeline:
            written = pipeline | beam.Create(records) | WriteShards(str(tmp_path / name / "data"), 3)
            _ = {"records": written | beam.Values()} | WriteCounts(str(tmp_path / f"{name}.json"))
        assert read_counts(str(tmp_path / f"{name}.json")) == {"records": 51}
    names = [f"data-0000{n}-of-00003" for n in range(3)]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    import tensorflow as tf

    read = tf.data.TFRecordDataset([str(tmp_path / "a" / n) for n in names]).as_numpy_iterator()
    assert sorted(read) == sorted(record for _, record in records)


def test_every_shard_is_written_even_if_it_is_empty(tmp_path: Path) -> None:
    with beam.Pipeline() as pipeline:
        one = pipeline | beam.Create([("item", b"record")])
        _ = one | WriteShards(str(tmp_path / "data"), 4)
    assert sorted(path.stat().st_size > 0 for path in tmp_path.iterdir()) == [False, False, False, True]


def test_a_small_collection_comes_back(tmp_path: Path) -> None:
    with beam.Pipeline() as pipeline:
        _ = pipeline | beam.Create([("a", 1), ("b", 2)]) | WriteGathered(str(tmp_path / "gathered"))
    assert sorted(read_gathered(str(tmp_path / "gathered"))) == [("a", 1), ("b", 2)]
