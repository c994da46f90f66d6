"""The Beam path makes the same version as the other one."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google_crc32c import value as crc32c

from mlplatform import progress
from mlplatform.datasets import DatasetStore, beam_commit
from mlplatform.datasets.errors import (
    CommitFilesLostError,
    CorruptRecordsError,
    ForgottenRecordError,
    SplitFirewallError,
)
from mlplatform.datasets.format.tfrecord import HEADER_BYTES, frame, mask
from mlplatform.storage import LocalStorage

Write = Callable[..., Path]
IN_PROCESS = ["--runner=DirectRunner"]
pytestmark = pytest.mark.usefixtures("beam_of_nodes")


def test_beam_makes_the_same_versions(
    tmp_path: Path,
    write_examples: Write,
    make_example: Callable[..., bytes],
    read_examples: Callable[..., Any],
) -> None:
    rng = random.Random(5)
    rows = [make_example({"id": f"{n}", "label": f"{n % 3}", "x": os.urandom(30)}, n) for n in range(3000)]
    train, held = rows[:2400], rows[2400:2700]
    contents: list[tuple[dict[str, list[list[bytes]]], bool]] = [
        ({"train": [train[:1000], train[1000:2000], train[2000:] + train[:7]], "eval": [held]}, False),
        ({"train": [train[1500:], train[:1300]], "eval": [held, []]}, False),  # reshuffled, some removed
        ({"train": [rng.sample(train, 2000) + rows[2800:] + [b"raw"]], "eval": [held[:50] * 2]}, True),
        (
            {"train": [train[:1000], train[1000:2000], train[2000:] + train[:7]], "eval": [held]},
            True,
        ),  # the first
        ({"train": [[]], "other": [[rows[0]]]}, False),
    ]
    plain, on_beam = DatasetStore(tmp_path / "plain"), DatasetStore(tmp_path / "beam")
    for number, (content, gz) in enumerate(contents):
        source = write_examples(tmp_path / f"in{number}", content, gz)
        one = plain.commit("d", source, key=["id"])
        two = on_beam.commit("d", source, key=["id"], beam_options=IN_PROCESS)
        assert two.is_new == one.is_new == (number != 3)
        for name in ("digest", "number", "added", "removed", "splits", "packs", "bitmaps", "stored_bytes"):
            assert getattr(two.manifest, name) == getattr(one.manifest, name), (number, name)
    assert on_beam.verify("d").is_whole
    assert on_beam.gc("d", grace_s=0) == []
    for version in ("v1", "v3"):
        assert read_examples(on_beam.checkout("d", version, tmp_path / f"b{version}")) == read_examples(
            plain.checkout("d", version, tmp_path / f"p{version}")
        )
    leak = write_examples(tmp_path / "leak", {"train": [[held[60]]]})
    with pytest.raises(SplitFirewallError):
        on_beam.commit("d", leak, beam_options=IN_PROCESS)
    on_beam.forget("d", "2", is_erasing=True)
    with pytest.raises(ForgottenRecordError):
        on_beam.commit("d", write_examples(tmp_path / "back", {"train": [rows[:5]]}), beam_options=IN_PROCESS)

    damaged = write_examples(tmp_path / "damaged", {"train": [[b"a"], [b"b"]]})
    (damaged / "Split-train" / "data_tfrecord-00001-of-00002").write_bytes(b"half")
    untouched = DatasetStore(tmp_path / "untouched")
    with pytest.raises((CorruptRecordsError, RuntimeError), match="ends inside a record"):
        untouched.commit("d", damaged, beam_options=IN_PROCESS)
    assert untouched.names() == []
    assert not (tmp_path / "untouched" / "d" / "packs").exists()


LOST = ["shard-0", "facts-1", "pack-0", "new-0", "match-0", "written-0", "keys-0"]


def test_a_result_that_does_not_arrive_is_an_error_and_no_version(
    tmp_path: Path,
    write_examples: Write,
    make_example: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [make_example({"id": f"{n}"}) for n in range(30)]
    store = DatasetStore(tmp_path / "store")
    first = {"train": [rows[:10]], "eval": [rows[25:]]}
    store.commit("d", write_examples(tmp_path / "a", first), key=["id"])
    source = write_examples(tmp_path / "b", {"train": [rows[:10], rows[10:20]], "eval": [rows[25:]]})
    real = LocalStorage.put
    for lost in LOST:

        def put(self: LocalStorage, path: str, data: bytes, lost: str = lost) -> None:
            if not path.endswith(f"/{lost}"):  # else it lands on a disk that only the worker has
                real(self, path, data)

        monkeypatch.setattr(LocalStorage, "put", put)
        with pytest.raises(CommitFilesLostError, match=rf"1 file.*/{lost}\. Nothing was committed"):
            store.commit("d", source, beam_options=IN_PROCESS)
        assert [one.version for one in store.log("d")] == ["v1"]
    monkeypatch.setattr(LocalStorage, "put", real)
    assert list((tmp_path / "store" / "d").glob(".aside-*")) == []
    assert store.commit("d", source, beam_options=IN_PROCESS).added == 10
    assert store.verify("d").is_whole


def test_content_with_a_forgotten_record_does_not_come_back(
    tmp_path: Path, write_examples: Write, make_example: Callable[..., bytes]
) -> None:
    store = DatasetStore(tmp_path / "store")
    source = write_examples(tmp_path / "a", {"train": [[make_example({"id": f"{n}"}) for n in range(3)]]})
    store.commit("d", source, key=["id"], beam_options=IN_PROCESS)
    store.forget("d", "1", is_erasing=True)
    with pytest.raises(ForgottenRecordError):
        store.commit("d", source, beam_options=IN_PROCESS)


def test_the_later_of_two_compares_anew(
    tmp_path: Path, write_examples: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DatasetStore(tmp_path / "store")
    one = write_examples(tmp_path / "one", {"train": [[b"a", b"b"]]})
    two = write_examples(tmp_path / "two", {"train": [[b"b", b"c"]]})
    real, did = LocalStorage.create, []

    def create(self: LocalStorage, path: str, data: bytes) -> bool:
        if "/versions/" in path and not did:
            did.append(path)
            DatasetStore(store.url).commit("d", one)
        return real(self, path, data)

    monkeypatch.setattr(LocalStorage, "create", create)
    second = store.commit("d", two, beam_options=IN_PROCESS)
    assert (second.manifest.version, second.added, second.removed) == ("v2", 1, 1)
    assert store.verify("d").is_whole


@pytest.mark.slow
def test_workers_of_their_own_make_the_same_version_and_the_engine_moves_numbers_only(
    tmp_path: Path, write_examples: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [os.urandom(40) for _ in range(300)]
    source = write_examples(tmp_path / "a", {"train": [rows[:100], rows[100:200]], "eval": [rows[200:]]})
    plain, on_beam = DatasetStore(tmp_path / "plain"), DatasetStore(tmp_path / "beam")
    monkeypatch.setattr(beam_commit, "_MATCHED_RECORDS", 50)  # several ranges of ids
    flags = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    one, two = plain.commit("d", source).manifest, on_beam.commit("d", source, beam_options=flags).manifest
    for name in ("digest", "splits", "packs", "bitmaps", "stored_bytes"):
        assert getattr(two, name) == getattr(one, name)


MEASURED = """
import re, sys
from pathlib import Path
from mlplatform.datasets import DatasetStore

