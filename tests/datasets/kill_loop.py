"""Kills commits, checkouts and gc runs at random moments and checks the store after each; run as a program.

python kill_loop.py FOLDER KILLS SEED -> one JSON document: how many kills hit a running operation, by kind.
"""

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
from mlplatform.datasets.tfrecord import frame


def write(folder: Path, rng: random.Random, records: int) -> Path:
    for split in ("train", "eval"):
        place = folder / f"Split-{split}"
        place.mkdir(parents=True)
        for shard in range(2):
            rows = [b"%s-%d-%d" % (split.encode(), shard, rng.randrange(10**9)) * 20 for _ in range(records)]
            (place / f"data_tfrecord-{shard:05d}-of-00002").write_bytes(b"".join(map(frame, rows)))
    return folder


def run_and_kill(work: Callable[[], object], after_s: float) -> bool:
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


def operation(
    verb: str, store: DatasetStore, source: Path | None, target: Path, number: int
) -> Callable[[], object]:
    if verb == "checkout":
        return lambda: store.checkout("d", "v1", target, link=bool(number % 2))
    if verb == "gc":
        return lambda: store.gc("d", is_dry_run=False, grace_s=0)
    return lambda: store.commit("d", source or "", message=f"{number}")


def contents(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }


def main(folder: Path, kills: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    store = DatasetStore(folder / "store")
    store.commit("d", write(folder / "first", rng, 400))
    began = time.perf_counter()
    store.commit("d", write(folder / "second", rng, 400))
    took = {"commit": time.perf_counter() - began}
    began = time.perf_counter()
    store.checkout("d", "v1", folder / "out")
    took["checkout"] = time.perf_counter() - began
    whole = contents(folder / "out")
    shutil.rmtree(folder / "out")
    took["gc"] = 0.01
    hits = {"commit": 0, "checkout": 0, "gc": 0}
    digests = [one.digest for one in reversed(store.log("d"))]
    number = 0
    while sum(hits.values()) < kills:
        number += 1
        verb = rng.choice(["commit", "commit", "commit", "checkout", "gc"])
        source = write(folder / "in", rng, 400) if verb == "commit" else None
        target = folder / "out"
        work = operation(verb, store, source, target, number)
        hits[verb] += run_and_kill(work, rng.random() * took[verb] * 1.3)

        now = [one.digest for one in reversed(store.log("d"))]
        assert now[: len(digests)] == digests, "a committed version is gone"
        assert len(now) - len(digests) <= (verb == "commit"), "a version that nobody committed"
        digests = now
        if number % 5 == 0 or len(now) > len(digests):
            found = store.verify("d")
            assert found.is_whole, found.problems
        if target.exists():
            assert contents(target) == whole, "a half-made checkout is visible"
            shutil.rmtree(target)
        if source is not None:
            if rng.random() < 0.3:  # the same commit, again, ends well
                again = store.commit("d", source)
                digests = [one.digest for one in reversed(store.log("d"))]
                assert again.manifest.digest in digests
            shutil.rmtree(source)
        for left in folder.glob(".out.*"):
            shutil.rmtree(left)
    store.gc("d", is_dry_run=False, grace_s=0)
    assert store.gc("d", grace_s=0) == []
    found = store.verify("d")
    assert found.is_whole, found.problems
    assert list((folder / "store" / "d" / "aside").iterdir()) == []
    return {**hits, "versions": len(digests)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
