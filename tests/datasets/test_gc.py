"""gc finds what nobody needs, wherever a kill left it, and nothing else; readers need no permission."""

import fcntl
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import DatasetNotFoundError
from mlplatform.datasets.reading import reading
from mlplatform.storage import open_storage

Write = Callable[..., Path]


def leave(path: Path, age_s: float = 7200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left behind")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_what_a_killed_first_commit_left_is_found_by_gc_of_all(store: DatasetStore) -> None:
    root = Path(store.url)
    left = [
        leave(root / "d" / "packs" / f"{'0' * 32}.tfrecord"),
        leave(root / "d" / "aside" / "a"),
        leave(root / "d" / ".aside" / "a"),
        leave(root / ".aside" / "b"),
        leave(root / "aside" / "b"),
        leave(root / f"probe-{'0' * 32}"),
    ]
    found = store.gc(grace_s=3600)
    assert {root / one.path for one in found} == set(left)
    assert all(path.exists() for path in left)
    assert len(store.gc(grace_s=3600, is_dry_run=False)) == 6
    assert not any(path.exists() for path in left)
    assert store.gc(grace_s=0) == []


def test_fresh_files_of_the_store_itself_are_spared_whatever_the_grace(store: DatasetStore) -> None:
    path = leave(Path(store.url) / ".aside" / "a", age_s=60)
    (found,) = store.gc(grace_s=0, is_dry_run=False)
    assert found.is_spared
    assert path.exists()


def test_a_name_that_is_no_dataset_is_told_and_no_folder_is_made(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    store.commit("items", write_examples(tmp_path / "a", {"train": [[b"a"]]}))
    for is_dry_run in (True, False):
        with pytest.raises(DatasetNotFoundError, match="has no dataset 'itmes'; it holds items"):
            store.gc("itmes", is_dry_run=is_dry_run)
    assert sorted(path.name for path in Path(store.url).iterdir()) == [".aside", "items", "store.json"]
    assert DatasetStore(tmp_path / "none").gc() == []
    assert not (tmp_path / "none").exists()


def test_other_folders_in_the_store_are_left_alone(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"a"]]}))
    mine = leave(Path(store.url) / "notes" / "mine.txt")
    hidden = leave(Path(store.url) / ".DS_Store")
    assert store.gc(grace_s=0, is_dry_run=False) == []
    assert mine.exists()
    assert hidden.exists()


def as_nobody(work: Callable[[], None]) -> None:
    """Do some work in a process that has no permissions; fails where the work does."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - told here, and by the status
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def write_two_versions(tmp_path: Path, write: Write, make: Callable[..., bytes], store: DatasetStore) -> None:
    rows = [make({"id": f"{n}", "label": "x"}) for n in range(9)]
    store.commit("d", write(tmp_path / "a", {"train": [rows]}))
    store.commit("d", write(tmp_path / "b", {"train": [rows[1:]]}))


def read_everything(store: DatasetStore, out: Path) -> None:
    assert store.blame("d", "3", key=["id"]).versions == ["v1", "v2"]
    assert store.forget("d", "3", key=["id"]).is_erased is False
    assert store.gc() == []
    assert store.gc("d") == []
    assert store.verify("d").is_whole
    assert store.diff("d", "v1", "v2", key=["id"]).count("removed") == 1
    assert [one.version for one in store.log("d")] == ["v2", "v1"]
    store.checkout("d", "v1", out / "checkout", link=False)
    store.export("d", "v2", out / "export")


def test_a_backend_that_cannot_be_written_is_read(
    tmp_path: Path, write_examples: Write, make_example: Callable[..., bytes], store: DatasetStore
) -> None:
    write_two_versions(tmp_path, write_examples, make_example, store)
    before = sorted(Path(store.url).rglob("*"))
    read_everything(DatasetStore(f"local://{store.url}"), tmp_path / "out")
    assert sorted(Path(store.url).rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can become somebody without permissions")
def test_who_may_only_read_reads(write_examples: Write, make_example: Callable[..., bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest closes its own folder again and again
        folder = Path(name)
        store = DatasetStore(folder / "store")
        write_two_versions(folder, write_examples, make_example, store)
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
        out = folder / "out"
        out.mkdir()
        out.chmod(0o777)
        read_everything(store, folder / "before")  # loads what the child needs and may not read

        def read() -> None:
            read_everything(store, out)
            with (
                reading(open_storage(store.url), "d"),
                open(Path(store.url) / "d" / "lock", "rb") as lock,
                pytest.raises(BlockingIOError),  # who may not write can still be waited for
            ):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

        as_nobody(read)


@pytest.mark.parametrize("name", ["aside_items", "probe-set", "aside"])
def test_a_dataset_may_be_named_as_the_stores_own_files_begin(
    name: str, tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    store.commit(name, write_examples(tmp_path / "a", {"train": [[b"a"]]}))
    left = leave(Path(store.url) / name / "packs" / f"{'0' * 32}.tfrecord")
    (found,) = store.gc(grace_s=3600, is_dry_run=False)
    assert Path(store.url) / found.path == left
    assert not left.exists()
    assert store.verify(name).is_whole


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can become somebody without permissions")
def test_a_store_at_the_root_of_a_disk_has_a_folder_that_nobody_may_look_into(
    write_examples: Write,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "disk"
        (root / "lost+found").mkdir(parents=True, mode=0o700)
        source = write_examples(Path(name) / "a", {"train": [[b"a"]]})
        for path in (Path(name), root, *source.rglob("*"), source):
            path.chmod(0o777)
        store = DatasetStore(root)
        DatasetStore(Path(name) / "other").commit("d", source)  # loads what the child needs and may not read

        def commit() -> None:
            assert store.names() == []
            store.commit("d", source)
            assert (store.names(), store.gc()) == (["d"], [])

        as_nobody(commit)
