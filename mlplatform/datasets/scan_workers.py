"""Worker processes that read shards.

They are plain `python -m` children that speak pickles over their pipes: `multiprocessing` would import the
caller's main module again (TFX and TensorFlow, in a pipeline) or fork a process that has threads.
"""

import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mlplatform.datasets.errors import ScanWorkerError
from mlplatform.datasets.examples_folder import Shard
from mlplatform.datasets.known import KnownIds
from mlplatform.datasets.scan import ShardScan, scan_shard


class ScanWorkers:
    """Some processes that read shards until the block ends."""

    def __init__(self, processes: int, known: KnownIds | None) -> None:
        self._processes, self._known = processes, known

    def __enter__(self) -> "ScanWorkers":
        self._folder = tempfile.TemporaryDirectory(prefix="mlplatform-")
        command = [sys.executable, "-m", "mlplatform.datasets.scan_workers", self._folder.name]
        # Each worker fills one processor: the threads of a library would only stand in each other's way.
        environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
        self._workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in range(self._processes)
        ]
        if self._known is not None and len(self._known):
            self._known.save(Path(self._folder.name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
        self._folder.cleanup()

    def scan(self, shards: Sequence[Shard], advance: Callable[[int], None]) -> list[ShardScan]:
        """Read the shards, the largest first, each by the next free process.

        The scans come in the given order.
        """
        jobs: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in sorted(range(len(shards)), key=lambda place: -shards[place].size):
            jobs.put(place)
        steps: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        for worker in self._workers:
            threading.Thread(target=_drive, args=(worker, shards, jobs, steps), daemon=True).start()
        scans: dict[int, ShardScan] = {}
        while len(scans) < len(shards):
            place, step = steps.get()
            if isinstance(step, Exception):
                raise step
            if isinstance(step, ShardScan):
                scans[place] = step
            else:
                advance(step)
        return [scans[place] for place in range(len(shards))]


def _drive(
    worker: "subprocess.Popen[bytes]",
    shards: Sequence[Shard],
    jobs: "queue.SimpleQueue[int]",
    steps: "queue.SimpleQueue[tuple[int, Any]]",
) -> None:
    """Give one worker job after job, and pass on what it says."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    while True:
        try:
            place = jobs.get_nowait()
        except queue.Empty:
            return
        try:
            pickle.dump(shards[place], worker.stdin)
            worker.stdin.flush()
            before = 0
            while True:
                step = pickle.load(worker.stdout)
                if isinstance(step, int):
                    step, before = step - before, step
                steps.put((place, step))
                if isinstance(step, ShardScan | Exception):
                    break
        except (EOFError, OSError, pickle.UnpicklingError):
            steps.put((place, ScanWorkerError(shards[place].path, worker.wait())))
            return


def main(folder: str) -> None:
    """Read shards from stdin and write what they hold to stdout, until stdin ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    known: KnownIds | None = None
    while True:
        try:
            shard = pickle.load(requests)
        except EOFError:
            return
        if known is None and (Path(folder) / "place.npy").exists():
            known = KnownIds.load(Path(folder))
        try:
            for step in scan_shard(shard, known):
                pickle.dump(step, answers, protocol=pickle.HIGHEST_PROTOCOL)
                answers.flush()
        except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
            pickle.dump(error, answers)
            answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
