"""What happens in a run, written into the root's ledger while it runs, so that any machine can read it.

A thread writes, in order: a ledger that answers slowly slows no node, and one that fails is reported once,
when the run ends. Of a root at a URL, the logs and details of finished nodes are published too, below
`runs/RUN_ID`.
"""

import contextlib
import logging
import queue
import subprocess
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlplatform.home import Home
from mlplatform.notices import has_settings
from mlplatform.orchestration.local.owed_notices import OwedNotices
from mlplatform.orchestration.local.records import (
    RUNNER_LOG,
    ArtifactRecord,
    NodeRecord,
    RunFolder,
    RunRecord,
    node_states,
)
from mlplatform.orchestration.local.run_metrics import run_metrics
from mlplatform.registry.events import (
    NODE_FINISHED,
    NODE_STARTED,
    NOTICE_FAILED,
    NOTICE_SENT,
    RUN_FINISHED,
    RUN_STARTED,
    is_notified,
    run_stream,
)
from mlplatform.registry.ledger import Ledger
from mlplatform.storage import Storage, open_storage
from mlplatform.storage.urls import is_local, join

log = logging.getLogger(__name__)

_GIT_S = 20.0  # a large checkout on a slow disk takes some seconds
FLUSH_S = 60.0  # how long the end of a run waits for a ledger that does not answer


