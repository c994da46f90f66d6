"""A table of all runs of a root, so that a page of ten thousand runs costs no more than one of ten.

It is a cache: in `ROOT/cache/ui/runs-N.sqlite` where that can be written, else in memory; deleted, it is made
again. A run that has ended is read once; those that have not are read again at each look.
"""

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlplatform.home import Home
from mlplatform.orchestration.local.ledger_runs import KeptRun, LedgerRun, RunSummary, all_runs, summary_of
from mlplatform.orchestration.local.records import RunFolder
from mlplatform.registry.events import RUN_FINISHED, RUN_TAGGED, run_stream
from mlplatform.registry.index import read_marks
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.lineage_graph import LineageGraph
from mlplatform.registry.model_events import ModelEvent
from mlplatform.registry.run_marks import tags_of
from mlplatform.storage.urls import is_local
from mlplatform.ui.lineage_index import TABLES, IndexedGraph, unended_runs, write_lineage

log = logging.getLogger(__name__)

FORMAT = 2  # of the file; another one is another file
PAGE = 50  # runs
_CLOCK_TICK_NS = 2_000_000_000  # file systems note times to 10 ms, some to 2 s
_MANY = 100  # runs whose events are read from the ledger's index
_LIVE_STATES = ("running", "unknown")
_TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, pipeline TEXT, started_at TEXT, state TEXT, wall_s REAL, summary TEXT, words TEXT
);
CREATE TABLE IF NOT EXISTS tags (run_id TEXT, tag TEXT, PRIMARY KEY (run_id, tag));
CREATE INDEX IF NOT EXISTS by_pipeline ON runs (pipeline, run_id);
CREATE INDEX IF NOT EXISTS by_state ON runs (state, run_id);
"""
# What a run was made from and with is added as its events are read: the table of a run that ended has all.


@dataclass(frozen=True)
class RunFilter:
    """Which runs are meant; an empty value lets every run through.

    Attributes:
        words: Text in a run's id, pipeline, state, failed nodes or tags.
        pipeline: The pipeline's name.
        state: As in `RunRecord`.
        tag: A tag.
    """

    words: str = ""
    pipeline: str = ""
    state: str = ""
    tag: str = ""


class RunIndex:
    """The runs of a root; threads may share it.

    Args:
        home: The root.
        every_s: Seconds between two looks for new runs, 0 or more.
    """

    def __init__(self, home: Home, *, every_s: float = 0.5) -> None:
        self._home, self._every_s = home, every_s
        self._ledger = Ledger(home.ledger)
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._stamp: tuple[object, ...] = ()
        self._open: set[str] = set()  # runs that have not ended
        self._database = _opened(home)
        with self._lock, self._database:
            live = ",".join(f"'{state}'" for state in _LIVE_STATES)
            rows = self._database.execute(f"SELECT run_id, state IN ({live}) FROM runs").fetchall()
            # Their ledger's last event was not there yet: records of runs are written before it.
            self._unended = set(unended_runs(self._database))
        self._known = {run for run, _ in rows}
        self._open = {run for run, is_open in rows if is_open}

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def refresh(self) -> None:
        """Look for new runs, and at those that have not ended."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at < self._every_s:
                return
            self._looked_at = now
            with self._database:
                self._look()

    def _look(self) -> None:
        if not is_local(self._home.root):
            self._write(all_runs(self._home))
            self._look_for_tags(())
            return
        stamp = tuple(_mtime(place) for place in (self._home.runs, Path(self._home.ledger) / "runs"))
        marks = sorted(read_marks(self._ledger.storage), key=lambda mark: mark.name)
        if stamp != self._stamp[:2]:
            folders = set(_names(self._home.runs))
            streams = {stream.partition("/")[2] for stream in self._ledger.streams("runs")}
            gone = self._known - folders - streams
            self._database.executemany("DELETE FROM runs WHERE run_id = ?", [(run,) for run in gone])
            self._known -= gone
            self._open = (self._open | ((folders | streams) - self._known)) - gone
        looked_at = sorted(self._open)
        written = {mark.stream.partition("/")[2] for mark in marks}  # the ledger may have more of them
        self._write_lineage(sorted(self._open | (self._unended & written)))
        self._write(filter(None, map(self._kept, looked_at)))
        names = tuple(mark.name for mark in marks)
        if (*stamp, names) != self._stamp:
            self._look_for_tags(names)
        self._stamp = () if is_young(*stamp) else (*stamp, names)

    def _write_lineage(self, runs: Sequence[str]) -> None:
        many = self._ledger.overview("runs") if len(runs) > _MANY else {}
        for run in runs:
            stream = run_stream(run)
            happened = many.get(stream) or self._ledger.events(stream)
            write_lineage(self._database, run, happened)
            has_ended = any(event.kind == RUN_FINISHED for event in happened)
            (self._unended.discard if has_ended else self._unended.add)(run)

    def lineage(self, models: Mapping[str, Sequence[ModelEvent]]) -> LineageGraph:
        """Return the lineage of the runs, as far as the last look found them, and of models.

        Args:
            models: Events of each model, by its name.
        """
        return IndexedGraph(self._database, self._lock, models)

    def _kept(self, run: str) -> KeptRun | None:
        folder = self._home.runs / run
        if (folder / "run.json").is_file():
            return RunFolder(folder)
        found = LedgerRun(self._ledger, self._home, run)
        return found if self._ledger.events(run_stream(run)) else None

    def _write(self, runs: "Iterator[KeptRun] | Sequence[KeptRun]") -> None:
        for run in runs:
            summary = _summary(run)
            facts = asdict(summary)
            words = " ".join([summary.run_id, summary.pipeline, summary.state, *summary.failed]).lower()
            self._database.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)",
                tuple(
                    map(
                        _storable,
                        (
                            *(summary.run_id, summary.pipeline, summary.started_at, summary.state),
                            *(summary.wall_s, json.dumps(facts, ensure_ascii=False), words),
                        ),
                    )
                ),
            )
            self._known.add(summary.run_id)
            (self._open.add if summary.state in _LIVE_STATES else self._open.discard)(summary.run_id)

    def _look_for_tags(self, _: object) -> None:
        found = self._ledger.overview("runs", containing=RUN_TAGGED)
        rows = [
            (stream.partition("/")[2], _storable(tag))
            for stream, happened in found.items()
            for tag in tags_of(happened)
        ]
        self._database.execute("DELETE FROM tags")
        self._database.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", rows)

    def page(self, wanted: RunFilter, *, before: str = "", count: int = PAGE) -> list[dict[str, Any]]:
        """Return runs, the newest first, as `RunSummary` has them, with `tags`.

        Args:
            wanted: Which.
            before: Only runs older than the one of this id; empty for the newest.
            count: At most so many.
        """
        where, values = _where(wanted, before)
        with self._lock:
            rows = self._database.execute(
                f"SELECT summary FROM runs WHERE {where} ORDER BY run_id DESC LIMIT ?", (*values, count)
            ).fetchall()
            return [self._with_tags(json.loads(summary)) for (summary,) in rows]

    def counts(self, wanted: RunFilter) -> dict[str, int]:
        """Return how many runs are in each state, of those that are meant but for their state."""
        where, values = _where(RunFilter(wanted.words, wanted.pipeline, "", wanted.tag))
        query = f"SELECT state, COUNT(*) FROM runs WHERE {where} GROUP BY state ORDER BY COUNT(*) DESC"
        with self._lock:
            return dict(self._database.execute(query, values).fetchall())

    def choices(self) -> dict[str, list[str]]:
        """Return the names of all pipelines and tags."""
        with self._lock:
            pipelines = self._database.execute("SELECT DISTINCT pipeline FROM runs ORDER BY 1").fetchall()
            tags = self._database.execute("SELECT DISTINCT tag FROM tags ORDER BY 1").fetchall()
        return {"pipelines": [name for (name,) in pipelines], "tags": [tag for (tag,) in tags]}

    def summary(self, run: str) -> dict[str, Any] | None:
        """Return one run in one line; None where there is none of this id."""
        with self._lock:
            found = self._database.execute("SELECT summary FROM runs WHERE run_id = ?", (run,)).fetchone()
            return self._with_tags(json.loads(found[0])) if found else None

    def run(self, run: str) -> KeptRun | None:
        """Return the run of this id, which must be one that was listed; None where there is none."""
        if self.summary(run) is None:
            return None
        return self._kept(run) if is_local(self._home.root) else LedgerRun(self._ledger, self._home, run)

    def previous(self, summary: Mapping[str, Any]) -> KeptRun | None:
        """Return the run before one that ended well, of the same pipeline; None where there is none."""
        found = self.page(
            RunFilter(pipeline=summary["pipeline"], state="done"), before=summary["run_id"], count=1
        )
        return self.run(found[0]["run_id"]) if found else None

    def _with_tags(self, summary: dict[str, Any]) -> dict[str, Any]:
        rows = self._database.execute("SELECT tag FROM tags WHERE run_id = ?", (summary["run_id"],))
        return {**summary, "tags": [tag for (tag,) in rows]}


