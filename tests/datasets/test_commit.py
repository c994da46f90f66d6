"""What a commit promises: of its input, of who runs beside it, of what it refuses."""

import getpass
import json
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform import progress
from mlplatform.datasets import DatasetStore
from mlplatform.datasets import commit as commit_module
from mlplatform.datasets.errors import (
    CommitRecordsLostError,
    CorruptRecordsError,
    FixedTrainingSplitsError,
    ForgottenRecordError,
    IncompleteShardsError,
    KeyMissingError,
    NoTrainingSplitError,
    SourceChangedError,
    SplitFirewallError,
)
from mlplatform.datasets.examples_folder import list_shards
from mlplatform.datasets.format.tfrecord import frame
from mlplatform.datasets.line import Line
from mlplatform.datasets.placement import NewPack, ShardPart
from mlplatform.datasets.scan import scan_shards
from mlplatform.datasets.write_packs import write_packs
from mlplatform.storage import LocalStorage, open_storage
from mlplatform.storage.errors import CorruptStoreError

Write = Callable[..., Path]
Make = Callable[..., bytes]


@pytest.fixture
def items(make_example: Make) -> Callable[..., bytes]:
    return lambda number, label="coat": make_example({"item_id": f"i{number}", "label": label})


class TestInput:
    def test_a_set_that_lacks_a_shard_is_refused(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[b"a"], [b"b"], [b"c"]]})
        (source / "Split-train" / "data_tfrecord-00001-of-00003").unlink()
        with pytest.raises(IncompleteShardsError, match=r"lacks 1 shard.*data_tfrecord-00001-of-00003"):
            store.commit("d", source)
        assert not Path(store.url).exists()

    def test_files_that_are_no_set_are_taken_as_they_are(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[b"a"], [b"b"]]})
        folder = source / "Split-train"
        (folder / "data_tfrecord-00000-of-00002").rename(folder / "one.tfrecord")
        (folder / "data_tfrecord-00001-of-00002").rename(folder / "two.tfrecord")
        assert store.commit("d", source).added == 2

    def test_an_empty_gzip_file_is_a_cut_one(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[b"a"], [b"b"]]}, gz=True)
        (source / "Split-train" / "data_tfrecord-00001-of-00002.gz").write_bytes(b"")
        with pytest.raises(CorruptRecordsError, match="it is empty, and a gzip file never is"):
            store.commit("d", source)

    def test_a_file_that_changes_while_it_is_read_is_noticed(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[b"a", b"b"]]})
        shard = source / "Split-train" / "data_tfrecord-00000-of-00001"

        def changed(*arguments: Any) -> Any:
            shard.write_bytes(shard.read_bytes())
            return write_packs(*arguments)

        monkeypatch.setattr(commit_module, "write_packs", changed)
        with pytest.raises(SourceChangedError, match="00000-of-00001 changed while it was read"):
            store.commit("d", source)
        assert store.names() == []

    def test_a_source_whose_name_is_no_text_is_shown_by_its_bytes(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore
    ) -> None:
        source = write_examples(tmp_path / os.fsdecode(b"caf\xe9"), {"train": [[b"a"]]})
        made = store.commit("d", source, message=os.fsdecode(b"\xff")).manifest
        assert made.source.endswith("caf\\xe9")
        assert (store.show("d"), store.show("d").message) == (made, "\\xff")


@pytest.mark.usefixtures("settled_at_once")
class TestSeen:
    @pytest.fixture
    def shard(self, tmp_path: Path, write_examples: Write) -> Path:
        """The only shard of `a`."""
        return (
            write_examples(tmp_path / "a", {"train": [[b"a"]]}) / "Split-train/data_tfrecord-00000-of-00001"
        )

    def test_untouched_files_are_not_read_again(
        self, tmp_path: Path, store: DatasetStore, shard: Path
    ) -> None:
        with recorded() as sink:
            store.commit("d", tmp_path / "a")
        assert sink.done["read records"] == 1
        with recorded() as sink:
            assert not store.commit("d", tmp_path / "a").is_new
        assert "read records" not in sink.done

    def test_other_bytes_are_seen_though_size_inode_and_time_of_modification_are_the_same(
        self, tmp_path: Path, store: DatasetStore, shard: Path
    ) -> None:
        before = shard.stat()
        store.commit("d", tmp_path / "a")
        with shard.open("r+b") as file:
            file.write(frame(b"b"))
        os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (shard.stat().st_ino, shard.stat().st_size) == (before.st_ino, before.st_size)
        assert store.commit("d", tmp_path / "a").is_new


