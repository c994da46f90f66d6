"""The same promises on every backend: a folder, memory, and an S3 server."""

import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import NoAtomicCreateError
from mlplatform.datasets.storage import FsspecStorage, open_storage


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
    import fsspec

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
