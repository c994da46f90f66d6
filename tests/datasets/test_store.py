"""What each verb of the store does."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.datasets import DatasetStore, scan
from mlplatform.datasets import errors as dataset_errors
from mlplatform.datasets.errors import (
    AmbiguousVersionError,
    BadNameError,
    CheckoutTargetError,
    DatasetNotFoundError,
    ForgottenRecordError,
    KeyValuesError,
    NoKeyError,
    NoSplitsError,
    NotExamplesError,
    SplitFirewallError,
    StoreFormatError,
    VersionNotFoundError,
)
from mlplatform.datasets.examples_folder import Shard, open_records
from mlplatform.storage.errors import CorruptStoreError

Write = Callable[..., Path]
Make = Callable[..., bytes]


def item(make: Make, number: int, label: str = "coat", **more: Any) -> bytes:
    return make({"item_id": f"i{number}", "label": label, **more})


@pytest.fixture
def items(make_example: Make) -> Callable[..., bytes]:
    return lambda number, label="coat", **more: item(make_example, number, label, **more)


def test_only_new_records_are_written(tmp_path: Path, write_examples: Write, store: DatasetStore) -> None:
    records = [os.urandom(1000) for _ in range(300)]
    first = store.commit("d", write_examples(tmp_path / "a", {"train": [records[:200]]}), message="first")
    assert (first.is_new, first.added, first.removed) == (True, 200, 0)
    second = store.commit("d", write_examples(tmp_path / "b", {"train": [records[100:250], [records[0]]]}))
    assert (second.manifest.version, second.added, second.removed) == ("v2", 50, 99)
    assert second.stored_bytes < 60 * 1000
    assert second.manifest.parent == first.manifest.digest
    assert [one.message for one in store.log("d")] == ["", "first"]


def test_a_version_is_found_by_number_tag_digest_and_latest(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    digests = [
        store.commit("d", write_examples(tmp_path / f"{n}", {"train": [[b"%d" % n]]})).manifest.digest
        for n in range(3)
    ]
    store.tag("d", "v2", "gold")
    assert store.show("d").version == store.show("d", "latest").version == "v3"
    assert store.show("d", "gold").version == store.show("d", digests[1][:10]).version == "v2"
    store.tag("d", "v1", "gold")
    assert store.show("d", "gold").version == "v1"
    with pytest.raises(VersionNotFoundError, match=r"has no version 'v9'; the newest are v3, v2, v1"):
        store.show("d", "v9")
    with pytest.raises(DatasetNotFoundError, match="has no dataset 'e'; it holds d"):
        store.show("e")


def test_a_digest_prefix_of_several_versions_is_refused(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    digests: list[str] = []
    while len({digest[0] for digest in digests}) == len(digests):
        source = write_examples(tmp_path / f"{len(digests)}", {"train": [[b"%d" % len(digests)]]})
        digests.append(store.commit("d", source).manifest.digest)
    with pytest.raises(AmbiguousVersionError, match="stands for several versions"):
        store.show("d", digests[-1][0])


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "../up", "x" * 101])
def test_names_that_could_leave_the_folder_are_refused(
    name: str, tmp_path: Path, store: DatasetStore
) -> None:
    with pytest.raises(BadNameError):
        store.show(name)


@pytest.mark.parametrize("tag", ["latest", "v7", "deadbeef", "a/b"])
def test_tags_that_would_hide_a_version_are_refused(
    tag: str, tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"a"]]}))
    with pytest.raises(BadNameError):
        store.tag("d", "v1", tag)


def test_exact_duplicates_stay_as_many_as_they_are(
    tmp_path: Path, write_examples: Write, read_examples: Callable[..., Any], store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"x"] * 5 + [b"y"], [b"x", b"z"]]}))
    store.commit("d", write_examples(tmp_path / "b", {"train": [[b"x"] * 2 + [b"y"] * 3]}))
    assert Counter(read_examples(store.checkout("d", "v1", tmp_path / "1"))["train"]) == {
        b"x": 6,
        b"y": 1,
        b"z": 1,
    }
    assert Counter(read_examples(store.checkout("d", "v2", tmp_path / "2"))["train"]) == {b"x": 2, b"y": 3}
    found = store.diff("d", "v1", "v2")
    assert (found.count("removed"), found.count("added"), found.unchanged) == (5, 2, 3)
    assert store.show("d").splits["train"].distinct == 2


def test_the_diff_pairs_by_key_and_never_by_guess(
    tmp_path: Path, write_examples: Write, store: DatasetStore, items: Callable[..., bytes]
) -> None:
    before = [items(n, "coat" if n % 2 else "hat") for n in range(20)]
    after = before[2:]  # 0 and 1 are removed
    after[0] = items(2, "coat")  # relabelled: was a hat
    after[1] = items(3, "coat", color="red")  # changed, same class
    after += [items(50), items(51, "scarf")]  # added
    after += [items(4, "hat", seen=1), items(4, "hat", seen=2)]  # two with one key: ambiguous
    store.commit(
        "d",
        write_examples(tmp_path / "a", {"train": [before], "eval": [[items(90), items(91)]]}),
        key=["item_id"],
        label="label",
    )
    moved = {"train": [[*after, items(90)]], "eval": [[items(91)]]}
    store.commit("d", write_examples(tmp_path / "b", moved), is_firewall_on=False)
    found = store.diff("d", "v1", "v2")
    counts = {kind: found.count(kind) for kind in ("added", "removed", "changed", "moved", "ambiguous")}
    assert counts == {"added": 2, "removed": 2, "changed": 2, "moved": 1, "ambiguous": 2}
    assert found.unchanged == 16 + 1
    assert found.by_split["train"]["moved_in"] == found.by_split["eval"]["moved_out"] == 1
    assert found.by_label["hat"]["relabelled_out"] == found.by_label["coat"]["relabelled_in"] == 1
    assert found.by_label["scarf"]["added"] == 1
    (relabelled,) = (one for one in found.of_kind("changed") if one.label_before != one.label_after)
    assert (relabelled.key, relabelled.label_before, relabelled.label_after) == (("i2",), "hat", "coat")
    without = store.diff("d", "v1", "v2", key=())
    assert (without.count("added"), without.count("removed"), without.count("changed")) == (6, 4, 0)


def test_the_firewall_stops_held_out_items_by_content_and_by_key(
    tmp_path: Path, write_examples: Write, store: DatasetStore, items: Callable[..., bytes]
) -> None:
    train, held = [items(n) for n in range(10)], [items(n) for n in range(100, 105)]
    store.commit("d", write_examples(tmp_path / "a", {"train": [train], "eval": [held]}), key=["item_id"])
    store.commit("d", write_examples(tmp_path / "b", {"train": [train], "eval": [held[1:]]}))
    packs = sorted((Path(store.url) / "d" / "packs").iterdir())
    with pytest.raises(SplitFirewallError, match=r"item_id=i100 \(record [0-9a-f]{32}\)") as caught:
        store.commit("d", write_examples(tmp_path / "c", {"train": [[*train, held[0]]], "eval": [held[1:]]}))
    assert caught.value.total == 1
    assert sorted((Path(store.url) / "d" / "packs").iterdir()) == packs
    relabelled = items(101, "hat")
    with pytest.raises(SplitFirewallError, match="item_id=i101"):
        store.commit(
            "d", write_examples(tmp_path / "e", {"train": [[*train, relabelled]], "eval": [held[2:]]})
        )
    assert store.show("d").version == "v2"
    # A training item that changes stays a training item, and the firewall can be turned off.
    changed = [items(0, "hat"), *train[1:]]
    assert store.commit("d", write_examples(tmp_path / "f", {"train": [changed], "eval": [held]})).is_new
    spoiled = write_examples(tmp_path / "g", {"train": [[*train, relabelled]], "eval": [held[2:]]})
    assert store.commit("d", spoiled, is_firewall_on=False).is_new


def test_blame_names_versions_splits_and_what_was_made_from_them(
    tmp_path: Path, write_examples: Write, store: DatasetStore, items: Callable[..., bytes]
) -> None:
    store.commit(
        "d", write_examples(tmp_path / "a", {"train": [[items(1), items(2)]]}), key=["item_id"], label="label"
    )
    store.commit("d", write_examples(tmp_path / "b", {"train": [[items(1, "hat"), items(2)]]}))
    store.commit("d", write_examples(tmp_path / "c", {"train": [[items(2)]]}))
    store.record_use("d", "v1", "model", "item_category@1", "run 7")
    store.record_use("d", "v1", "model", "item_category@1", "run 7")
    store.record_use("d", "v3", "push", "item_category@2")
    found = store.blame("d", "i1")
    assert found.versions == ["v1", "v2"]
    assert {
        one.label: [(a.version, a.split, a.copies) for a in one.appearances] for one in found.records
    } == {
        "coat": [("v1", "train", 1)],
        "hat": [("v2", "train", 1)],
    }
    assert [(use.kind, use.name, use.detail) for use in found.uses] == [("model", "item_category@1", "run 7")]
    assert store.blame("d", "nobody").records == []
    assert store.blame("d", "hat", key=["label"]).versions == ["v2"]
    assert store.blame("d", "i1,hat", key=["item_id", "label"]).versions == ["v2"]
    with pytest.raises(KeyValuesError):
        store.blame("d", "i1", key=["item_id", "label"])
    store.commit("e", tmp_path / "a")
    by_any = store.blame("e", "i1")
    assert (by_any.versions, by_any.found_in) == (["v1"], ("item_id",))
    with pytest.raises(NoKeyError):
        store.blame("e", "i1", key=[])
    with pytest.raises(NoKeyError):
        store.forget("e", "i1")


@pytest.mark.parametrize("gz", [False, True])
def test_forgetting_erases_the_bytes_everywhere_and_keeps_the_rest(
    gz: bool,
    tmp_path: Path,
    write_examples: Write,
    read_examples: Callable[..., Any],
    store: DatasetStore,
    make_example: Make,
) -> None:
    secret = "secret-" * 20
    everyone = [make_example({"item_id": f"i{n}", "text": f"{secret}{n}"}) for n in range(30)]
    store.commit("d", write_examples(tmp_path / "a", {"train": [everyone]}, gz), key=["item_id"])
    store.commit("d", write_examples(tmp_path / "b", {"train": [everyone[:20]]}, gz))
    digests = [one.digest for one in store.log("d")]
    asked = store.forget("d", "i3")
    assert (asked.is_erased, asked.blame.versions) == (False, ["v1", "v2"])
    assert store.verify("d").is_whole
    done = store.forget("d", "i3", is_erasing=True, why="asked to")
    assert done.is_erased
    assert [one.digest for one in store.log("d")] == digests
    for version, count in (("v1", 29), ("v2", 19)):
        records = read_examples(store.checkout("d", version, tmp_path / version))["train"]
        assert len(records) == count
        assert everyone[3] not in records
    assert store.blame("d", "i3").records == []
    assert store.blame("d", "i4").versions == ["v1", "v2"]
    found = store.verify("d")
    assert found.is_whole, found.problems
    assert store.gc("d", grace_s=0) == []
    with pytest.raises(ForgottenRecordError, match="source still has them: item_id=i3"):
        store.commit("d", write_examples(tmp_path / "c", {"train": [[*everyone[2:5], b"more"]]}))


def test_export_writes_parquet_that_others_read(
    tmp_path: Path, write_examples: Write, store: DatasetStore, make_example: Make
) -> None:
    import pyarrow.parquet as pq

    rows = [
        make_example({"item_id": f"i{n}", "price": n - 2, "raw": b"\xff\x00" if n else b"ok"})
        for n in range(5)
    ]
    rows += [rows[0], make_example({"item_id": "last"})]
    store.commit("d", write_examples(tmp_path / "a", {"train": [rows], "eval": [[]]}))
    folder = store.export("d", "v1", tmp_path / "out")
    table = pq.read_table(folder / "train.parquet").to_pylist()
    key = lambda row: (row["item_id"], row["price"] or 0)  # noqa: E731
    assert sorted(table, key=key) == sorted(
        [
            *(
                {"item_id": f"i{n}", "price": n - 2, "raw": b"\xff\x00" if n else b"ok"}
                for n in (0, 0, 1, 2, 3, 4)
            ),
            {"item_id": "last", "price": None, "raw": None},
        ],
        key=key,
    )
    assert pq.read_table(folder / "eval.parquet").num_rows == 0
    store.commit("d", write_examples(tmp_path / "b", {"train": [[b"no example"]]}))
    with pytest.raises(NotExamplesError):
        store.export("d", "v2", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_mix_of_plain_and_gzip_is_checked_out_as_one_kind(
    tmp_path: Path, write_examples: Write, read_examples: Callable[..., Any], store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"a", b"b"]]}, gz=True))
    store.commit("d", write_examples(tmp_path / "b", {"train": [[b"a", b"c"]], "eval": [[]]}))
    assert {path.suffix for path in store.checkout("d", "v1", tmp_path / "1").rglob("data*")} == {".gz"}
    out = store.checkout("d", "v2", tmp_path / "2")
    assert {path.suffix for path in out.rglob("data*")} == {""}
    found = read_examples(out)
    assert (sorted(found["train"]), found["eval"]) == ([b"a", b"c"], [])
    again = store.checkout("d", "v2", tmp_path / "3")
    assert all(
        (again / path.relative_to(out)).read_bytes() == path.read_bytes() for path in out.rglob("data*")
    )


def test_a_checkout_refuses_a_folder_in_use_and_a_commit_one_without_examples(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    source = write_examples(tmp_path / "a", {"train": [[b"a"]]})
    store.commit("d", source)
    with pytest.raises(CheckoutTargetError):
        store.checkout("d", "v1", source)
    (tmp_path / "empty").mkdir()
    store.checkout("d", "v1", tmp_path / "empty")
    with pytest.raises(NoSplitsError, match="Split-<name>"):
        store.commit("d", tmp_path)
    with pytest.raises(NoSplitsError):
        store.commit("d", tmp_path / "missing")


def test_a_reader_refuses_a_format_that_it_does_not_know(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    from mlplatform.datasets.format.manifest import sealed

    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"a"]]}))
    path = Path(store.url) / "d" / "versions" / "v1.json"
    fields = json.loads(path.read_bytes())
    del fields["sha256"]
    path.write_bytes(sealed({**fields, "format": 2}))
    with pytest.raises(StoreFormatError, match="format 2, and this mlplatform reads 1"):
        store.show("d")
    (Path(store.url) / "store.json").unlink()
    with pytest.raises(StoreFormatError):
        store.show("d")


def test_a_version_in_the_middle_that_is_missing_is_noticed(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    for n in range(3):
        store.commit("d", write_examples(tmp_path / f"{n}", {"train": [[b"%d" % n]]}))
    (Path(store.url) / "d" / "versions" / "v2.json").unlink()
    with pytest.raises(CorruptStoreError, match="it is missing"):
        store.show("d")


def test_several_workers_find_what_one_does(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    source = write_examples(
        tmp_path / "a", {"train": [[os.urandom(50) for _ in range(100)] for _ in range(5)]}
    )
    alone = store.commit("d", source, workers=1).manifest
    together = DatasetStore(tmp_path / "other").commit("d", source, workers=3).manifest
    assert together.digest == alone.digest
    (source / "Split-train" / "data_tfrecord-00003-of-00005").write_bytes(b"damage")
    with pytest.raises(dataset_errors.CorruptRecordsError, match="00003-of-00005"):
        DatasetStore(tmp_path / "third").commit("d", source, workers=3)


def test_a_damaged_shard_ends_the_reading_of_all(
    tmp_path: Path, write_examples: Write, store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_examples(tmp_path / "a", {"train": [[b"%d" % n] for n in range(200)]})
    (source / "Split-train" / "data_tfrecord-00000-of-00200").write_bytes(b"damage" * 100)  # the largest
    opened, readers, may_go_on = [], [], threading.Event()

    def open_shard(shard: Shard, copy: Any = None) -> contextlib.AbstractContextManager[Any]:
        opened.append(shard.path)
        readers.append(threading.current_thread())
        if not shard.path.endswith("00000-of-00200"):
            may_go_on.wait(60)  # until the damage was told
        return open_records(shard, copy)

    monkeypatch.setattr(scan, "open_records", open_shard)
    with pytest.raises(dataset_errors.CorruptRecordsError):
        store.commit("d", source, workers=2)
    may_go_on.set()
    for reader in readers:
        reader.join(60)
    assert len(opened) <= 2


def test_a_read_that_hangs_holds_up_no_interrupt(tmp_path: Path, write_examples: Write) -> None:
    source = write_examples(tmp_path / "a", {"train": [[b"a"], [b"b"]]})
    hanging = source / "Split-train" / "data_tfrecord-00001-of-00002"
    script = (
        "import os, signal, sys, threading\n"
        "from mlplatform.datasets import scan\n"
        "from mlplatform.datasets.examples_folder import list_shards\n"
        "_, shards = list_shards(sys.argv[1])\n"
        "os.unlink(sys.argv[2])\n"
        "os.mkfifo(sys.argv[2])\n"  # who opens it waits
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # the tests may run with it ignored
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "scan.scan_shards(shards)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(hanging)], capture_output=True, text=True, timeout=60
    )
    assert done.stderr.rstrip().endswith("KeyboardInterrupt"), done.stderr


def test_the_diff_page_shows_pictures_and_needs_no_network(
    tmp_path: Path, write_examples: Write, store: DatasetStore, make_example: Make
) -> None:
    import io

    from PIL import Image

    from mlplatform.reports.dataset_diff_page import write_dataset_diff

    def photo(number: int, label: str, color: str) -> bytes:
        out = io.BytesIO()
        Image.new("RGB", (300, 200), color).save(out, "PNG")
        return make_example({"image/encoded": out.getvalue(), "item_id": f"i{number}", "label": label})

    before = [photo(n, "coat", "red") for n in range(4)]
    after = [*before[1:3], photo(3, "<hat>", "blue"), photo(9, "scarf", "green")]
    store.commit("d", write_examples(tmp_path / "a", {"train": [before]}), key=["item_id"], label="label")
    store.commit("d", write_examples(tmp_path / "b", {"train": [after]}))
    page = write_dataset_diff(tmp_path / "diff.html", store, store.diff("d", "v1", "v2")).read_text()
    assert page.count("data:image/jpeg;base64,") == 1 + 1 + 2
    assert "http" not in page.replace("http-equiv", "")
    assert "&lt;hat&gt;" in page
    assert "<hat>" not in page
    for title in ("Changed items", "Added items", "Removed items"):
        assert title in page


def test_nothing_is_left_behind_by_a_failed_checkout(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"a", b"b"]]}))
    store.commit("d", write_examples(tmp_path / "b", {"train": [[b"a"]]}))
    for pack in (Path(store.url) / "d" / "packs").glob("*.tfrecord"):
        pack.unlink()
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(CorruptStoreError, match="it is missing"):
        store.checkout("d", "v2", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "store"]


def test_which_records_a_version_has_is_missing(
    tmp_path: Path, write_examples: Write, store: DatasetStore
) -> None:
    store.commit("d", write_examples(tmp_path / "a", {"train": [[b"a"]]}))
    store.commit("d", write_examples(tmp_path / "b", {"train": [[b"b"]]}))
    (Path(store.url) / "d" / "bitmaps" / store.show("d", "v1").bitmaps).unlink()
    for ask in (
        lambda: store.diff("d", "v1", "v2"),
        lambda: store.checkout("d", "v1", tmp_path / "out"),
    ):
        with pytest.raises(CorruptStoreError, match=r"bitmaps/\S+ is damaged: it is missing"):
            ask()
    assert not (tmp_path / "out").exists()


def test_the_manifest_of_a_version_is_json_that_anyone_reads(
    tmp_path: Path, write_examples: Write, items: Callable[..., bytes], store: DatasetStore
) -> None:
    source = write_examples(tmp_path / "a", {"train": [[items(1)]]})
    store.commit("d", source, key=["item_id"], message="why")
    facts = json.loads((Path(store.url) / "d" / "versions" / "v1.json").read_text())
    assert (facts["dataset"], facts["number"], facts["key"], facts["message"]) == (
        "d",
        1,
        ["item_id"],
        "why",
    )
    assert facts["splits"]["train"]["records"] == 1