class TestForgotten:
    @pytest.mark.parametrize("is_seen", [False, True])
    def test_content_with_a_forgotten_record_does_not_come_back(
        self,
        tmp_path: Path,
        write_examples: Write,
        store: DatasetStore,
        items: Callable[..., bytes],
        request: pytest.FixtureRequest,
        is_seen: bool,
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[items(1), items(2)]]})
        if is_seen:
            request.getfixturevalue("settled_at_once")
        store.commit("d", source, key=["item_id"])
        store.commit("d", write_examples(tmp_path / "b", {"train": [[items(2)]]}))
        assert not store.commit("d", source).is_new
        store.forget("d", "i1", is_erasing=True)
        with pytest.raises(ForgottenRecordError, match=r"1 record\(s\) of this commit were erased"):
            store.commit("d", source)
        assert not store.commit("d", tmp_path / "b").is_new


class TestFirewall:
    def test_splits_of_which_none_is_trained_on_are_refused(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore
    ) -> None:
        source = write_examples(tmp_path / "a", {"training": [[b"a"]], "eval": [[b"b"]]})
        with pytest.raises(NoTrainingSplitError, match=r"eval, training, and none of them.*\(train\)"):
            store.commit("d", source)
        assert store.commit("d", source, training_splits=["training"]).is_new

    def test_a_key_that_no_record_has_is_refused(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore, items: Callable[..., bytes]
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[b"raw"], [items(1)]]})
        with pytest.raises(KeyMissingError, match=r"none of the 2 record.*has the key itemid"):
            store.commit("d", source, key=["itemid"])
        assert store.names() == []
        assert store.commit("d", source, key=["item_id"]).is_new
        empty = write_examples(tmp_path / "b", {"train": [[]]})
        assert store.commit("d", empty).is_new

    @pytest.mark.parametrize("nothing", [b"", b"\n\0", b"\x12\0", b"\x1a\0"])
    def test_records_without_a_value_of_the_key_are_no_item(
        self, nothing: bytes, tmp_path: Path, write_examples: Write, store: DatasetStore
    ) -> None:
        """Such as TFX's CsvExampleGen makes of an empty cell."""

        def field(tag: int, data: bytes) -> bytes:
            return bytes((tag, len(data))) + data

        def record(label: bytes, item: bytes) -> bytes:
            features = {b"item_id": item, b"label": field(0x0A, field(0x0A, label))}
            entries = [field(0x0A, field(0x0A, name) + field(0x12, one)) for name, one in features.items()]
            return field(0x0A, b"".join(entries))

        item = field(0x0A, field(0x0A, b"i1"))
        first = {"train": [[record(b"a", item)]], "eval": [[record(b"b", nothing)]]}
        store.commit("d", write_examples(tmp_path / "a", first), key=["item_id"])
        second = {"train": [[*first["train"][0], record(b"c", nothing)]], "eval": first["eval"]}
        store.commit("d", write_examples(tmp_path / "b", second))
        found = store.diff("d", "v1", "v2")
        assert (found.count("added"), found.count("ambiguous")) == (1, 0)
        leaked = {"train": [[*second["train"][0], record(b"b", nothing)]]}
        with pytest.raises(SplitFirewallError, match=r"item_id= \(record"):  # by content
            store.commit("d", write_examples(tmp_path / "c", leaked))
        nobody = write_examples(tmp_path / "e", {"train": [[record(b"a", nothing)]]})
        with pytest.raises(KeyMissingError, match="has the key item_id"):
            store.commit("other", nobody, key=["item_id"])

    def test_training_splits_are_those_that_a_version_declared(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore, items: Callable[..., bytes]
    ) -> None:
        train, held = [items(n) for n in range(9)], [items(100), items(101)]
        first = write_examples(tmp_path / "a", {"fit": [train], "eval": [held]})
        store.commit("d", first, key=["item_id"], training_splits=["fit"])
        more = write_examples(tmp_path / "b", {"fit": [[*train, items(9)]], "eval": [held]})
        assert store.commit("d", more).manifest.training_splits == ["fit"]
        # Who calls eval a training split from now on trains on what was held out so far.
        both = write_examples(tmp_path / "c", {"fit": [train], "eval": [[*held, items(11)]]})
        with pytest.raises(SplitFirewallError, match="item_id=i100") as caught:
            store.commit("d", both, training_splits=["fit", "eval"])
        assert caught.value.total == 2

    def test_a_refusal_by_key_leaves_nothing_that_a_version_reads(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore, items: Callable[..., bytes]
    ) -> None:
        train, held = [items(n) for n in range(10)], [items(100)]
        store.commit("d", write_examples(tmp_path / "a", {"train": [train], "eval": [held]}), key=["item_id"])
        before = {path: path.stat().st_size for path in Path(store.url).rglob("*") if path.is_file()}
        leak = write_examples(tmp_path / "b", {"train": [[*train, items(100, "hat")]]})
        with pytest.raises(SplitFirewallError, match="item_id=i100"):
            store.commit("d", leak)
        assert [one.version for one in store.log("d")] == ["v1"]
        assert store.verify("d").is_whole
        assert {one.path.split("/")[1] for one in store.gc("d", is_dry_run=False, grace_s=0)} == {
            "packs",
            "keys",
        }
        after = {path: path.stat().st_size for path in Path(store.url).rglob("*") if path.is_file()}
        assert {path for path in after if "/keys/" not in str(path)} == set(before)