def peak():  # in kB; getrusage would count what the memory of the tests' own process was
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

store = DatasetStore(sys.argv[1])
store.commit("d", sys.argv[2], beam_options=[])
before = peak()
store.commit("d", sys.argv[3], beam_options=[])
print((peak() - before) << 10)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Fifty shards take little more than two: all at once, 32 bytes a record would be 64 MB."""
    small, large = write_rows(tmp_path / "small", 2, 40_000), write_rows(tmp_path / "large", 50, 40_000)
    script = (
        "from mlplatform.datasets import beam_commit; beam_commit._MATCHED_RECORDS = 1 << 15\n" + MEASURED
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store"), str(small), str(large)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 40 << 20


def write_rows(folder: Path, shards: int, count: int) -> Path:
    """Write records of one size: their frames begin alike, so two million take seconds."""
    place = folder / "Split-train"
    place.mkdir(parents=True)
    header = frame(bytes(16))[:HEADER_BYTES]
    for shard in range(shards):
        rows = [b"%16d" % (shard * count + number) for number in range(count)]
        footers = mask(np.array([crc32c(row) for row in rows], np.uint32))
        frames = (header + row + footer.tobytes() for row, footer in zip(rows, footers, strict=True))
        (place / f"data_tfrecord-{shard:05d}-of-{shards:05d}").write_bytes(b"".join(frames))
    return folder


def test_every_step_advances(tmp_path: Path, write_examples: Write) -> None:
    rows = [b"%d" % n for n in range(100)]
    store = DatasetStore(tmp_path / "store")
    store.commit("d", write_examples(tmp_path / "a", {"train": [rows]}))
    done: dict[str, float] = {}

    class Sink:
        def update(self, task: progress.Task) -> None:
            done[task.description] = max(task.done, done.get(task.description, 0))

        def finish(self, task: progress.Task) -> None:
            self.update(task)

    before = progress.set_sink(Sink())
    try:
        source = write_examples(tmp_path / "b", {"train": [[*rows, b"more"]]})
        store.commit("d", source, beam_options=IN_PROCESS)
    finally:
        progress.set_sink(before)
    wanted = {"read records": 101, "read indexes": 100, "look records up": 201, "write new records": 1}
    assert {name: done[name] for name in wanted} == wanted
