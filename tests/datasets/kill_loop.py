"""Kills operations at random moments and checks the store after each; run as a program.

python kill_loop.py FOLDER KILLS SEED VERB... -> JSON: per verb, how many kills hit it while it ran.
"""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mlplatform.datasets import DatasetStore
from mlplatform.datasets.format.tfrecord import frame

Work = Callable[[], object]


def write(folder: Path, rng: random.Random, records: int) -> Path:
    for split in ("train", "eval"):
        place = folder / f"Split-{split}"
        place.mkdir(parents=True)
        for shard in range(2):
            rows = [b"%s-%d-%d" % (split.encode(), shard, rng.randrange(10**9)) * 20 for _ in range(records)]
            (place / f"data_tfrecord-{shard:05d}-of-00002").write_bytes(b"".join(map(frame, rows)))
    return folder


def run_and_kill(work: Work, after_s: float) -> bool:
    """Run work in a process of its own and kill it; return whether it was still running."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def operation(verb: str, folder: Path, store: DatasetStore, number: int) -> Work:
    """What to kill: a first commit makes a dataset of its own, all others go on with `d`."""
    source, target = folder / "in", folder / "out"
    operations: dict[str, Work] = {
        "first": lambda: store.commit(f"first-{number}", source),
        "commit": lambda: store.commit("d", source, message=f"{number}"),
        "beam": lambda: store.commit("d", source, beam_options=[]),
        "tag": lambda: store.tag("d", "v1", f"tag-{number}"),
        "checkout": lambda: store.checkout("d", "v1", target, link=bool(number % 2)),
        "gc": lambda: store.gc("d", is_dry_run=False, grace_s=0),
    }
    return operations[verb]


def seconds(work: Work) -> float:
    """Run work in a process of its own, to the end, as it is run to be killed."""
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return time.perf_counter() - began


def contents(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }


def digests_of(store: DatasetStore, dataset: str) -> list[str]:
    if dataset not in store.names():
        return []
    return [one.digest for one in reversed(store.log(dataset))]


def check_whole(store: DatasetStore, dataset: str) -> None:
    if dataset in store.names():
        found = store.verify(dataset)
        assert found.is_whole, found.problems


def main(folder: Path, kills: int, seed: int, verbs: list[str]) -> dict[str, int]:
    if "beam" in verbs:
        importlib.import_module("mlplatform.datasets.beam_commit")  # once, not in every child
    rng = random.Random(seed)
    store = DatasetStore(folder / "store")
    store.commit("d", write(folder / "first", rng, 150))
    store.checkout("d", "v1", folder / "out")
    whole = contents(folder / "out")
    took = {}
    for number, verb in enumerate(verbs):
        shutil.rmtree(folder / "out", ignore_errors=True)
        shutil.rmtree(folder / "in", ignore_errors=True)
        write(folder / "in", rng, 150)
        took[verb] = seconds(operation(verb, folder, store, -number - 1))
    shutil.rmtree(folder / "out", ignore_errors=True)
    hits = dict.fromkeys(verbs, 0)
    number = 0
    while sum(hits.values()) < kills:
        number += 1
        verb = min(verbs, key=lambda verb: (hits[verb], rng.random()))
        dataset = f"first-{number}" if verb == "first" else "d"
        shutil.rmtree(folder / "in")
        source, target = write(folder / "in", rng, 150), folder / "out"
        before = digests_of(store, dataset)
        hits[verb] += run_and_kill(operation(verb, folder, store, number), rng.random() * took[verb])

        now = digests_of(store, dataset)
        makes_versions = verb in ("first", "commit", "beam")
        assert now[: len(before)] == before, "a committed version is gone"
        assert len(now) - len(before) <= makes_versions, "a version that nobody committed"
        assert all(tagged.version == "v1" for tagged in store.tags("d").values())
        check_whole(store, dataset)
        if target.exists():
            assert contents(target) == whole, "a half-made checkout is visible"
            shutil.rmtree(target)
        for left in folder.glob(".out.*"):
            shutil.rmtree(left)
        if makes_versions and rng.random() < 0.3:  # the same commit, again, ends well
            again = store.commit(dataset, source)
            assert again.is_new == (len(now) == len(before))
            assert digests_of(store, dataset) == [*before, again.manifest.digest]
        if verb == "first":
            store.gc(is_dry_run=False, grace_s=0)
            check_whole(store, dataset)
            shutil.rmtree(folder / "store" / dataset, ignore_errors=True)
    store.gc("d", is_dry_run=False, grace_s=0)
    assert store.gc("d", grace_s=0) == []
    check_whole(store, "d")
    assert list((folder / "store" / "d" / ".aside").iterdir()) == []
    assert list((folder / "store" / "d").glob(".aside-*")) == []
    return hits


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
