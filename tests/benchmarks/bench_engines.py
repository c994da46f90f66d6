"""Data steps in process against the same steps on Flink at parallelism 1 and 2: records per second and core.

    make flink-up bench-engines
    python tests/benchmarks/bench_engines.py --photos 4000 --only scoring

Ingest reads copies of drawn photos, commit and statistics take the Examples that it made, scoring asks a
classifier as item_category exports it. Each step runs in process, and on a cluster that listens on
localhost:8099 (the one of `make flink-up`); without one, in process alone. CPU seconds are those of all that
works: this process, and on Flink the managers, the job server and the Python workers too. So a step's records
per second and core depend little on other work on the machine, and what an engine adds is the difference in
CPU time, per record, with what starting jobs and workers costs: a job of ten numbers shows how much of it.
Scoring is also held against a plain loop that reads the records and calls the model's signature. Exits with 1
where scoring in process is below 0.9 of the plain loop.
"""

import argparse
import contextlib
import functools
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
from data_steps import STEPS, Arguments, Found, Step, prepare, shards

TARGET = 0.9
BATCH = 32  # as the gate asks about photos
FLINK_PROCESSES = ("TaskManagerRunner", "StandaloneSession", "LeanJobServer", "beam-worker", "beam.worker")


@dataclass
class Cost:
    """What a step took.

    Attributes:
        records: Records that it handled.
        cpu_s: CPU seconds of all processes.
        wall_s: Seconds that passed.
    """

    records: int
    cpu_s: float
    wall_s: float

    @property
    def per_core_s(self) -> float:
        """Records per second of one core."""
        return self.records / self.cpu_s


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--image_size", type=int, default=112)
    parser.add_argument("--only", choices=ALL_STEPS, action="append")
    arguments = parser.parse_args()
    from mlplatform.beam.engines import flink

    engines: dict[str, list[str] | None] = {"in process": None}
    if is_open(8099) and is_open(8081):
        for slots in (1, 2):
            engines[f"Flink, {slots} slot{'s' * (slots > 1)}"] = list(flink(parallelism=slots))
    else:
        print("no Flink cluster on localhost:8099 (make flink-up): in process alone")
    with tempfile.TemporaryDirectory(prefix="bench-engines-") as scratch:
        folder = Path(scratch)
        draw_and_prepare(folder, arguments.photos, arguments.image_size)
        is_met = True
        columns = f"{'wall s':>8}{'cpu s':>8}{'records/s/core':>16}{'adds us/record':>16}"
        print(f"{'step':<12}{'where':<16}{'records':>8}{columns}")
        for name in arguments.only or ALL_STEPS:
            found: dict[str, Cost] = {}
            if name == "scoring":
                found["plain loop"] = measured(lambda: plain_loop(folder), False, folder / "plain")
            for where, beam_arguments in engines.items():
                place = folder / f"{name}-{len(found)}"
                step = functools.partial(ALL_STEPS[name], folder, beam_arguments, place)
                found[where] = measured(step, beam_arguments is not None, place)
            base = found["in process"]
            for where, cost in found.items():
                added = 1e6 * (cost.cpu_s - base.cpu_s) / cost.records
                print(
                    f"{name:<12}{where:<16}{cost.records:>8}{cost.wall_s:>8.1f}{cost.cpu_s:>8.1f}"
                    f"{cost.per_core_s:>16.0f}{added:>16.0f}",
                    flush=True,
                )
            if name == "scoring":
                ratio = base.per_core_s / found["plain loop"].per_core_s
                is_met = ratio >= TARGET
                verdict = "met" if is_met else "MISSED"
                print(f"scoring in process / plain loop: {ratio:.3f} (at least {TARGET}): {verdict}")
    sys.exit(not is_met)


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(2)
        return tried.connect_ex(("localhost", port)) == 0


def measured(work: Callable[[], Found], is_on_flink: bool, place: Path) -> Cost:
    """Run a step; count what all of its processes took."""
    place.mkdir()
    before, started = cpu_by_process(is_on_flink), time.perf_counter()
    with quiet():
        found = work()
    wall_s = time.perf_counter() - started
    after = cpu_by_process(is_on_flink)
    cpu_s = sum(seconds - before.get(process, 0.0) for process, seconds in after.items())
    shutil.rmtree(place)
    return Cost(found.records, cpu_s, wall_s)


def cpu_by_process(is_on_flink: bool) -> dict[tuple[int, float], float]:
    """Return the CPU seconds of this process and, on Flink, of its processes; workers stay for a while."""
    found = {}
    for process in psutil.process_iter(["pid", "create_time", "cmdline", "cpu_times"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.pid == os.getpid() or (is_on_flink and any(name in words for name in FLINK_PROCESSES)):
            times = process.info["cpu_times"]
            found[process.pid, process.info["create_time"]] = times.user + times.system
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    from mlplatform import progress

    class Silence:
        def update(self, task: progress.Task) -> None: ...
        def finish(self, task: progress.Task) -> None: ...
        def report_line(self, text: str) -> None: ...

    before = progress.set_sink(Silence())
    try:
        yield
    finally:
        progress.set_sink(before)


def draw_and_prepare(folder: Path, photos: int, image_size: int) -> None:
    """Copy and ingest 100 drawn photos, export a model; what is loaded the first time is not measured."""
    from mlplatform.demo.photos import make_photos

    drawn = make_photos(folder / "drawn", categories=10, per_category=10, unseen=0, size_px=image_size)
    for photo in (folder / "drawn/photos").glob("*/*.jpg"):
        kind = folder / "photos" / photo.parent.name
        kind.mkdir(parents=True, exist_ok=True)
        for number in range(-(-photos // int(drawn["photos"]))):
            shutil.copy(photo, kind / f"{number}-{photo.name}")
    with quiet():
        prepare(folder, image_size)
        plain_loop(folder, at_most=3)
        for name, step in ALL_STEPS.items():
            if name != "ingest":
                place = folder / f"warm-{name}"
                place.mkdir()
                step(folder, None, place)


def ten_numbers(_: Path, arguments: Arguments, place: Path) -> Found:
    """Next to nothing, on one worker after another."""
    import apache_beam as beam

    from mlplatform.beam.gathered import WriteGathered, read_gathered
    from mlplatform.beam.runners import pipeline_options

    with beam.Pipeline(options=pipeline_options(arguments or [])) as pipeline:
        _ = pipeline | beam.Create(range(10)) | beam.Reshuffle() | WriteGathered(str(place / "numbers"))
    return Found(len(read_gathered(str(place / "numbers"))), None)


ALL_STEPS: dict[str, Step] = {"ten numbers": ten_numbers, **STEPS}


def plain_loop(folder: Path, at_most: int = sys.maxsize) -> Found:
    """Load the model, read all records and call its signature; nothing else."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(folder / "model")).signatures["serving_default"]
    count = 0
    files = [file for some in shards(folder).values() for file in some]
    for batch in tf.data.TFRecordDataset(files).batch(BATCH).take(at_most).as_numpy_iterator():
        for value in signature(examples=tf.constant(batch)).values():
            value.numpy()
        count += len(batch)
    return Found(count, None)


if __name__ == "__main__":
    main()
