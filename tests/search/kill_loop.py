"""Kills writers of a search index at random moments, and compares what a search finds after each; a program.

python kill_loop.py FOLDER KILLS SEED -> JSON: per operation, how many kills hit it while it ran.

FOLDER holds `embedder` (a SavedModel), `records` (a TFRecord file of items item-000, ...), `photos/0.png` and
so on, and `vectors.npy`, what the embedder makes of them. The first photos are those of the records.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import apache_beam as beam
import numpy as np

from mlplatform.components.index_builder.build import BuildJob, build_index, bundle
from mlplatform.registry import ModelStore
from mlplatform.search.export import rows_of
from mlplatform.search.gate import IndexLimits
from mlplatform.search.segments import Segment, Segments
from mlplatform.serving.local_search import add_items, pushed_index

NAME = "shop"
ANYTHING = IndexLimits(
    recall_at_10=0, recall_at_10_of_each=0, max_items_drop=1, min_overlap=0, cpu_p50_ms=1e6
)
Step = tuple[str, int | None]  # an item, and the number of its photo; None removes it
Acknowledge = Callable[[], object]


class Study:
    """What is there, by what was acknowledged, and the operations that change it."""

    def __init__(self, folder: Path, seed: int, items: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.store = ModelStore(str(folder / "models"))
        self.vectors = np.load(folder / "vectors.npy")
        self.expected: dict[str, int | None] = {f"item-{n:03d}": n for n in range(items)}
        self.photos, self.builds = items, 0  # used so far
        self.version = 0  # the newest that was acknowledged

    def steps_of(self, verb: str) -> list[Step]:
        """Draw what an operation does, one acknowledgement each."""
        if verb == "build":
            return []
        if verb == "add":
            there = [item for item, photo in self.expected.items() if photo is not None]
            items = [
                f"new-{self.photos}",
                self.random.choice(there or ["item-000"]),
            ]  # one anew with another photo
            self.photos += 2
            return list(zip(items, (self.photos - 2, self.photos - 1), strict=True))
        removed = [self.random.choice([*self.expected]), *(f"nobody-{n}" for n in range(10))]
        return [(item, None) for item in removed]

    def run(self, verb: str, steps: Sequence[Step], acknowledge: Acknowledge) -> None:
        """Do an operation."""
        if verb == "build":
            self.build_and_push(self.folder / f"build-{self.builds}")
            acknowledge()
        for item, photo in steps:
            if photo is None:
                Segments(self.store.base_path(NAME)).append(Segment("", [item], is_removal=True))
            else:
                content = (self.folder / "photos" / f"{photo}.png").read_bytes()
                add_items(self.store.url, NAME, [(item, content, {"label": "odd"})])
            acknowledge()

    def build_and_push(self, work: Path) -> None:
        """Build an index of the records and of all that was added and removed, and push it."""
        work.mkdir()
        job = BuildJob(
            files={"train": [str(self.folder / "records")]},
            query_splits=[],
            model_dir=self.folder / "embedder",
            cache=str(self.folder / "vectors"),
            scratch=str(work),
            limits=ANYTHING,
            models_dir=self.store.url,
            model_name=NAME,
        )
        built = build_index(job, beam.Pipeline, work / "index")
        assert built.reasons == []
        bundle(job.model_dir, work / "index", work / "bundle")
        self.store.push(work / "bundle", NAME)

    def remove_one(self) -> None:
        """Remove an item from this process, which is not killed."""
        item = self.random.choice([*self.expected])
        Segments(self.store.base_path(NAME)).append(Segment("", [item], is_removal=True))
        self.expected[item] = None

    def do(self, verb: str, kill_after_s: float | None = None) -> bool:
        """Do an operation in a process of its own, and kill it; return whether it was still running."""
        steps = self.steps_of(verb)
        self.builds += verb == "build"
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                self.run(verb, steps, lambda: os.write(writing, b"."))
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        if kill_after_s is not None:
            time.sleep(kill_after_s / 2)
            if verb == "build":  # the build may or may not have read up to here: it counts in any case
                self.remove_one()
            time.sleep(kill_after_s / 2)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            acknowledged = len(pipe.read())
        assert os.WIFSIGNALED(status) or status == 0, f"{verb} failed"
        for item, photo in steps[:acknowledged]:
            self.expected[item] = photo
        self.check(steps[acknowledged : acknowledged + 1])
        if verb == "build":
            newest = self.store.version(NAME, "latest").version
            assert newest >= self.version + acknowledged, "a push that was acknowledged is there"
            self.version = newest
        return os.WIFSIGNALED(status)

    def check(self, uncertain: Sequence[Step]) -> None:
        """Compare what a search finds with what was acknowledged; the step under way may or may not count."""
        found: dict[str, np.ndarray] = {}
        with pushed_index(self.store.url, NAME) as (_, index, live):  # compares all digests
            for row in rows_of(index, live):
                assert row["item_id"] not in found, f"{row['item_id']} is there twice"
                found[row["item_id"]] = row["vector"]
        for item, photo in uncertain:
            if self._is(found, item, photo):
                self.expected[item] = photo
        wrong = [item for item, photo in self.expected.items() if not self._is(found, item, photo)]
        assert not wrong, f"not as it was acknowledged: {wrong}"
        assert set(found) <= set(self.expected), "items that nobody added"

    def _is(self, found: dict[str, np.ndarray], item: str, photo: int | None) -> bool:
        if photo is None or item not in found:
            return photo is None and item not in found
        return float(found[item] @ self.vectors[photo]) > 0.999


def main(folder: Path, kills: int, seed: int) -> None:
    """Kill so often, in turns; print how many hit."""
    study = Study(folder, seed, items=40)
    verbs = ["add", "remove", "build"]
    durations: dict[str, float] = {}
    for verb in ("build", *verbs):  # the first build is that of the first version
        started = time.monotonic()
        study.do(verb)
        durations[verb] = time.monotonic() - started
    hits = dict.fromkeys(verbs, 0)
    for number in range(kills):
        verb = verbs[number % len(verbs)]
        hits[verb] += study.do(verb, study.random.uniform(0, 1.1 * durations[verb]))
    study.do("build")
    with pushed_index(study.store.url, NAME) as (_, index, live):
        assert len(live) == 0
        assert index.manifest.entries == sum(photo is not None for photo in study.expected.values())
    print(json.dumps(hits))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
