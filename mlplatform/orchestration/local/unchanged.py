"""The run of a pipeline in which nothing changed: known without making it, so without importing TFX.

After a run that was finished in full, what it depended on is written down: all that making the pipeline read,
the code and data behind every node's key, the libraries, the environment, the day. While all of that is the
same, and every output still is as it was, the next run is a repetition: every node is a hit.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from mlplatform.home import Home
from mlplatform.orchestration.local.code_closure import environment_fingerprint
from mlplatform.orchestration.local.digests import (
    Digests,
    FileFacts,
    file_facts,
    is_local,
    is_same_file,
    text_digest,
)
from mlplatform.orchestration.local.lineage import Database, newest
from mlplatform.orchestration.local.plan import Plan
from mlplatform.orchestration.local.records import RunFolder, RunRecord, write_json
from mlplatform.orchestration.local.sources import names_digest

# Of the terminal and the session, not of the work.
_VOLATILE_VARIABLES = (
    "_", "COLUMNS", "DBUS_", "DISPLAY", "GPG_", "LINES", "LS_COLORS", "OLDPWD", "PYTEST_CURRENT_TEST",
    "SHLVL", "SSH_", "STY", "TERM", "TMUX", "VSCODE_", "WINDOW", "XDG_SESSION",
)  # fmt: skip


@dataclass
class Remembered:
    """What a finished run depended on.

    Attributes:
        run: The run's id.
        surroundings: The day, the environment's variables, the working folder and the installed libraries.
        files: Facts per file that was read to make the pipeline or belongs to a key.
        folders: Digest of the names in each folder that was listed.
        contents: Digest of the content at each artifact's place and each data folder.
        database: ML Metadata: connection (hexadecimal), kind and lock.
        newest: Highest ids in ML Metadata where a node looks for artifacts of earlier runs; else empty.
    """

    run: str
    surroundings: dict[str, str]
    files: dict[str, FileFacts] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    database: dict[str, str] = field(default_factory=dict)
    newest: list[int] = field(default_factory=list)


class Memory:
    """Where a pipeline with these arguments is remembered."""

    def __init__(self, home: Home, reference: str, arguments: Mapping[str, Any]) -> None:
        asked = json.dumps([reference, str(Path.cwd()), arguments], sort_keys=True, default=str)
        self._note = home.cache / "nodes" / "runs" / f"{text_digest(asked)}.json"
        self._digests = Digests(home.cache / "nodes" / "digests")
        self._home = home

    def remember(self, folder: RunFolder, record: RunRecord, plan: Plan, database: Database) -> None:
        """Write down what a finished run depended on, where it can be repeated at all."""
        details = [found for node in record.nodes if (found := folder.read_details(node.id))]
        digests = dict(plan.sources.files)
        for known in details:
            digests.update(known.files)
        files = {file: file_facts(file) for file in digests if Path(file).is_file()}
        names_run = any(record.run_id in part for known in details for part in known.parts.values())
        was_edited = any(files.get(file, [""])[-1] != digest for file, digest in digests.items())
        if names_run or was_edited or not _is_repeatable(record, plan):
            self._note.unlink(missing_ok=True)
            return
        remembered = Remembered(
            run=record.run_id,
            surroundings=surroundings(),
            files=files,
            folders=dict(plan.sources.folders),
            database={"connection": database.connection.hex(), "kind": database.kind, "lock": database.lock},
        )
        data = record.arguments.get("data")
        if isinstance(data, str) and is_local(data) and Path(data).exists():
            remembered.contents[str(Path(data).absolute())] = self._digests.of(str(Path(data).absolute()))
        for known in details:
            remembered.contents.update(known.paths)
        for artifact in _artifacts(record):
            if artifact.uri not in remembered.contents:
                remembered.contents[artifact.uri] = self._digests.of(artifact.uri)
        if plan.looks_back:
            with database.open() as store:
                remembered.newest = newest(store)
        self._note.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._note, asdict(remembered))

    def recall(self) -> Remembered | None:
        """Return the run to repeat; None where something changed, or nothing is remembered."""
        try:
            remembered = Remembered(**json.loads(self._note.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        same = (
            remembered.surroundings == surroundings()
            and (self._home.runs / remembered.run / "run.json").is_file()
            and all(names_digest(folder) == digest for folder, digest in remembered.folders.items())
            and all(is_same_file(file, facts) for file, facts in remembered.files.items())
            and all(self._digests.of(path) == digest for path, digest in remembered.contents.items())
        )
        return remembered if same else None

    def repeated(self, remembered: Remembered, run: str, newest_ids: list[int]) -> None:
        """Note that a repetition is the newest run now."""
        remembered.run = run
        remembered.newest = newest_ids if remembered.newest else []
        write_json(self._note, asdict(remembered))


def surroundings() -> dict[str, str]:
    """Return what a pipeline may have looked at without reading a file.

    The day is part of it: pipelines compute spans and versions from it.
    """
    variables = {k: v for k, v in os.environ.items() if not k.startswith(_VOLATILE_VARIABLES)}
    return {
        "day": date.today().isoformat(),
        "folder": str(Path.cwd()),
        "libraries": environment_fingerprint(),
        "variables": text_digest(json.dumps(variables, sort_keys=True)),
    }


def database_of(remembered: Remembered) -> Database:
    """Return the ML Metadata of a remembered run."""
    database = remembered.database
    return Database(bytes.fromhex(database["connection"]), database["kind"], database["lock"])


def _is_repeatable(record: RunRecord, plan: Plan) -> bool:
    return (
        plan.is_reproducible
        and record.state == "done"
        and all(node.is_cached and not node.is_forced and not node.is_left_out for node in plan.nodes)
        and all(is_local(artifact.uri) for artifact in _artifacts(record))
    )


def _artifacts(record: RunRecord) -> Iterator[Any]:
    for node in record.nodes:
        for found in (*node.inputs.values(), *node.outputs.values()):
            yield from found
