"""Checkout and what reads packs: a damaged pack, a full disk or a strange target is one clear error."""

import errno
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform import progress
from mlplatform.cli.main import main
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import CheckoutTargetError, MountPointError, RemoteTargetError
from mlplatform.storage.errors import CorruptStoreError

Write = Callable[..., Path]


def two_versions(folder: Path, write: Write, store: DatasetStore, size: int, gz: bool = False) -> None:
    """v1 is one whole pack; v2 leaves some records of it out, so that its frames are copied in runs."""
    records = [os.urandom(size) for _ in range(20)]
    store.commit("d", write(folder / "a", {"train": [records]}, gz))
    store.commit("d", write(folder / "b", {"train": [records[:7] + records[8:]]}, gz))


def cut(store: DatasetStore, count: int) -> None:
    for pack in (Path(store.url) / "d" / "packs").glob("*.tfrecord*"):
        pack.chmod(0o644)
        os.truncate(pack, pack.stat().st_size - count)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("size", [40, 200_000], ids=["small", "large"])  # copied by writev, and by sendfile
@pytest.mark.parametrize("link", [True, False])
def test_a_pack_that_is_cut_short_is_told_and_nothing_is_written(
    version: str, size: int, link: bool, tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    two_versions(tmp_path, write_examples, store, size)
    cut(store, 50)
    with pytest.raises(CorruptStoreError, match=r"\.tfrecord is damaged: it has [\d,]+ bytes, not the"):
        store.checkout("d", version, tmp_path / "out", link=link)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "store"]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_gzip_pack_that_is_cut_short_is_told(
    version: str, tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    two_versions(tmp_path, write_examples, store, 400, gz=True)
    cut(store, 50)
    with pytest.raises(CorruptStoreError, match="is damaged"):
        store.checkout("d", version, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_remote_pack_that_is_cut_short_is_told(version: str, tmp_path: Path, write_examples: Write) -> None:
    import fsspec

    store = DatasetStore(f"memory://cut-{version}")
    two_versions(tmp_path, write_examples, store, 400)
    memory = fsspec.filesystem("memory")
    (pack,) = (name for name in memory.ls(f"/cut-{version}/d/packs", detail=False) if "tfrecord" in name)
    memory.pipe_file(pack, memory.cat_file(pack)[:-50])
    with pytest.raises(CorruptStoreError, match="it has"):
        store.checkout("d", version, tmp_path / "out")
    memory.rm(f"/cut-{version}", recursive=True)


@pytest.mark.parametrize("verb", ["checkout", "export", "blame", "diff", "forget"])
def test_a_missing_pack_is_damage_of_the_store_whoever_reads_it(
    verb: str, tmp_path: Path, write_examples: Write, store: DatasetStore, make_example: Callable[..., bytes]
) -> None:
    rows = [make_example({"id": f"i{n}"}) for n in range(5)]
    store.commit("d", write_examples(tmp_path / "a", {"train": [rows[:4]]}), key=["id"])
    store.commit("d", write_examples(tmp_path / "b", {"train": [rows[1:]]}))
    for pack in (Path(store.url) / "d" / "packs").glob("*.tfrecord"):
        pack.unlink()
    calls: dict[str, Callable[[], Any]] = {
        "checkout": lambda: store.checkout("d", "v2", tmp_path / "out"),
        "export": lambda: store.export("d", "v2", tmp_path / "out"),
        "blame": lambda: store.blame("d", "i1"),
        "diff": lambda: store.diff("d", "v1", "v2"),
        "forget": lambda: store.forget("d", "i1", is_erasing=True),
    }
    with pytest.raises(CorruptStoreError, match=r"is damaged: it is missing.*datasets verify") as caught:
        calls[verb]()
    assert "Nothing was committed" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["checkout", "export"])
def test_a_url_is_refused_and_no_folder_of_its_name_is_made(
    verb: str, tmp_path: Path, write_examples: Write, store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"\x0a\x00"]]}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RemoteTargetError, match="gs://bucket/x is a URL"):
        getattr(store, verb)("d", "v1", "gs://bucket/x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "store"]
    assert getattr(store, verb)("d", "v1", f"file://{tmp_path}/out") == tmp_path / "out"


def test_a_link_to_an_empty_folder_is_filled(
    tmp_path: Path, write_examples: Write, read_examples: Callable[..., Any], store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"x"]]}))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert store.checkout("d", "v1", tmp_path / "link") == tmp_path / "link"
    assert (tmp_path / "link").is_symlink()
    assert read_examples(tmp_path / "real") == {"train": [b"x"]}
    with pytest.raises(CheckoutTargetError, match="is not empty"):
        store.checkout("d", "v1", tmp_path / "link")


