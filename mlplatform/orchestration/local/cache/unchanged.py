"""The run of a pipeline in which nothing changed: known without making it, so without importing TFX.

After a run that was finished in full, what it depended on is written down: all that making the pipeline read,
the code and data behind every node's key, the libraries, the environment, the hour. While all of that is the
same, no other run of the pipeline was since, and every output still is as it was, the next run is a
repetition: every node is a hit.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from mlplatform.errors import MlplatformError
from mlplatform.files import write_json
from mlplatform.fingerprints.digests import (
    UNSEEN,
    Digests,
    FileFacts,
    file_facts,
    is_same_file,
    prune,
    text_digest,
)
from mlplatform.home import Home
from mlplatform.orchestration.local.cache.pushed import versions_digest
from mlplatform.orchestration.local.cache.sources import neighbours_digest
from mlplatform.orchestration.local.cache.surroundings import surroundings
from mlplatform.orchestration.local.mlmd.lineage import Database, newest_of
from mlplatform.orchestration.local.plan import Plan
from mlplatform.orchestration.local.records import NodeDetails, RunFolder, RunRecord
from mlplatform.roles import VALUE, WRITTEN, Role
from mlplatform.storage.urls import is_local


@dataclass
class Remembered:
    """What a finished run depended on.

    Attributes:
        run: The run's id.
        surroundings: The hour, the environment's variables, the working folder and the installed libraries.
        files: Facts per file that was read to make the pipeline or belongs to a key.
        folders: Digest of the names in each folder that was listed, and of the versions in each that
            something was pushed to.
        neighbours: Digest of the names in each folder of the user's code.
        contents: Digest of the content at each artifact's place, of data, and of what was pushed; a place
            may be a URL.
        database: ML Metadata: connection (hexadecimal), kind and lock.
        newest: What `newest_of` says of the pipeline in ML Metadata.
        looks_back: A node looks for artifacts of earlier runs, so no other pipeline may have run either.
    """

    run: str
    surroundings: dict[str, str]
    files: dict[str, FileFacts] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    neighbours: dict[str, str] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    database: dict[str, str] = field(default_factory=dict)
    newest: list[str] = field(default_factory=list)
    looks_back: bool = False


class Memory:
    """Where a pipeline with these arguments is remembered; begun before the run, to know its start."""

    def __init__(self, home: Home, reference: str, arguments: Mapping[str, Any]) -> None:
        asked = json.dumps([reference, str(Path.cwd()), arguments], default=str)
        self._note = home.cache / "nodes" / "runs" / f"{text_digest(asked)}.json"
        self._digests = Digests(home.cache / "nodes" / "digests")
        self._home = home
        self._surroundings = surroundings()
        data = arguments.get("data")
        self._data = str(Path(data).absolute()) if isinstance(data, str) and is_local(data) else ""
        self._data_digest = self._digests.of(self._data) if self._data else ""

    def remember(self, folder: RunFolder, record: RunRecord, plan: Plan, database: Database) -> None:
        """Write down what a finished run depended on, where it can be repeated at all."""
        for notes in ("digests", "runs"):
            prune(self._home.cache / "nodes" / notes)
        details = [found for node in record.nodes if (found := folder.read_details(node.id))]
        read = [plan.sources.files, *(known.files for known in details)]
        files = {file: file_facts(file) for file in sorted(set(chain(*read)))}
        was_edited = any(files[file][-1] != digest for known in read for file, digest in known.items())
        if was_edited or not _is_repeatable(record, plan, details):
            self._note.unlink(missing_ok=True)
            return
        remembered = Remembered(
            run=record.run_id,
            surroundings=self._surroundings,
            files=files,
            folders=dict(plan.sources.folders),
            neighbours=dict(plan.sources.neighbours),
            database={"connection": database.connection.hex(), "kind": database.kind, "lock": database.lock},
            looks_back=plan.looks_back,
        )
        for artifact in _artifacts(record):
            if artifact.uri not in remembered.contents:
                remembered.contents[artifact.uri] = self._digests.of(artifact.uri)
        for known in details:
            remembered.contents.update(known.paths)
            remembered.folders.update(known.folders)
        if self._data:
            remembered.contents[self._data] = self._data_digest
        if UNSEEN in (*remembered.contents.values(), *remembered.folders.values()):
            self._note.unlink(missing_ok=True)
            return
        with database.open() as store:
            remembered.newest = newest_of(store, record.pipeline, is_alone=plan.looks_back)
        self._write(remembered)

    def recall(self) -> Remembered | None:
        """Return the run to repeat; None where something changed, or nothing is remembered."""
        try:
            remembered = Remembered(**json.loads(self._note.read_text("utf-8")))
            return remembered if self._is_same(remembered) else None
        except (
            OSError,
            ValueError,
            TypeError,
            MlplatformError,
        ):  # what cannot be read is not known to be the same
            return None

    def repeated(self, remembered: Remembered, run: str, newest: list[str]) -> None:
        """Note that a repetition is the newest run now."""
        remembered.run, remembered.newest = run, newest
        self._write(remembered)

    def _is_same(self, remembered: Remembered) -> bool:
        return (
            remembered.surroundings == self._surroundings
            and (self._home.runs / remembered.run / "run.json").is_file()
            and all(neighbours_digest(folder) == digest for folder, digest in remembered.neighbours.items())
            and all(is_same_file(file, facts) for file, facts in remembered.files.items())
            and all(self._digests.of(path) == digest for path, digest in _local_first(remembered.contents))
            and all(versions_digest(folder) == digest for folder, digest in _local_first(remembered.folders))
        )

    def _write(self, remembered: Remembered) -> None:
        self._note.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._note, asdict(remembered), mode=0o600)  # the connection may hold a password


def _local_first(digests: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return digests by place, those of this machine first: where one has changed, no request is made."""
    return sorted(digests.items(), key=lambda one: not is_local(one[0]))


def database_of(remembered: Remembered) -> Database:
    """Return the ML Metadata of a remembered run."""
    database = remembered.database
    return Database(bytes.fromhex(database["connection"]), database["kind"], database["lock"])


def _is_repeatable(record: RunRecord, plan: Plan, details: list[NodeDetails]) -> bool:
    """Say whether nothing in a run depends on what cannot be looked at."""
    roles = {node.id: node.roles for node in plan.nodes}
    return (
        plan.is_reproducible
        and not plan.sources.world
        and record.state == "done"
        and all(node.is_cached and not node.is_forced and not node.is_left_out for node in plan.nodes)
        and not any(known.doubts or "uncertain" in known.parts for known in details)
        and not any(
            record.run_id in text or not _is_known(part, text, known, roles.get(known.node, {}))
            for known in details
            for part, text in known.parts.items()
        )
        and all(is_local(artifact.uri) for artifact in _artifacts(record))
    )


def _is_known(part: str, text: str, known: NodeDetails, roles: Mapping[str, Role]) -> bool:
    """Say whether a part of a key is not a URL, or one that counts by its name or whose content is seen."""
    if is_local(text.replace("file://", "")):
        return True
    return text in known.paths or roles.get(part.removeprefix("parameter ")) in (WRITTEN, VALUE)


def _artifacts(record: RunRecord) -> Iterator[Any]:
    for node in record.nodes:
        for found in (*node.inputs.values(), *node.outputs.values()):
            yield from found
