"""The way from a node's process to the runner: events and progress, sent as they happen."""

import contextlib
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from mlplatform import progress

EVERY_S = 0.2  # progress is sent at most this often per task


@dataclass(frozen=True)
class ProgressUpdate:
    """How far a piece of work is: `mlplatform.progress.Task`, as it crosses the process border."""

    description: str
    done: float
    total: float | None
    unit: str
    seconds: float
    note: str
    is_finished: bool


class Channel:
    """Sends from any thread of this process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, kind: str, content: object) -> None:
        """Send one event; does nothing where the runner is gone (the kernel is about to end this process)."""
        with contextlib.suppress(OSError), self._lock:
            self._connection.send((kind, content))


class ChannelSink:
    """Sends progress to the runner."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sent_at: dict[int, float] = {}

    def update(self, task: progress.Task) -> None:
        now = time.monotonic()
        if now - self._sent_at.get(id(task), 0.0) >= EVERY_S:
            self._sent_at[id(task)] = now
            self._send(task, is_finished=False)

    def finish(self, task: progress.Task) -> None:
        self._sent_at.pop(id(task), None)
        self._send(task, is_finished=True)

    def report_line(self, text: str) -> None:
        """Send a line to the runner, and leave it in the node's log."""
        sys.stderr.write(text + "\n")
        self._channel.send("line", text)

    def _send(self, task: progress.Task, *, is_finished: bool) -> None:
        seconds = time.monotonic() - task.started_at
        facts = ProgressUpdate(
            task.description, task.done, task.total, task.unit, seconds, task.note, is_finished
        )
        self._channel.send("progress", facts)


_channel: Channel | None = None


def use_channel(connection: Connection) -> None:
    """Make `connection` this process's way to the runner, for events and for progress."""
    global _channel
    _channel = Channel(connection)
    progress.set_sink(ChannelSink(_channel))


def send_event(kind: str, content: object) -> None:
    """Send an event to the runner; does nothing outside of a process that a runner started."""
    if _channel is not None:
        _channel.send(kind, content)