def test_a_mount_point_is_told_before_anything_is_written(
    small_disk: Path, tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"a"]]}))
    before = sorted(path.name for path in small_disk.parent.iterdir())
    with pytest.raises(MountPointError, match="Name a new folder inside it"):
        store.checkout("d", "v1", small_disk)
    assert sorted(path.name for path in small_disk.parent.iterdir()) == before
    store.checkout("d", "v1", small_disk / "data")


def test_what_killed_checkouts_left_is_deleted_once_it_is_a_day_old(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"x"]]}))
    old, fresh, others = (tmp_path / f".out.{letter * 32}" for letter in "abc")
    others = tmp_path / ".out.d"
    for folder in (old, fresh, others):
        (folder / "Split-train").mkdir(parents=True)
    for path in (old / "Split-train", old, others / "Split-train", others):
        os.utime(path, (time.time() - 90_000,) * 2)
    store.checkout("d", "v1", tmp_path / "out")
    assert not old.exists()
    assert fresh.exists()
    assert others.exists(), "no name of ours"


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("size", [400, 200_000], ids=["small", "large"])
@pytest.mark.parametrize("verb", ["checkout", "export"])
def test_a_full_disk_is_one_clear_error_that_names_the_folder(
    size: int,
    verb: str,
    tmp_path: Path,
    small_disk: Path,
    write_examples: Write,
    make_example: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = DatasetStore(tmp_path / "store")
    records = [make_example({"raw": os.urandom(size)}) for _ in range(2_000_000 // size)]
    store.commit("d", write_examples(tmp_path / "a", {"train": [records]}))
    store.commit("d", write_examples(tmp_path / "b", {"train": [records[:2] + records[3:]]}))
    with pytest.raises(OSError, match="No space left") as caught:
        getattr(store, verb)("d", "v2", small_disk / "out")
    assert caught.value.errno == errno.ENOSPC
    target = str(small_disk / "out")
    command = ["mlplatform", "datasets", verb, "d@v2", target, "--store", str(tmp_path / "store")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    complaint = capsys.readouterr().err
    assert "No space left on device" in complaint
    assert target in complaint
    assert list(small_disk.iterdir()) == []


class Counting:
    """A sink that keeps every task that it is told of."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.totals: dict[str, tuple[float, float | None]] = {}

    def update(self, task: progress.Task) -> None:
        self.seen[task.description] += 1

    def finish(self, task: progress.Task) -> None:
        self.totals[task.description] = task.done, task.total


@pytest.mark.parametrize("size", [40, 200_000], ids=["small", "large"])
def test_long_verbs_tell_their_progress(
    size: int, tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    two_versions(tmp_path, write_examples, store, size)
    (Path(store.url) / "d" / "packs" / "0.tfrecord").write_bytes(b"left behind")
    sink = Counting()
    previous = progress.set_sink(sink)
    try:
        store.checkout("d", "v2", tmp_path / "out")
        store.gc("d", grace_s=0, is_dry_run=False)
        store.blame("d", "x", key=["id"])
    finally:
        progress.set_sink(previous)
    done, total = sink.totals["write records"]
    assert (round(done), total) == (19, 19)
    assert sink.totals["look for what no version needs"] == (1, None)
    assert sink.totals["delete what no version needs"] == (1, 1)
    assert sink.totals["look for the item"] == (20, 20)
