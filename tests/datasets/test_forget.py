"""Forgetting: the bytes are gone, whatever races or kills it, and what used them stays known."""

import gzip
import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlplatform.cli.datasets import datasets
from mlplatform.datasets import DatasetStore
from mlplatform.datasets.errors import ForgottenRecordError, SplitFirewallError
from mlplatform.storage import open_storage

Write = Callable[..., Path]
Make = Callable[..., bytes]


def contents(store: DatasetStore) -> Iterator[tuple[Path, bytes]]:
    """Yield every file of a store; a gzip pack's records, and the file itself."""
    for path in Path(store.url).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            yield path, data
            if path.suffix == ".gz":
                yield path, gzip.decompress(data)


def holders(store: DatasetStore, text: bytes) -> list[Path]:
    return [path for path, data in contents(store) if text in data]


def people(make: Make, count: int = 30) -> list[bytes]:
    return [make({"item_id": f"i{n}", "text": f"secret-{n:03d}-" * 20, "label": "x"}) for n in range(count)]


@pytest.mark.parametrize("gz", [False, True])
def test_no_file_of_the_store_holds_the_bytes_afterwards(
    gz: bool, tmp_path: Path, write_examples: Write, store: DatasetStore, make_example: Make
) -> None:
    everyone = people(make_example)
    first = {"train": [everyone[:20]], "eval": [everyone[20:]]}
    store.commit("d", write_examples(tmp_path / "a", first, gz), key=["item_id"])
    changed = make_example({"item_id": "i3", "text": "secret-003-new"})
    second = {"train": [[*everyone[:3], changed, *everyone[4:20]]], "eval": [everyone[20:]]}
    store.commit("d", write_examples(tmp_path / "b", second, gz))  # by key: the hashes of keys are kept
    assert list((Path(store.url) / "d" / "keys").iterdir())
    for text in (everyone[3], changed):
        assert holders(store, text)
    done = store.forget("d", "i3", is_erasing=True, why="asked to")
    assert (done.is_erased, done.blame.versions, len(done.blame.records)) == (True, ["v1", "v2"], 2)
    for text in (everyone[3], changed, b"secret-003", b"i3\x12", b"\x02i3"):
        assert holders(store, text) == []
    assert len(holders(store, everyone[4])) >= 1
    found = store.verify("d")
    assert found.is_whole, found.problems


def test_what_a_refused_commit_left_is_gone_too(
    tmp_path: Path, write_examples: Write, store: DatasetStore, make_example: Make
) -> None:
    everyone = people(make_example)
    first = write_examples(tmp_path / "a", {"train": [everyone[:20]], "eval": [everyone[20:]]})
    store.commit("d", first, key=["item_id"])
    leaked = make_example({"item_id": "i25", "text": "secret-025-new"})
    with pytest.raises(SplitFirewallError):
        store.commit("d", write_examples(tmp_path / "b", {"train": [[*everyone[:20], leaked]]}))
    assert holders(store, b"secret-025-new")
    store.forget("d", "i25", is_erasing=True)
    assert holders(store, b"secret-025") == []
    assert store.verify("d").is_whole
    stranger = make_example({"item_id": "i99", "text": "secret-099"})  # in no version
    with pytest.raises(SplitFirewallError):
        store.commit(
            "d", write_examples(tmp_path / "c", {"train": [[*everyone[:20], everyone[26], stranger]]})
        )
    assert not store.forget("d", "i99", is_erasing=True).is_erased
    assert holders(store, b"secret-099") == []


def test_where_nothing_is_held_what_a_commit_may_need_is_left_to_gc(
    tmp_path: Path, write_examples: Write, make_example: Make
) -> None:
    store, everyone = DatasetStore(f"memory://{uuid.uuid4().hex}"), people(make_example)
    first = write_examples(tmp_path / "a", {"train": [everyone[:20]], "eval": [everyone[20:]]})
    store.commit("d", first, key=["item_id"])
    leaked = make_example({"item_id": "i25", "text": "secret-025-new"})
    with pytest.raises(SplitFirewallError):
        store.commit("d", write_examples(tmp_path / "b", {"train": [[*everyone[:20], leaked]]}))
    left = {one.path for one in store.gc("d", grace_s=0)}
    assert any(path.startswith("d/packs/") for path in left)
    assert store.forget("d", "i25", is_erasing=True).is_erased
    assert {one.path for one in store.gc("d", grace_s=0)} == left
    assert store.verify("d").is_whole


