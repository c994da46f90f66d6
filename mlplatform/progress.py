"""Progress of long work, reported the same way from any process.

The work says what it does (`with track("hash records", total=n) as bar: bar.advance(k)`) and what a person
should know of it (`report_line("3 photos left out")`); who shows it, and how, is decided by the sink in
force: the local runner's live table, a rich bar on a terminal, or plain lines.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass
class Task:
    """One piece of long work; `total` is None where the amount is not known beforehand."""

    description: str
    total: float | None = None
    unit: str = "records"
    done: float = 0.0
    note: str = ""
    started_at: float = field(default_factory=time.monotonic)

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        """Add `amount` to what is done and show it."""
        self.done += amount
        if note is not None:
            self.note = note
        _sink.update(self)


class Sink(Protocol):
    """Where progress goes. Called from the thread that works; must be cheap and never raise."""

    def update(self, task: Task) -> None: ...

    def finish(self, task: Task) -> None: ...

    def report_line(self, text: str) -> None: ...


class LineSink:
    """Plain lines on stderr: nothing in the first seconds, then one line every `every_s` seconds."""

    def __init__(self, every_s: float = 2.0) -> None:
        self._every_s = every_s
        self._last_at: dict[int, float] = {}

    def update(self, task: Task) -> None:
        now = time.monotonic()
        if now - self._last_at.get(id(task), task.started_at) >= self._every_s:
            self._last_at[id(task)] = now
            self._print(task)

    def finish(self, task: Task) -> None:
        if self._last_at.pop(id(task), None) is not None:
            self._print(task)

    def report_line(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def _print(self, task: Task) -> None:
        self.report_line(describe(task))


def describe(task: Task) -> str:
    """Return one line: what is done, of how much, how fast."""
    seconds = max(time.monotonic() - task.started_at, 1e-9)
    amount = f"{task.done:,.0f}" + (f" / {task.total:,.0f}" if task.total is not None else "")
    line = f"{task.description}: {amount} {task.unit}, {task.done / seconds:,.0f}/s"
    return f"{line}, {task.note}" if task.note else line


_sink: Sink = LineSink()


def set_sink(sink: Sink) -> Sink:
    """Send the progress of this process to `sink`; return the one that was in force."""
    global _sink
    previous, _sink = _sink, sink
    return previous


def report_line(text: str) -> None:
    """Show one line that stays: what a person should know although the work goes on."""
    _sink.report_line(text)


@contextmanager
def track(description: str, total: float | None = None, unit: str = "records") -> Iterator[Task]:
    """Report a piece of work while the block runs.

    Args:
        description: What is done, as a short verb phrase.
        total: The whole amount in `unit`, if known.
        unit: What `advance` counts.
    """
    task = Task(description, total, unit)
    _sink.update(task)
    try:
        yield task
    finally:
        _sink.finish(task)
