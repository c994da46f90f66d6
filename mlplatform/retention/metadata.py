"""The rows of ML Metadata that belong to runs which are not kept, and the artifacts that only those have.

ML Metadata itself has no way to delete. So this works on its SQLite file, in one transaction, under the lock
that the local runner's nodes take turns with: a node finds an execution with all its artifacts, or not.

Source: the schema of ML Metadata, version 10 (`ml_metadata/util/metadata_source_query_config.cc`).
"""

import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlplatform.errors import MlplatformError

SCHEMA_VERSION = 10
_ENDED = (3, 4, 5, 6)  # COMPLETE, FAILED, CACHED, CANCELED: the others may go on
_OUTPUTS = (1, 4, 6, 7)  # events: DECLARED_OUTPUT, OUTPUT, INTERNAL_OUTPUT, PENDING_OUTPUT
_TABLES = (
    "CREATE TEMP TABLE old_run (name TEXT PRIMARY KEY)",
    "CREATE TEMP TABLE run_of (context INTEGER PRIMARY KEY, is_old INT)",
    "CREATE TEMP TABLE old_execution (id INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE old_artifact (id INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE old_context (id INTEGER PRIMARY KEY)",
)
_FILL = (
    """INSERT INTO temp.run_of SELECT c.id, c.name IN (SELECT name FROM temp.old_run)
       FROM main.Context c JOIN main.Type t ON t.id = c.type_id WHERE t.name = 'pipeline_run'""",
    f"""INSERT INTO temp.old_execution SELECT e.id FROM main.Execution e WHERE e.last_known_state IN {_ENDED}
        AND EXISTS (SELECT 1 FROM main.Association a JOIN temp.run_of r ON r.context = a.context_id
                    WHERE a.execution_id = e.id AND r.is_old)
        AND NOT EXISTS (SELECT 1 FROM main.Association a JOIN temp.run_of r ON r.context = a.context_id
                        WHERE a.execution_id = e.id AND NOT r.is_old)""",
    # An execution that made what a kept one has is what the cache finds it by.
    f"""DELETE FROM temp.old_execution WHERE id IN (
            SELECT made.execution_id FROM main.Event made
            JOIN main.Event used ON used.artifact_id = made.artifact_id
            WHERE used.execution_id NOT IN (SELECT id FROM temp.old_execution)
            AND made.type IN {_OUTPUTS})""",
    """INSERT INTO temp.old_artifact SELECT DISTINCT e.artifact_id FROM main.Event e
       WHERE e.execution_id IN (SELECT id FROM temp.old_execution)
       AND NOT EXISTS (SELECT 1 FROM main.Event k WHERE k.artifact_id = e.artifact_id
                       AND k.execution_id NOT IN (SELECT id FROM temp.old_execution))""",
    # Those of cache keys stay: a node that is about to use one knows it by its number already.
    """INSERT INTO temp.old_context SELECT c.id FROM main.Context c JOIN main.Type t ON t.id = c.type_id
       WHERE t.name = 'pipeline_run'
       AND EXISTS (SELECT 1 FROM main.Association a WHERE a.context_id = c.id)
       AND NOT EXISTS (SELECT 1 FROM main.Association a WHERE a.context_id = c.id
                       AND a.execution_id NOT IN (SELECT id FROM temp.old_execution))
       AND NOT EXISTS (SELECT 1 FROM main.Attribution a WHERE a.context_id = c.id
                       AND a.artifact_id NOT IN (SELECT id FROM temp.old_artifact))""",
)
_DELETE = (
    "DELETE FROM EventPath WHERE event_id IN (SELECT v.id FROM Event v WHERE {old_event})",
    "DELETE FROM Event AS v WHERE {old_event}",
    "DELETE FROM Association WHERE execution_id IN (SELECT id FROM temp.old_execution)"
    " OR context_id IN (SELECT id FROM temp.old_context)",
    "DELETE FROM Attribution WHERE artifact_id IN (SELECT id FROM temp.old_artifact)"
    " OR context_id IN (SELECT id FROM temp.old_context)",
    "DELETE FROM ParentContext WHERE context_id IN (SELECT id FROM temp.old_context)"
    " OR parent_context_id IN (SELECT id FROM temp.old_context)",
    "DELETE FROM ExecutionProperty WHERE execution_id IN (SELECT id FROM temp.old_execution)",
    "DELETE FROM main.Execution WHERE id IN (SELECT id FROM temp.old_execution)",
    "DELETE FROM ArtifactProperty WHERE artifact_id IN (SELECT id FROM temp.old_artifact)",
    "DELETE FROM main.Artifact WHERE id IN (SELECT id FROM temp.old_artifact)",
    "DELETE FROM ContextProperty WHERE context_id IN (SELECT id FROM temp.old_context)",
    "DELETE FROM main.Context WHERE id IN (SELECT id FROM temp.old_context)",
)
_OLD_EVENT = "v.execution_id IN (SELECT id FROM temp.old_execution)"


