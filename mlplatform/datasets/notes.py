"""Small notes beside the versions: tags, each move a file of its own, and what versions were used for."""

import datetime
import hashlib
import json
from dataclasses import dataclass

from mlplatform.datasets.line import Line, check_tag_name
from mlplatform.datasets.manifest import FORMAT, Manifest, sealed, unsealed


@dataclass(frozen=True)
class Use:
    """Something that was made from a version.

    Attributes:
        version: The version's name, such as `v3`.
        kind: What was made: `model`, `push`, or a word of the caller's.
        name: Its name, such as `item_category@7`.
        detail: More, such as a run's id or a path.
        at: When it was first noted, UTC, ISO 8601.
    """

    version: str
    kind: str
    name: str
    detail: str
    at: str


def tag_version(line: Line, manifest: Manifest, tag: str) -> None:
    """Let a tag name a version, and no longer the one that it named before."""
    check_tag_name(tag)
    folder = f"{line.dataset}/tags/{tag}"
    with line.storage.hold(line.dataset, alone=False):
        _move_tag(line, manifest, tag, folder)


def _move_tag(line: Line, manifest: Manifest, tag: str, folder: str) -> None:
    moves = [int(name[:-5]) for name in line.storage.names(folder)]
    note = sealed({"format": FORMAT, "tag": tag, "number": manifest.number, "at": now()})
    move = max(moves, default=0) + 1
    while not line.storage.create(f"{folder}/{move}.json", note):
        move += 1


def record_use(line: Line, manifest: Manifest, kind: str, name: str, detail: str) -> None:
    """Note that something was made from a version; noted once, however often it is said."""
    fact = {"number": manifest.number, "kind": kind, "name": name, "detail": detail}
    file = hashlib.sha256(json.dumps(fact, sort_keys=True).encode()).hexdigest()[:32]
    with line.storage.hold(line.dataset, alone=False):
        line.storage.create(
            f"{line.dataset}/uses/{file}.json", sealed({"format": FORMAT, **fact, "at": now()})
        )


def read_uses(line: Line) -> list[Use]:
    """Return what the versions of a dataset were used for, the oldest first."""
    uses = []
    for name in line.storage.names(f"{line.dataset}/uses"):
        path = f"{line.dataset}/uses/{name}"
        fact = unsealed(line.storage.read(path), f"{line.storage.url}/{path}")
        uses.append(Use(f"v{fact['number']}", fact["kind"], fact["name"], fact["detail"], fact["at"]))
    return sorted(uses, key=lambda use: use.at)


def now() -> str:
    """Return the UTC time, ISO 8601, to the millisecond."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