def _storable(value: object) -> object:
    """Return a text without halves of characters, as JSON can hold them and SQLite cannot."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _summary(run: KeptRun) -> RunSummary:
    """Return a run in one line; one whose record has values of other types hides no other run."""
    try:
        found = summary_of(run)
        texts = (found.run_id, found.pipeline, found.started_at, found.state, *found.failed)
        if found.run_id == run.run_id and all(isinstance(text, str) for text in texts):
            return replace(found, wall_s=float(found.wall_s))
    except (TypeError, ValueError, KeyError, AttributeError):
        log.debug("the record of run %s is damaged", run.run_id, exc_info=True)
    return RunSummary(run.run_id, "", "", "unreadable", 0.0, {}, [], {})


def _where(wanted: RunFilter, before: str = "") -> tuple[str, list[str]]:
    parts, values = ["1"], []
    for word in wanted.words.lower().split():
        pattern = "%" + word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        parts.append(
            "(words LIKE ? ESCAPE '\\' OR run_id IN (SELECT run_id FROM tags WHERE tag LIKE ? ESCAPE '\\'))"
        )
        values += [pattern, pattern]
    for column, value in (("pipeline", wanted.pipeline), ("state", wanted.state)):
        if value:
            parts.append(f"{column} = ?")
            values.append(value)
    if wanted.tag:
        parts.append("run_id IN (SELECT run_id FROM tags WHERE tag = ?)")
        values.append(wanted.tag)
    if before:
        parts.append("run_id < ?")
        values.append(before)
    return " AND ".join(parts), values


def _opened(home: Home) -> sqlite3.Connection:
    """Return the file, made anew where it is damaged; a table in memory where it cannot be written."""
    file = home.cache / "ui" / f"runs-{FORMAT}.sqlite"
    for _ in range(2):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
            return _with_tables(sqlite3.connect(file, check_same_thread=False))
        except sqlite3.DatabaseError:
            with contextlib.suppress(OSError):
                file.unlink()
        except OSError:
            break
    return _with_tables(sqlite3.connect(":memory:", check_same_thread=False))


def _with_tables(database: sqlite3.Connection) -> sqlite3.Connection:
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")  # a cache
        database.executescript(_TABLES + TABLES)
        # Fails where it cannot be written.
        database.execute("INSERT OR REPLACE INTO runs (run_id) VALUES ('')")
        database.execute("DELETE FROM runs WHERE run_id = ''")
        database.commit()
    except sqlite3.Error:
        database.close()
        raise
    return database


def is_young(*times_ns: int) -> bool:
    """Return whether a folder changed so lately that one more change may leave its time as it is.

    Args:
        times_ns: When folders changed, in nanoseconds since 1970.
    """
    return max(times_ns, default=0) > time.time_ns() - _CLOCK_TICK_NS


def _mtime(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(("_", "."))]
    except FileNotFoundError:
        return []


__all__ = ["RunFilter", "RunIndex", "RunSummary"]
