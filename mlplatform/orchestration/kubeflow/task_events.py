"""What happens to a task, written into the ledger of its root by its container."""

import contextlib
import io
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlplatform.home import Home
from mlplatform.orchestration.kubeflow.task import RESOLVED, PodTask
from mlplatform.registry import events
from mlplatform.registry.event import Draft
from mlplatform.registry.ledger import Ledger
from mlplatform.storage import open_storage
from mlplatform.storage.urls import join

log = logging.getLogger(__name__)

_NOT_FACTS = frozenset({RESOLVED})
_MAX_LOG_BYTES = 16 << 20
_DRAIN_S = 5.0  # a child that lives on holds the pipe open


class TaskEvents:
    """Writes the events of one task; a ledger that cannot be written is reported, and stops no work.

    Args:
        task: The task; of one without a root or a run id nothing is written.
    """

    def __init__(self, task: PodTask) -> None:
        self._task, self._began = task, time.monotonic()
        root = str(task.node.get("root") or "")
        self._ledger = Ledger(Home.at(root).ledger) if root and task.run else None
        self._stream = events.run_stream(task.run)

    @property
    def ledger(self) -> Ledger | None:
        """The root's ledger; None where there is none."""
        return self._ledger

    def started(self) -> None:
        """Note that the task begins, and the run where nobody did."""
        pipeline, run = str(self._task.node.get("pipeline", "")), self._task.run
        place = self._task.place.partition(f"/{run}/")[0]
        facts = {"pipeline": pipeline, "pipeline_root": place, "options": {"runner": "kubeflow"}}
        draft = Draft(events.RUN_STARTED, run, facts)

        def write(ledger: Ledger) -> None:
            ledger.decide(
                self._stream, lambda known: None if any(e.kind == draft.kind for e in known) else draft
            )
            ledger.append(self._stream, events.NODE_STARTED, **self._node())

        self._write(write)

    def finished(self, output: Mapping[str, Any]) -> None:
        """Note that the task is done.

        Args:
            output: What its launcher is given: `artifacts`.
        """
        made = []
        if self._task.resolver is None:  # it makes nothing: what it found was made before
            made = [
                _facts(key, self._types().get(key, ""), artifact["uri"], artifact.get("metadata", {}))
                for key, some in output["artifacts"].items()
                for artifact in some["artifacts"]
            ]
        self._end("done", made)

    def failed(self, why: str) -> None:
        """Note that the task failed, and why."""
        self._end("failed", [], error=why)

    def publish(self, name: str, data: bytes) -> None:
        """Keep a file of the run under the root, such as a log."""
        root = str(self._task.node.get("root"))
        self._write(lambda _: open_storage(join(root, "runs")).put(f"{self._task.run}/{name}", data))

    def _end(self, state: str, outputs: list[dict[str, Any]], error: str = "") -> None:
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        facts = {
            **self._node(),
            "state": state,
            "why": "",
            "seconds": round(time.monotonic() - self._began, 3),
            "peak_memory_mb": round(max(each.ru_maxrss for each in usage) / 1024, 1),
            "cpu_s": round(sum(each.ru_utime + each.ru_stime for each in usage), 3),
            "inputs": [
                _facts(key, one.type_name, one.uri, one.metadata, one.name)
                for key, some in self._task.inputs.items()
                for one in some
            ],
            "outputs": outputs,
            "error": error,
        }
        self._write(lambda ledger: ledger.append(self._stream, events.NODE_FINISHED, **facts))

    def _node(self) -> dict[str, Any]:
        node = self._task.node
        kind = str(node.get("type", "")).rpartition(".")[2]
        return {"node": self._task.id, "type": kind, "upstream": list(node.get("upstream", ()))}

    def _types(self) -> dict[str, str]:
        return {key: some[0].type_name for key, some in self._task.outputs.items() if some}

    def _write(self, write: Callable[[Ledger], object]) -> None:
        if self._ledger is None:
            return
        try:
            write(self._ledger)
        except Exception as error:  # noqa: BLE001 - whatever a storage raises, the task itself is not wrong
            log.warning("the ledger at %s lacks an event of %s: %s", self._ledger.url, self._task.id, error)


def _facts(key: str, kind: str, uri: str, metadata: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    properties = {name: value for name, value in metadata.items() if name not in _NOT_FACTS}
    return {"key": key, "type": kind, "uri": uri, "digest": "", "id": name, "properties": properties}


@contextlib.contextmanager
def kept_output() -> Iterator[io.BytesIO]:
    """Keep what this process and its children print within the block, and print it as well.

    Yields:
        What was printed; complete when the block has ended.
    """
    kept = io.BytesIO()
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    before = [os.dup(number) for number in (1, 2)]

    def copy() -> None:
        while data := os.read(reader, 1 << 16):
            os.write(before[0], data)
            if kept.tell() < _MAX_LOG_BYTES:
                kept.write(data)

    thread = threading.Thread(target=copy, name="log", daemon=True)
    thread.start()
    for number in (1, 2):
        os.dup2(writer, number)
    os.close(writer)
    try:
        yield kept
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, real in zip((1, 2), before, strict=True):
            os.dup2(real, number)
        thread.join(timeout=_DRAIN_S)
        if not thread.is_alive():
            for number in (reader, *before):
                os.close(number)
