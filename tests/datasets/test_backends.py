"""The same promises on every backend: a folder, memory, and an S3 server."""

import os
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.datasets import commit as commit_module
from mlplatform.datasets.errors import CommitFilesLostError, SourceChangedError
from mlplatform.storage import open_storage
from mlplatform.storage.errors import CorruptStoreError, NoAtomicCreateError, StoreAccessError


class BackendContract:
    """What every backend must keep."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    def test_the_whole_life_of_a_dataset(
        self,
        url: str,
        tmp_path: Path,
        write_examples: Callable[..., Path],
        read_examples: Callable[..., Any],
        make_example: Callable[..., bytes],
    ) -> None:
        rows = [make_example({"id": f"{n}", "label": "x", "blob": os.urandom(50)}) for n in range(60)]
        a = write_examples(tmp_path / "a", {"train": [rows[:40], rows[:3]], "eval": [rows[50:]]})
        b = write_examples(tmp_path / "b", {"train": [rows[5:45]], "eval": [rows[50:]]}, gz=True)
        store = DatasetStore(url)
        assert store.names() == []
        assert store.commit("d", a, key=["id"]).is_new
        assert not DatasetStore(url).commit("d", a).is_new
        second = store.commit("d", b)
        assert (second.added, second.removed) == (5, 8)
        found = store.diff("d", "v1", "v2")
        assert (found.count("added"), found.count("removed"), found.unchanged) == (5, 8, 45)
        out = read_examples(store.checkout("d", "v1", tmp_path / "out"))
        assert Counter(out["train"]) == Counter(rows[:40] + rows[:3])
        assert sorted(read_examples(store.checkout("d", "v2", tmp_path / "out2"))["train"]) == sorted(
            rows[5:45]
        )
        store.tag("d", "v1", "gold")
        assert store.show("d", "gold").version == "v1"
        assert store.blame("d", "2").versions == ["v1"]
        assert store.verify("d").is_whole
        litter = "d/packs/" + "0" * 32 + ".tfrecord"
        open_storage(url).put(litter, b"half")
        assert [one.path for one in store.gc("d", is_dry_run=False, grace_s=-1e6)] == [litter]
        store.forget("d", "7", is_erasing=True)
        found = store.verify("d")
        assert found.is_whole, found.problems
        assert store.blame("d", "7").records == []

    def test_writers_at_once_all_land_beside_a_gc(
        self, url: str, tmp_path: Path, write_examples: Callable[..., Path]
    ) -> None:
        shared = [b"shared-%d" % n for n in range(20)]
        sources = [write_examples(tmp_path / f"{n}", {"train": [[*shared, b"own-%d" % n]]}) for n in range(4)]

        def commit(source: Path) -> None:
            store = DatasetStore(url)
            store.commit("d", source, message=str(source))
            store.gc("d", is_dry_run=False)

        with ThreadPoolExecutor(len(sources)) as threads:
            list(threads.map(commit, sources))
        store = DatasetStore(url)
        assert [one.number for one in store.log("d")] == [4, 3, 2, 1]
        assert {one.message for one in store.log("d")} == set(map(str, sources))
        assert store.verify("d").is_whole

    def test_what_was_deleted_while_a_commit_ran_makes_no_version(
        self,
        url: str,
        tmp_path: Path,
        write_examples: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[b"a", b"b"]]})
        real = commit_module.held_out_rows

        def deleting(*arguments: Any) -> Any:  # as a gc does without locks, of a commit that took a day
            storage = open_storage(url)
            for name in storage.names("d/packs"):
                storage.delete(f"d/packs/{name}")
            return real(*arguments)

        monkeypatch.setattr(commit_module, "held_out_rows", deleting)
        with pytest.raises((CommitFilesLostError, FileNotFoundError), match=r"packs/"):
            DatasetStore(url).commit("d", source)
        assert DatasetStore(url).names() == []


class TestFolder(BackendContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path / "store")


class TestMemory(BackendContract):
    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid.uuid4().hex}"


class TestS3(BackendContract):
    @pytest.fixture
    def url(self, s3: str) -> str:
        return f"{s3}/{uuid.uuid4().hex}"


class TestObjectStorage:
    """Of S3 alone: what a server and a network can do."""

    def upload(self, url: str, source: Path) -> str:
        fs, place = fsspec.core.url_to_fs(url)
        for file in source.rglob("data*"):
            fs.pipe_file(f"{place}/{file.relative_to(source)}", file.read_bytes())
        return url

    def test_a_remote_source_is_committed_and_exported(
        self, s3: str, tmp_path: Path, write_examples: Callable[..., Path]
    ) -> None:
        rows = [b"%d" % n for n in range(30)]
        local = write_examples(tmp_path / "a", {"train": [rows[:10], rows[10:]]})
        remote = self.upload(f"{s3}/{uuid.uuid4().hex}", local)
        store = DatasetStore(f"{s3}/{uuid.uuid4().hex}")
        first = store.commit("d", remote)
        assert (first.added, first.manifest.source) == (30, remote)
        more = write_examples(tmp_path / "b", {"train": [[*rows[5:], b"more"]]})
        assert store.commit("d", self.upload(f"{s3}/{uuid.uuid4().hex}", more)).added == 1
        assert not store.commit("d", local).is_new
        assert store.verify("d").is_whole

    def test_a_remote_source_that_changes_while_it_is_read_is_noticed(
        self,
        s3: str,
        tmp_path: Path,
        write_examples: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        remote = self.upload(f"{s3}/{uuid.uuid4().hex}", write_examples(tmp_path / "a", {"train": [[b"a"]]}))
        other = write_examples(tmp_path / "b", {"train": [[b"b"]]})  # of the same size
        real = commit_module.write_packs

        def changed(*arguments: Any) -> Any:
            self.upload(remote, other)
            return real(*arguments)

        monkeypatch.setattr(commit_module, "write_packs", changed)
        store = DatasetStore(tmp_path / "store")
        with pytest.raises(SourceChangedError, match="changed while it was read"):
            store.commit("d", remote)
        assert store.names() == []

    def test_a_truncated_index_is_named(
        self, s3: str, tmp_path: Path, write_examples: Callable[..., Path]
    ) -> None:
        url = f"{s3}/{uuid.uuid4().hex}"
        DatasetStore(url).commit("d", write_examples(tmp_path / "a", {"train": [[b"a", b"b"]]}))
        storage = open_storage(url)
        (index,) = (name for name in storage.names("d/packs") if name.endswith(".index"))
        storage.put(f"d/packs/{index}", storage.read(f"d/packs/{index}")[:-5])
        with pytest.raises(CorruptStoreError, match=index):
            DatasetStore(url).commit("d", write_examples(tmp_path / "b", {"train": [[b"b"]]}))


def test_a_kind_of_url_that_nobody_knows_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreAccessError, match="s4://bucket/x cannot be reached"):
        DatasetStore("s4://bucket/x")
    with pytest.raises(StoreAccessError, match="s4://bucket/examples"):
        DatasetStore(tmp_path).commit("d", "s4://bucket/examples")


def test_a_backend_without_an_atomic_create_is_read_but_not_written(
    tmp_path: Path, write_examples: Callable[..., Path]
) -> None:
    source = write_examples(tmp_path / "a", {"train": [[b"a"]]})
    DatasetStore(tmp_path / "store").commit("d", source)
    store = DatasetStore(f"local://{tmp_path}/store")
    assert store.show("d").version == "v1"
    with pytest.raises(NoAtomicCreateError, match="no create that refuses a taken name"):
        store.tag("d", "v1", "gold")
