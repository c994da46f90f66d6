"""Copies of shards that are made while the shards are read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.datasets import DatasetStore, write_packs
from mlplatform.datasets.copies import Copies
from mlplatform.datasets.errors import CorruptRecordsError
from mlplatform.datasets.examples_folder import Shard, list_shards, open_records
from mlplatform.storage import LocalStorage

Write = Callable[..., Path]


@pytest.fixture
def shard(tmp_path: Path, write_examples: Write) -> Shard:
    return list_shards(write_examples(tmp_path / "a", {"train": [[b"one", b"two"]]}))[1][0]


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(LocalStorage(tmp_path / "store"), "d")


def copied(copies: Copies, shard: Shard) -> None:
    with copies.of(shard) as copy, open_records(shard, copy) as stream:
        while stream.readinto(bytearray(7)):
            pass


@pytest.mark.parametrize("gz", [False, True])
def test_no_shard_of_a_first_version_is_read_twice(
    tmp_path: Path, write_examples: Write, monkeypatch: pytest.MonkeyPatch, gz: bool
) -> None:
    source = write_examples(tmp_path / "a", {"train": [[b"one", b"two"], [b"three"]], "eval": [[b"4"]]}, gz)
    read = []
    monkeypatch.setattr(write_packs, "_copy", lambda shard, _: read.append(shard.path))
    store = DatasetStore(tmp_path / "store")
    store.commit("d", source)
    assert not read
    packs = {path.read_bytes() for path in (tmp_path / "store/d/packs").glob("*.tfrecord*")}
    assert packs == {path.read_bytes() for path in source.glob("*/*")}
    assert store.verify("d").is_whole
    assert not list((tmp_path / "store/d/.aside").iterdir())


def test_a_copy_belongs_to_who_takes_it_and_the_others_are_deleted(copies: Copies, shard: Shard) -> None:
    copied(copies, shard)
    taken = copies.take(shard)
    assert taken is not None
    assert copies.take(shard) is None
    copied(copies, shard)
    copies.close()
    assert taken.read_bytes() == Path(shard.path).read_bytes()
    assert list(taken.parent.iterdir()) == [taken]


def test_who_reads_on_after_another_failed_leaves_no_file(
    tmp_path: Path, copies: Copies, shard: Shard
) -> None:
    with copies.of(shard) as copy:  # one is under way, the next begins too late
        copies.close()
        assert copy is not None
    copied(copies, shard)
    assert copies.take(shard) is None
    assert not list((tmp_path / "store/d/.aside").iterdir())


def test_a_damaged_shard_leaves_no_copy(tmp_path: Path, copies: Copies, shard: Shard) -> None:
    with pytest.raises(CorruptRecordsError), copies.of(shard):
        raise CorruptRecordsError(shard.path, 0, "damaged")
    assert copies.take(shard) is None
    copies.close()
    assert not list((tmp_path / "store/d/.aside").iterdir())


def test_a_full_disk_is_reported_with_the_file_that_is_written(shard: Shard) -> None:
    with (
        open("/dev/full", "wb", buffering=0) as copy,
        pytest.raises(OSError, match="No space left") as caught,
        open_records(shard, copy) as stream,
    ):
        stream.readinto(bytearray(7))
    assert caught.value.filename == "/dev/full"