class MetadataVersionError(MlplatformError):
    """ML Metadata's file has another schema than the one that rows are removed from."""

    def __init__(self, file: str, found: str) -> None:
        super().__init__(file, found)
        self.file, self.found = file, found

    def __str__(self) -> str:
        return (
            f"{self.file} has schema {self.found} of ML Metadata, and this release removes rows of schema "
            f"{SCHEMA_VERSION} alone: nothing was removed. Use the release that the runs are made with."
        )


@dataclass(frozen=True)
class OldRows:
    """What is in ML Metadata of runs that are not kept.

    Attributes:
        rows: Executions, artifacts and the contexts of runs.
        uris: Where those artifacts lie that no other artifact shares a place with.
        executions: Ids of the executions.
    """

    rows: int
    uris: tuple[str, ...]
    executions: tuple[int, ...]


@contextmanager
def metadata(file: Path, *, is_written: bool) -> Iterator[sqlite3.Connection]:
    """Yield ML Metadata's SQLite file to write to, while no node of the local runner uses it; else a copy.

    What is written is one transaction that ends with the block, and is undone where that raises or the
    process is killed in it. Who only reads keeps nodes waiting as long as the copy takes, whatever is read.

    Raises:
        MetadataVersionError: It has another schema.
    """
    if is_written:
        with _locked(file, is_written=True), _opened(file, "rw") as database:
            _check_schema(database, file)
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        return
    with tempfile.TemporaryDirectory(prefix="mlplatform-") as scratch:
        copy = Path(scratch) / file.name
        with _locked(file, is_written=False), _opened(file, "ro") as database, _opened(copy, "rwc") as target:
            target.execute("PRAGMA synchronous = OFF")
            try:
                database.backup(target)
            except sqlite3.Error as error:
                raise MetadataVersionError(str(file), f"({error})") from error
        with _opened(copy, "rw") as database:
            _check_schema(database, file)
            yield database


@contextmanager
def _locked(file: Path, *, is_written: bool) -> Iterator[None]:
    """Hold the lock that the local runner's nodes take turns with."""
    try:
        descriptor = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT if is_written else os.O_RDONLY)
    except OSError:  # no node ever ran, or the root may only be read
        if is_written:
            raise
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if is_written else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _opened(file: Path, mode: str) -> closing[sqlite3.Connection]:
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    return closing(sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None))


def find_old_rows(database: sqlite3.Connection, runs: Collection[str]) -> OldRows:
    """Find the rows of runs that are not kept; they stay marked in the connection for `delete_old_rows`.

    Kept are, of their executions: those that belong to another run as well, those that may go on, and those
    that made what an execution of another run has; of their artifacts, all that any of these have.
    """
    for table in _TABLES:
        database.execute(table)
    database.executemany("INSERT INTO temp.old_run VALUES (?)", [(run,) for run in sorted(runs)])
    for statement in _FILL:
        database.execute(statement)
    executions = [found for (found,) in database.execute("SELECT id FROM temp.old_execution ORDER BY id")]
    artifacts = database.execute(
        "SELECT uri FROM main.Artifact WHERE id IN (SELECT id FROM temp.old_artifact) AND uri IS NOT NULL"
    )
    old = sorted({uri.rstrip("/") for (uri,) in artifacts if uri})
    kept = database.execute(
        "SELECT uri FROM main.Artifact WHERE id NOT IN (SELECT id FROM temp.old_artifact) AND uri IS NOT NULL"
    )
    free = without_shared(old, (uri for (uri,) in kept))
    [(contexts,)] = database.execute("SELECT COUNT(*) FROM temp.old_context").fetchall()
    [(found,)] = database.execute("SELECT COUNT(*) FROM temp.old_artifact").fetchall()
    return OldRows(len(executions) + found + contexts, tuple(free), tuple(executions))


def delete_old_rows(database: sqlite3.Connection) -> None:
    """Delete what `find_old_rows` found, within the caller's transaction."""
    for statement in _DELETE:
        database.execute(statement.format(old_event=_OLD_EVENT))


def without_shared(places: Collection[str], kept: Iterator[str]) -> list[str]:
    """Return those places that are not a kept one, do not hold one, and do not lie in one."""
    taken = {uri.rstrip("/") for uri in kept}
    above = {"/".join(parts[:n]) for uri in taken for parts in [uri.split("/")] for n in range(1, len(parts))}
    return [
        place
        for place in places
        if place not in taken
        and place not in above
        and not any(
            "/".join(parts[:n]) in taken for parts in [place.split("/")] for n in range(1, len(parts))
        )
    ]


def artifact_uris(database: sqlite3.Connection) -> Iterator[str]:
    """Return where all artifacts lie."""
    return (uri for (uri,) in database.execute("SELECT uri FROM Artifact WHERE uri IS NOT NULL"))


def _check_schema(database: sqlite3.Connection, file: Path) -> None:
    try:
        found = [version for (version,) in database.execute("SELECT schema_version FROM MLMDEnv")]
    except sqlite3.Error as error:
        raise MetadataVersionError(str(file), f"({error})") from error
    if found != [SCHEMA_VERSION]:
        raise MetadataVersionError(str(file), ", ".join(map(str, found)) or "none")
