"""The same promises on every backend: a folder, memory, and an S3 server."""

import errno
import os
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.datasets import commit as commit_module
from mlplatform.datasets.errors import CommitFilesLostError, SourceChangedError
from mlplatform.errors import MissingExtraError
from mlplatform.storage import FsspecStorage, open_storage
from mlplatform.storage.errors import CorruptStoreError, NoAtomicCreateError, StoreAccessError


def refused(code: str) -> OSError:
    """What s3fs makes of a server's refusal."""
    from botocore.exceptions import ClientError

    error = OSError(errno.EIO, code)
    error.__cause__ = ClientError({"Error": {"Code": code, "Message": code}}, "PutObject")
    return error


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

    def test_of_many_that_create_one_name_one_wins(self, url: str) -> None:
        wins: list[int] = []
        storages = [open_storage(url) for _ in range(6)]

        def create(number: int) -> None:
            if storages[number].create("d/versions/v1.json", b"%d" % number):
                wins.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wins) == 1
        assert storages[0].read("d/versions/v1.json") == b"%d" % wins[0]

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


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    names = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
    try:
        yield "s3://bucket"
    finally:
        server.stop()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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

    def test_a_bucket_that_is_missing_is_one_clear_error(
        self, s3: str, tmp_path: Path, write_examples: Callable[..., Path]
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[b"a"]]})
        with pytest.raises(StoreAccessError, match=r"s3://no-such-bucket/x.*the bucket .* does not exist"):
            DatasetStore("s3://no-such-bucket/x").commit("d", source)

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

    @pytest.mark.parametrize(
        ("answers", "outcome"),
        [
            ([refused("ConditionalRequestConflict"), None], True),  # another request was under way: once more
            ([refused("ConditionalRequestConflict"), refused("PreconditionFailed")], False),
            ([FileExistsError("taken")], False),
            ([PermissionError("Access Denied (request 94125)")], StoreAccessError),
            ([refused("SlowDown")], StoreAccessError),
        ],
    )
    def test_only_a_taken_name_counts_as_somebody_else_having_been_first(
        self, s3: str, answers: list[Any], outcome: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = open_storage(f"{s3}/{uuid.uuid4().hex}")
        storage.put("probed", b"")
        coming = iter(answers)

        def pipe_file(*_: Any, **__: Any) -> None:
            if (answer := next(coming)) is not None:
                raise answer

        monkeypatch.setattr(storage._fs, "pipe_file", pipe_file)
        if isinstance(outcome, bool):
            assert storage.create("d/versions/v1.json", b"1") is outcome
        else:
            with pytest.raises(outcome, match="refused what was asked"):
                storage.create("d/versions/v1.json", b"1")

    def test_a_server_that_is_gone_is_one_clear_error(self, tmp_path: Path) -> None:
        script = (
            "from mlplatform.datasets import DatasetStore\n"
            "from mlplatform.storage.errors import StoreAccessError\n"
            "try:\n    DatasetStore('s3://bucket/x').names()\n"
            "except StoreAccessError as error:\n    print(error)\n"
        )
        gone = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1", "AWS_ACCESS_KEY_ID": "x"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **gone, "AWS_SECRET_ACCESS_KEY": "x"},
            capture_output=True,
            text=True,
        )
        assert "s3://bucket/x cannot be reached" in done.stdout, done.stderr[-2000:]


def test_a_backend_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(MissingExtraError, match=r"mlplatform\[azure\]"):
        DatasetStore("abfs://container/x")


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


def test_a_server_that_overwrites_where_it_should_refuse_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = open_storage(f"memory://{uuid.uuid4().hex}")
    assert isinstance(storage, FsspecStorage)
    monkeypatch.setattr(storage, "_create", lambda path, data: True)
    with pytest.raises(NoAtomicCreateError, match="it overwrote"):
        storage.create("d/versions/v1.json", b"1")