def test_how_many_records_a_version_lacks_is_said(
    tmp_path: Path, write_examples: Write, store: DatasetStore, make_example: Make
) -> None:
    everyone = people(make_example)
    source = write_examples(
        tmp_path / "a", {"train": [[*everyone[:20], everyone[3]]], "eval": [everyone[20:]]}
    )
    store.commit("d", source, key=["item_id"])
    assert store.erased("d") == {}
    store.forget("d", "i3", is_erasing=True)
    assert store.erased("d") == {"train": 2}
    run = CliRunner().invoke
    shown = run(datasets, ["show", "d", "--store", store.url])
    assert "split train: 21 records, 20 different; 2 erased since" in shown.output
    written = run(datasets, ["checkout", "d@v1", str(tmp_path / "out"), "--store", store.url])
    assert "d@v1: 19 in train, 10 in eval (without 2 that were erased)" in written.output.replace(
        "10 in eval, 19 in train", "19 in train, 10 in eval"
    )


def test_the_note_keeps_who_used_it_and_not_whose_it_was(
    tmp_path: Path, write_examples: Write, store: DatasetStore, make_example: Make
) -> None:
    everyone = people(make_example)
    store.commit("d", write_examples(tmp_path / "a", {"train": [everyone]}), key=["item_id"])
    store.commit("d", write_examples(tmp_path / "b", {"train": [everyone[:3]]}))
    store.record_use("d", "v1", "model", "item_category@1", "run 7")
    store.forget("d", "i7", is_erasing=True, why="asked to")
    (path,) = (Path(store.url) / "d" / "forgotten").iterdir()
    note = json.loads(path.read_text())
    assert note["versions"] == ["v1"]
    assert [(use["kind"], use["name"]) for use in note["uses"]] == [("model", "item_category@1")]
    assert "i7" not in path.read_text()


def test_a_commit_that_lands_while_forget_waits_is_erased_too(
    tmp_path: Path,
    write_examples: Write,
    store: DatasetStore,
    make_example: Make,
    is_waiting: threading.Event,
) -> None:
    everyone = people(make_example)
    store.commit("d", write_examples(tmp_path / "a", {"train": [everyone]}), key=["item_id"])
    changed = make_example({"item_id": "i3", "text": "secret-003-new"})
    source = write_examples(tmp_path / "b", {"train": [[*everyone[4:], changed]]})
    storage = open_storage(store.url)
    done: list[Any] = []
    with storage.hold("d", alone=False):  # as a commit does
        forgetting = threading.Thread(target=lambda: done.append(store.forget("d", "i3", is_erasing=True)))
        forgetting.start()
        assert is_waiting.wait(60)
        assert not done
        store.commit("d", source)
    forgetting.join()
    assert done[0].blame.versions == ["v1", "v2"]
    assert holders(store, b"secret-003") == []
    assert store.blame("d", "i3").records == []