class RunEvents:
    """Writes the events of one run, and notifies people of it.

    Made before the run's first record is written: from then on, whoever is killed, the next run notifies.

    Args:
        home: The root.
        folder: The run's records on this machine.
    """

    def __init__(self, home: Home, folder: RunFolder) -> None:
        self._home, self._folder = home, folder
        self._stream = run_stream(folder.path.name)
        self._is_published = not is_local(home.root)
        self._ledger: Ledger | None = None
        self._storage: Storage | None = None
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._problem = ""
        self.is_started = False  # whether `run_started` was called
        self._owed = OwedNotices(home)
        self._owed.add(folder.run_id)

    def run_started(self, record: RunRecord) -> None:
        """Note that a run began, with its nodes."""
        facts = asdict(record)
        nodes = [{"node": node.id, **{n: getattr(node, n) for n in _OF_A_NODE}} for node in record.nodes]
        facts = {name: facts[name] for name in _OF_THE_START} | {"nodes": nodes, "at": record.started_at}
        folder = Path(record.reference).parent if record.reference.endswith(".py") else Path()

        def write() -> None:
            code: dict[str, Any] = {"commit": commit_of(folder.absolute()), "libraries": facts["versions"]}
            if code["commit"]:
                code["is_dirty"] = is_dirty(folder.absolute())
            self._append(RUN_STARTED, **facts, code=code)

        self.is_started = True
        self._put(write)

    def node_started(self, node: NodeRecord) -> None:
        """Note that a node began."""
        facts: dict[str, Any] = {"node": node.id, "type": node.type, "at": node.started_at}
        self._put(lambda: self._append(NODE_STARTED, **facts))

    def node_finished(self, node: NodeRecord) -> None:
        """Note how a node ended."""
        facts, name = _node_facts(node), node.id

        def write() -> None:
            self._publish(name)
            self._append(NODE_FINISHED, **facts)

        self._put(write)

    def run_finished(self, record: RunRecord) -> None:
        """Note how the run ended."""
        facts = _facts_of_the_end(record)

        def write() -> None:
            self._publish(RUNNER_LOG)
            self._append(RUN_FINISHED, **facts)
            self._notify(record)
            if self._ledger is not None:
                with contextlib.suppress(Exception):  # all is written; readers are only quicker with it
                    self._ledger.compact()
            if any(node.state not in ("cached", "skipped") for node in record.nodes):
                self._write_page()  # else that of the run which made the results says all

        self._put(write)

    def _write_page(self) -> None:
        """Write the run's page; one that cannot be written, or made, is no failure of the run."""
        try:
            from mlplatform.orchestration.local.run_document import write_run_page

            write_run_page(self._home, self._folder)
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("the page of run %s is not written: %s", self._folder.run_id, error)

    def _notify(self, record: RunRecord, *, is_late: bool = False) -> None:
        """Notify people where a run failed, was refused, or ended well after one that did not.

        Args:
            record: The run.
            is_late: Its own process was killed; it may have notified people before.
        """
        try:
            if has_settings(self._home):
                self._send(record, is_late=is_late)
            self._owed.remove(record.run_id)
        except Exception as error:  # noqa: BLE001 - the run is over, and what it did is done
            log.warning("nobody was notified of run %s: %s", record.run_id, error)

    def _send(self, record: RunRecord, *, is_late: bool) -> None:
        from mlplatform.notices.send import send
        from mlplatform.orchestration.local.occasions import notice_of

        ledger, stream = Ledger(self._home.ledger), run_stream(record.run_id)
        notice = notice_of(self._home, ledger, record)
        if notice is None or (is_late and is_notified(ledger.events(stream), notice.occasion)):
            return
        for way, problem in send(self._home, notice).items():
            facts = {"occasion": notice.occasion, "way": way, "problem": problem}
            self._append(NOTICE_FAILED if problem else NOTICE_SENT, stream, **facts)

    def finish_earlier_runs(self) -> None:
        """Do what runs whose process was killed could not: write how they ended, and notify people."""
        self._put(self._finish_earlier)

    def _finish_earlier(self) -> None:
        for folder in self._owed.left():
            try:
                record = folder.read()
            except FileNotFoundError:  # killed before it began, or removed meanwhile
                self._owed.remove(folder.run_id)
                continue
            stream = run_stream(folder.run_id)
            kinds = {event.kind for event in Ledger(self._home.ledger).events(stream)}
            if RUN_STARTED in kinds and RUN_FINISHED not in kinds:
                self._append(RUN_FINISHED, stream, **_facts_of_the_end(record))
            self._notify(record, is_late=True)

    def run_interrupted(self, run: str) -> None:
        """Note that an earlier run was killed: it could not do so itself."""
        self._put(lambda: self._append(RUN_FINISHED, run_stream(run), state="interrupted"))

    def close(self) -> str:
        """Wait until all is written; return what is wrong with the ledger, empty where nothing is."""
        if self._thread is None:
            return ""
        self._queue.put(None)
        self._thread.join(FLUSH_S)
        is_late = self._thread.is_alive()
        self._thread = None
        return f"no answer within {FLUSH_S:.0f} s" if is_late else self._problem

    def _put(self, write: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
            self._thread.start()
        self._queue.put(write)

    def _work(self) -> None:
        while (write := self._queue.get()) is not None:
            try:
                write()
            except Exception as error:  # noqa: BLE001 - whatever a storage raises, the run itself is not wrong
                self._problem = self._problem or str(error)

    def _append(self, kind: str, stream: str = "", **facts: Any) -> None:
        self._ledger = self._ledger or Ledger(self._home.ledger)
        self._ledger.append(stream or self._stream, kind, **facts)

    def _publish(self, node: str) -> None:
        if not self._is_published:
            return
        self._storage = self._storage or open_storage(join(self._home.root, "runs"))
        for file in (self._folder.log(node), self._folder.details(node)):
            if file.is_file():
                place = file.relative_to(self._folder.path.parent).as_posix()
                self._storage.put(place, file.read_bytes())


_OF_A_NODE = ("type", "upstream", "state", "why")
_OF_THE_START = (
    "pipeline", "pipeline_root", "metadata", "reference", "arguments", "options", "versions",
)  # fmt: skip


def _facts_of_the_end(record: RunRecord) -> dict[str, Any]:
    return {
        "state": record.state,
        "seconds": record.wall_s,
        "pipeline": record.pipeline,
        "nodes": node_states(record),
        "failed": [node.id for node in record.failed],
        "metrics": run_metrics(record),
        "reused": sorted({node.made_in for node in record.nodes if node.made_in}),
    }


def _node_facts(node: NodeRecord) -> dict[str, Any]:
    facts = {name: value for name, value in asdict(node).items() if name not in ("id", "inputs", "outputs")}
    return {"node": node.id, **facts, "inputs": _flat(node.inputs), "outputs": _flat(node.outputs)}


def _flat(artifacts: dict[str, list[ArtifactRecord]]) -> list[dict[str, Any]]:
    return [{"key": key, **asdict(each)} for key, found in artifacts.items() for each in found]


def is_dirty(folder: Path) -> bool | None:
    """Return whether files that Git tracks differ from the commit; None where Git does not say in time."""
    command = ["git", "--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]
    try:
        found = subprocess.run(
            command, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL, timeout=_GIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return bool(found.stdout.strip())


def commit_of(folder: Path) -> str:
    """Return the commit that is checked out where a folder lies; empty where Git does not say."""
    for each in (folder, *folder.parents):
        git = each / ".git"
        try:
            if git.is_file():  # a worktree, or a submodule
                git = (each / git.read_text("utf-8").partition(": ")[2].strip()).resolve()
            if not git.is_dir():
                continue
            head = (git / "HEAD").read_text("utf-8").strip()
            name = head.removeprefix("ref: ")
            return head if name == head else _commit_of_branch(git, name)
        except (OSError, ValueError):
            return ""
    return ""


def _commit_of_branch(git: Path, name: str) -> str:
    common = git / "commondir"
    shared = (git / common.read_text("utf-8").strip()).resolve() if common.is_file() else git
    for place in (git, shared):
        if (place / name).is_file():
            return (place / name).read_text("utf-8").strip()
    packed = (shared / "packed-refs").read_text("utf-8").splitlines()
    return next((line.partition(" ")[0] for line in packed if line.endswith(f" {name}")), "")