class TestDeclared:
    def test_a_key_is_declared_for_content_that_is_there_already(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore, items: Callable[..., bytes]
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[items(1), items(2)]]})
        assert store.commit("d", source).manifest.key == []
        again = store.commit("d", source, key=["item_id"], label="label")
        assert (again.is_new, again.manifest.key, again.manifest.label) == (False, ["item_id"], "label")
        assert (store.show("d").key, store.log("d")[0].label) == (["item_id"], "label")
        assert store.blame("d", "i1").versions == ["v1"]
        assert store.commit("d", write_examples(tmp_path / "b", {"train": [[items(2)]]})).manifest.key == [
            "item_id"
        ]
        found = store.verify("d")
        assert found.is_whole
        note = Path(store.url) / "d" / "declared" / "1.json"
        assert json.loads(note.read_text())["number"] == 1
        store.commit("d", source)
        assert len(list(note.parent.iterdir())) == 1, "said once, noted once"

    def test_a_key_that_no_record_has_is_refused_there_too(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore, items: Callable[..., bytes]
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[items(1), items(2)]]})
        store.commit("d", source)
        with pytest.raises(KeyMissingError, match="has the key typo"):
            store.commit("d", source, key=["typo"])
        assert store.show("d").key == []

    def test_what_is_not_said_stays_as_the_version_declared_it(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore, items: Callable[..., bytes]
    ) -> None:
        first = write_examples(tmp_path / "a", {"train": [[items(1), items(2)]]})
        store.commit("d", first, key=["item_id"], label="label")
        store.commit("d", write_examples(tmp_path / "b", {"train": [[items(2)]]}), key=[], label="other")
        again = store.commit("d", first).manifest
        assert (again.version, again.key, again.label) == ("v1", ["item_id"], "label")

    def test_an_earlier_version_is_found_whatever_the_newest_trains_on(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore
    ) -> None:
        first = write_examples(tmp_path / "a", {"train": [[b"a"]], "eval": [[b"b"]]})
        store.commit("d", first)
        store.commit("d", write_examples(tmp_path / "b", {"fit": [[b"c"]]}), training_splits=["fit"])
        again = store.commit("d", first)
        assert (again.is_new, again.manifest.version) == (False, "v1")
        with pytest.raises(NoTrainingSplitError):
            store.commit("d", write_examples(tmp_path / "c", {"train": [[b"d"]]}))

    def test_a_version_keeps_its_training_splits(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[b"a"]], "extra": [[b"b"]]})
        store.commit("d", source)
        with pytest.raises(
            FixedTrainingSplitsError,
            match=r"is d@v1 already, whose training splits are train, .*extra, train",
        ):
            store.commit("d", source, training_splits=["train", "extra"])
        assert not store.commit("d", source, training_splits=["train"]).is_new


class TestRaces:
    def test_a_tag_that_came_after_the_versions_were_listed_is_found(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore
    ) -> None:
        first = store.commit("d", write_examples(tmp_path / "a", {"train": [[b"a"]]})).manifest
        line = Line.read(open_storage(store.url), "d")
        store.commit("d", write_examples(tmp_path / "b", {"train": [[b"b"]]}))
        store.tag("d", "v2", "newest")
        assert line.resolve("newest").version == "v2"
        assert line.resolve(first.digest).version == "v1"
        assert line.tags()["newest"].version == "v2"

    def test_the_later_of_two_places_its_records_anew(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = write_examples(tmp_path / "one", {"train": [[b"a", b"b"]]})
        two = write_examples(tmp_path / "two", {"train": [[b"b", b"c"]]})
        overtake(monkeypatch, lambda: DatasetStore(store.url).commit("d", one))
        second = store.commit("d", two)
        assert (second.manifest.version, second.added, second.removed) == ("v2", 1, 1)
        assert store.verify("d").is_whole

    def test_records_that_have_no_place_make_no_version(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[b"a", b"b"]], "eval": [[b"c"]]})
        real = commit_module.finish

        def losing(line: Any, new_packs: Any, live: Any, *more: Any) -> Any:
            return real(
                line, new_packs, {place: rows for place, rows in live.items() if place[0] != "eval"}, *more
            )

        monkeypatch.setattr(commit_module, "finish", losing)
        with pytest.raises(CommitRecordsLostError, match=r"eval has 1 record\(s\), and 0 were placed"):
            store.commit("d", source)
        assert store.names() == []