@pytest.mark.parametrize("verb", ["checkout", "export", "diff", "verify", "blame"])
def test_forget_waits_for_those_who_read(
    verb: str,
    tmp_path: Path,
    write_examples: Write,
    store: DatasetStore,
    make_example: Make,
    monkeypatch: pytest.MonkeyPatch,
    is_waiting: threading.Event,
) -> None:
    everyone = people(make_example)
    store.commit("d", write_examples(tmp_path / "a", {"train": [everyone]}), key=["item_id"])
    store.commit("d", write_examples(tmp_path / "b", {"train": [everyone[1:]]}))
    is_reading, may_go_on, is_erased = threading.Event(), threading.Event(), threading.Event()
    from mlplatform.datasets import checkout, diff, export, verify, blame  # noqa: I001

    module, slow = {
        "checkout": (checkout, "live_records"),
        "export": (export, "live_records"),
        "diff": (diff, "read_live"),
        "verify": (verify, "read_live"),
        "blame": (blame, "read_live"),
    }[verb]
    real = getattr(module, slow)

    def slowly(*arguments: Any) -> Any:
        is_reading.set()
        may_go_on.wait(60)
        return real(*arguments)

    monkeypatch.setattr(module, slow, slowly)
    calls = {
        "checkout": lambda: store.checkout("d", "v1", tmp_path / "out"),
        "export": lambda: store.export("d", "v1", tmp_path / "out"),
        "diff": lambda: store.diff("d", "v1", "v2"),
        "verify": lambda: store.verify("d"),
        "blame": lambda: store.blame("d", "i4"),
    }
    reading = threading.Thread(target=calls[verb])
    reading.start()
    assert is_reading.wait(60)

    def forget() -> None:
        DatasetStore(store.url).forget("d", "i3", is_erasing=True)
        is_erased.set()

    forgetting = threading.Thread(target=forget)
    forgetting.start()
    assert is_waiting.wait(60)
    assert not is_erased.is_set()
    may_go_on.set()
    reading.join()
    forgetting.join()
    assert is_erased.is_set()


@pytest.mark.parametrize("gz", [False, True])
def test_a_flipped_byte_of_an_erased_pack_is_found(
    gz: bool, tmp_path: Path, write_examples: Write, store: DatasetStore, make_example: Make
) -> None:
    store.commit(
        "d", write_examples(tmp_path / "a", {"train": [people(make_example, 5)]}, gz), key=["item_id"]
    )
    for name in ("i1", "i3"):
        store.forget("d", name, is_erasing=True)
    assert store.verify("d").is_whole
    (pack,) = (Path(store.url) / "d" / "packs").glob("*.tfrecord*")
    data = pack.read_bytes()
    pack.chmod(0o644)
    for place in range(0, len(data), 1 if gz else 7):
        pack.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert not store.verify("d").is_whole, place
    pack.write_bytes(data)
    assert store.verify("d").is_whole


FORGET = """
import sys
from mlplatform.datasets import DatasetStore
from mlplatform.datasets import forget, verify  # noqa: F401 - what is measured is the work, not its imports
store = DatasetStore(sys.argv[1])
store.show("d")
print("ready", flush=True)
store.forget("d", "i7", is_erasing=True)
"""


@pytest.mark.parametrize("gz", [False, True])
def test_a_forget_that_is_killed_is_finished_by_the_next(
    gz: bool, tmp_path: Path, write_examples: Write, make_example: Make
) -> None:
    rng = random.Random(3)
    everyone = people(make_example, 400)
    source = write_examples(tmp_path / "a", {"train": [everyone[:200], everyone[200:]]}, gz)
    killed = 0
    for number in itertools.count():
        if number >= 8 and killed >= 3:
            break
        assert number < 100, f"{killed} of {number} were killed"
        store = DatasetStore(tmp_path / f"store-{number}")
        store.commit("d", source, key=["item_id"])
        child = subprocess.Popen([sys.executable, "-c", FORGET, store.url], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.random() * 0.03)
        child.kill()
        killed += child.wait() == -signal.SIGKILL
        child.stdout.close()
        if not any((Path(store.url) / "d" / "forgotten").glob("*.json")):
            assert holders(store, everyone[7])
            store.forget("d", "i7", is_erasing=True)
        store.gc("d", is_dry_run=False, grace_s=0)  # finishes what was begun, and takes away what is left
        assert holders(store, b"secret-007") == []
        found = store.verify("d")
        assert found.is_whole, found.problems
        assert store.gc("d", grace_s=0) == []
        with pytest.raises(ForgottenRecordError):
            store.commit("d", write_examples(tmp_path / f"b-{number}", {"train": [everyone[:50]]}, gz))
