"""What a person sees of a run: plain lines, or a live table on a terminal. Everything goes to stderr."""

import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from mlplatform.orchestration.local.cache.key_changes import short
from mlplatform.orchestration.local.records import NodeRecord, RunRecord

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from mlplatform.orchestration.local.processes.channel import ProgressUpdate

LINE_EVERY_S = 5.0
_MARKS = {"done": "✓", "cached": "=", "failed": "✗", "skipped": "-", "cancelled": "-"}


class Display(Protocol):
    """Shows what happens; called from the runner's one thread."""

    def started(self, run: RunRecord) -> None: ...

    def print_line(self, text: str) -> None: ...

    def changed(self, node: NodeRecord) -> None: ...

    def progressed(self, node: NodeRecord, progress: "ProgressUpdate") -> None: ...

    def tick(self) -> None: ...

    def ended(self, run: RunRecord) -> None: ...


def display_for(stream: TextIO | None = None) -> Display:
    """Return the live table where `stream` (default: stderr) is a terminal, else plain lines."""
    stream = stream if stream is not None else sys.stderr
    return LiveTable(stream) if stream.isatty() else Lines(stream)


class Lines:
    """One line when a node starts and ends, and one now and then while it works."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last_at: dict[str, float] = {}

    def started(self, run: RunRecord) -> None:
        self.print_line(f"run {run.run_id} of {run.pipeline}")

    def print_line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def changed(self, node: NodeRecord) -> None:
        if node.state == "running":
            self.print_line(f"  {node.id}: started")
        elif node.state in ("done", "cached", "failed"):
            why = f" ({node.why})" if node.why else ""
            self.print_line(f"  {node.id}: {node.state}, {seconds(node.seconds)}{why}")

    def progressed(self, node: NodeRecord, progress: "ProgressUpdate") -> None:
        if not progress.done:
            return
        now = time.monotonic()
        key = f"{node.id}/{progress.description}"
        if now - self._last_at.get(key, 0.0) >= LINE_EVERY_S:
            self._last_at[key] = now
            self.print_line(f"  {node.id}: {describe(progress)}")

    def tick(self) -> None:
        pass

    def ended(self, run: RunRecord) -> None:
        if not run.nodes:  # the pipeline could not be made; its error says all there is
            return
        rows = [(n.id, n.state, seconds(n.seconds), memory(n), short(n.why)) for n in run.nodes]
        self.print_line("")
        for row in aligned([("node", "state", "time", "memory", "why"), *rows]):
            self.print_line(row)
        self.print_line(f"{run.state} in {seconds(run.wall_s)}: run {run.run_id}")


class LiveTable:
    """A table that follows the run."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream)
        self._live: Live | None = None
        self._run: RunRecord | None = None
        self._progress: dict[str, ProgressUpdate] = {}
        self._running_since: dict[str, float] = {}

    def started(self, run: RunRecord) -> None:
        from rich.live import Live

        self._run = run
        self.print_line(f"run {run.run_id} of {run.pipeline}")
        self._live = Live(self._table(), console=self._console, refresh_per_second=4, transient=False)
        self._live.start()

    def print_line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def changed(self, node: NodeRecord) -> None:
        if node.state == "running":
            self._running_since[node.id] = time.monotonic()
        else:
            self._progress.pop(node.id, None)
        self.tick()

    def progressed(self, node: NodeRecord, progress: "ProgressUpdate") -> None:
        self._progress[node.id] = progress

    def tick(self) -> None:
        if self._live is not None:
            self._live.update(self._table())

    def ended(self, run: RunRecord) -> None:
        self.tick()
        if self._live is not None:
            self._live.stop()
        if not run.nodes:
            return
        self._console.print(f"{run.state} in {seconds(run.wall_s)}: run {run.run_id}", highlight=False)

    def _table(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        colours = {"done": "green", "cached": "green", "running": "cyan", "failed": "red"}
        table = Table(box=None, pad_edge=False)
        for name, side in (
            ("", "left"),
            ("node", "left"),
            ("state", "left"),
            ("time", "right"),
            ("memory", "right"),
            ("", "left"),
        ):
            table.add_column(name, justify="right" if side == "right" else "left")
        for node in self._run.nodes if self._run else ():
            style = colours.get(node.state, "dim")
            took = (
                time.monotonic() - self._running_since[node.id] if node.state == "running" else node.seconds
            )
            progress = self._progress.get(node.id)
            table.add_row(
                Text(_MARKS.get(node.state, " "), style),
                Text(node.id),
                Text(node.state, style),
                "" if node.state in ("waiting", "skipped") else seconds(took),
                memory(node),
                Text(describe(progress) if progress else short(node.why), "dim"),
            )
        return table


def describe(progress: "ProgressUpdate") -> str:
    """Return one line: what is done, of how much, how fast."""
    amount = f"{progress.done:,.0f}" + (f" / {progress.total:,.0f}" if progress.total is not None else "")
    rate = progress.done / max(progress.seconds, 1e-9)
    line = f"{progress.description}: {amount} {progress.unit}, {rate:,.0f}/s"
    return f"{line}, {progress.note}" if progress.note else line


def seconds(value: float) -> str:
    """Return a duration as a person writes it."""
    return f"{value:.1f} s" if value < 100 else f"{int(value // 60)} min {int(value % 60):02d} s"


def memory(node: NodeRecord) -> str:
    """Return a node's peak memory, empty where it had no process."""
    return f"{node.peak_memory_mb:,.0f} MB" if node.peak_memory_mb else ""


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines whose columns stand below each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
