"""Worker processes that read shards.

They are plain Python children that speak pickles over their pipes: `multiprocessing` would import the
caller's main module again (TFX and TensorFlow, in a pipeline) or fork a process that has threads. They find
modules where the parent does, and nowhere else: not in the current folder, unless the parent looks there.
"""

import contextlib
import os
import pickle
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from mlplatform.datasets.errors import ScanWorkerError
from mlplatform.datasets.examples_folder import Shard
from mlplatform.datasets.known import KnownIds
from mlplatform.datasets.scan import ShardScan, scan_shard
from mlplatform.progress import track

_SHARED_FROM_BYTES = 64 << 20  # less than this is read sooner than another worker has started
_LAST_WORDS_BYTES = 500
_MAIN = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from mlplatform.datasets.scan_workers import main; main(sys.argv[1])"
)


class ScanWorkers:
    """Processes that read shards until the block ends: this one, which is warm, and others.

    Args:
        shards: What they read.
        workers: How many they are; 0 takes one per usable processor.
    """

    def __init__(self, shards: Sequence[Shard], workers: int = 0) -> None:
        self._shards = shards
        is_shared = (
            all(shard.is_local for shard in shards)
            and sum(shard.size for shard in shards) >= _SHARED_FROM_BYTES
        )
        self._others = min(workers or len(os.sched_getaffinity(0)), len(shards)) - 1 if is_shared else 0
        self._drivers: list[threading.Thread] = []
        self._is_over = threading.Event()

    def __enter__(self) -> "ScanWorkers":
        self._folder = tempfile.TemporaryDirectory(prefix="mlplatform-")
        flags = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
        command = [sys.executable, *flags, "-c", _MAIN, self._folder.name, *sys.path]
        # Each worker fills one processor: the threads of a library would only stand in each other's way.
        environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
        self._workers = []
        for number in range(self._others):
            with open(Path(self._folder.name) / f"complaints-{number}", "wb") as complaints:
                self._workers.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=complaints,
                        env=environment,
                    )
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        for worker in self._workers:
            worker.kill()
            worker.wait()
        for driver in self._drivers:  # they read from the pipes until the workers' ends are closed
            driver.join()
        for worker in self._workers:
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
        self._folder.cleanup()

    def scan(self, known: KnownIds) -> list[ShardScan]:
        """Read the shards, the largest first, each by the next that is free.

        Args:
            known: Ids that the dataset has.

        Returns:
            One scan per shard, in their order.

        Raises:
            CorruptRecordsError: A file is damaged or cut short.
            ScanWorkerError: A process ended, killed for its memory perhaps.
        """
        if self._workers and len(known):
            known.save(Path(self._folder.name))
        jobs: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in sorted(range(len(self._shards)), key=lambda place: -self._shards[place].size):
            jobs.put(place)
        steps: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        for number, worker in enumerate(self._workers):
            complaints = Path(self._folder.name) / f"complaints-{number}"
            driver = threading.Thread(
                target=_drive, args=(worker, complaints, self._shards, jobs, steps), daemon=True
            )
            driver.start()
            self._drivers.append(driver)
        threading.Thread(target=self._scan_here, args=(known, jobs, steps), daemon=True).start()
        scans: dict[int, ShardScan] = {}
        with track("read records") as bar:
            while len(scans) < len(self._shards):
                place, step = steps.get()
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, ShardScan):
                    scans[place] = step
                else:
                    bar.advance(step)
        return [scans[place] for place in range(len(self._shards))]

    def _scan_here(
        self,
        known: KnownIds,
        jobs: "queue.SimpleQueue[int]",
        steps: "queue.SimpleQueue[tuple[int, Any]]",
    ) -> None:
        """Do job after job in this process, until there is none or the block has ended."""
        with contextlib.suppress(queue.Empty):
            while True:
                place, before = jobs.get_nowait(), 0
                try:
                    for step in scan_shard(self._shards[place], known):
                        if self._is_over.is_set():
                            return
                        steps.put((place, step - before if isinstance(step, int) else step))
                        before = step if isinstance(step, int) else before
                except Exception as error:  # noqa: BLE001 - told to the caller, which raises it
                    steps.put((place, error))
                    return


def _drive(
    worker: "subprocess.Popen[bytes]",
    complaints: Path,
    shards: Sequence[Shard],
    jobs: "queue.SimpleQueue[int]",
    steps: "queue.SimpleQueue[tuple[int, Any]]",
) -> None:
    """Give one worker job after job, and pass on what it says."""
    requests, answers = cast(IO[bytes], worker.stdin), cast(IO[bytes], worker.stdout)
    while True:
        try:
            place = jobs.get_nowait()
        except queue.Empty:
            return
        try:
            pickle.dump(shards[place], requests)
            requests.flush()
            before = 0
            while True:
                step = pickle.load(answers)
                if isinstance(step, int):
                    step, before = step - before, step
                steps.put((place, step))
                if isinstance(step, ShardScan | Exception):
                    break
        except (EOFError, OSError, pickle.UnpicklingError):
            status = worker.wait()
            words = complaints.read_bytes()[-_LAST_WORDS_BYTES:] if complaints.exists() else b""
            said = words.decode(errors="replace").strip()
            steps.put((place, ScanWorkerError(shards[place].path, status, said)))
            return


def main(folder: str) -> None:
    """Read shards from stdin and write what they hold to stdout, until stdin ends.

    It ends when the parent does. Then `folder` is deleted, which a killed parent left there.
    """
    with contextlib.suppress(BrokenPipeError):
        _answer(sys.stdin.buffer, sys.stdout.buffer, Path(folder))
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # nothing is left to flush, and nobody reads it


def _answer(requests: IO[bytes], answers: IO[bytes], folder: Path) -> None:
    known: KnownIds | None = None
    while True:
        try:
            shard = pickle.load(requests)
        except EOFError:
            return
        try:
            if known is None:
                known = KnownIds.load(folder) if (folder / "place").exists() else KnownIds.none()
            for step in scan_shard(shard, known):
                pickle.dump(step, answers, protocol=pickle.HIGHEST_PROTOCOL)
                answers.flush()
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
            pickle.dump(error, answers)
            answers.flush()