def overtake(monkeypatch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Let somebody else's commit land just before the next manifest is created."""
    real, did = LocalStorage.create, []

    def create(self: LocalStorage, path: str, data: bytes) -> bool:
        if "/versions/" in path and not did:
            did.append(path)
            other()
        return real(self, path, data)

    monkeypatch.setattr(LocalStorage, "create", create)


def test_only_the_manifests_that_are_needed_are_read(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    for number in range(3):
        store.commit("d", write_examples(tmp_path / f"{number}", {"train": [[b"%d" % number]]}))
    store.tag("d", "v3", "gold")
    (Path(store.url) / "d" / "versions" / "v1.json").write_bytes(b"damage")
    for name in ("v2", "latest", "gold"):
        store.show("d", name)
    store.checkout("d", "gold", tmp_path / "out")
    with pytest.raises(CorruptStoreError, match=r"v1\.json is damaged"):
        store.log("d")


def test_a_user_without_a_name_commits(
    tmp_path: Path,
    write_examples: Write,
    store: DatasetStore,
    items: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    source = write_examples(tmp_path / "a", {"train": [[items(1), items(2)]]})
    made = store.commit("d", source, key=["item_id"]).manifest
    assert made.created_by.startswith(f"{os.getuid()}@")
    assert store.forget("d", "i1", is_erasing=True).is_erased


def test_a_long_run_of_new_records_is_copied_in_pieces(tmp_path: Path, write_examples: Write) -> None:
    record = bytes(1 << 20)
    source = write_examples(tmp_path / "a", {"train": [[b"%d" % n + record for n in range(48)]]})
    _, shards = list_shards(source)
    (found,) = scan_shards(shards)
    rows = np.arange(1, 48)
    part = ShardPart(
        found.shard, found.file_sha256, rows, found.ids[rows], found.sizes[rows], found.offsets()[rows]
    )
    tracemalloc.start()
    try:
        (pack,) = write_packs(open_storage(tmp_path / "store"), "d", [NewPack([part], is_whole=False)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pack.records == 47
    assert peak < 24 << 20


class Recorded:
    """A progress sink that remembers."""

    def __init__(self) -> None:
        self.done: dict[str, float] = {}

    def update(self, task: progress.Task) -> None:
        self.done[task.description] = max(task.done, self.done.get(task.description, 0))

    def finish(self, task: progress.Task) -> None:
        self.update(task)


@contextmanager
def recorded() -> Iterator[Recorded]:
    sink = Recorded()
    before = progress.set_sink(sink)
    try:
        yield sink
    finally:
        progress.set_sink(before)


class TestProgress:
    def test_every_step_of_a_commit_advances(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore
    ) -> None:
        rows = [b"%d" % n for n in range(100)]
        store.commit("d", write_examples(tmp_path / "a", {"train": [rows]}))
        with recorded() as sink:
            store.commit("d", write_examples(tmp_path / "b", {"train": [[*rows, b"more", b"and more"]]}))
        wanted = {"read indexes": 100, "read records": 102, "write new records": 2}
        assert {name: sink.done[name] for name in wanted} == wanted

    def test_waiting_for_others_is_reported(
        self, tmp_path: Path, write_examples: Write, store: DatasetStore, is_waiting: threading.Event
    ) -> None:
        source = write_examples(tmp_path / "a", {"train": [[b"a"]]})
        storage, is_held, may_go = open_storage(store.url), threading.Event(), threading.Event()

        def hold() -> None:
            with storage.hold("d", alone=True):
                is_held.set()
                may_go.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        is_held.wait()
        threading.Thread(target=lambda: (is_waiting.wait(60), may_go.set())).start()
        assert store.commit("d", source).is_new
        holder.join()
        assert is_waiting.is_set()


def test_a_first_commit_that_another_overtakes_lands_behind_it(
    tmp_path: Path, write_examples: Write, store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = write_examples(tmp_path / "a", {"train": [[b"a"], [b"b"]]})
    others = write_examples(tmp_path / "b", {"train": [[b"c"]]})
    real = commit_module.finish

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(commit_module, "finish", real)
        assert DatasetStore(store.url).commit("d", others).manifest.number == 1
        return real(*arguments)

    monkeypatch.setattr(commit_module, "finish", overtaken)
    assert store.commit("d", mine).manifest.number == 2
    assert store.verify("d").is_whole
