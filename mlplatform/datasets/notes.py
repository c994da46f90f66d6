"""Small notes beside the versions: tags, each move a file of its own, and what versions were used for."""

import datetime
import getpass
import hashlib
import json
import os
import socket
from dataclasses import dataclass, replace

from mlplatform.datasets.line import Line, check_tag_name, declarations, tag_moves
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
    with line.storage.hold(line.dataset, alone=False):
        note = sealed({"format": FORMAT, "tag": tag, "number": manifest.number, "at": now()})
        move = max(tag_moves(line.storage, line.dataset, tag), default=0) + 1
        while not line.storage.create(f"{line.dataset}/tags/{tag}/{move}.json", note):
            move += 1


def declare(line: Line, manifest: Manifest, key: list[str], label: str) -> Manifest:
    """Declare another key and label for a version that is there; return the version with them."""
    note = {"format": FORMAT, "number": manifest.number, "key": key, "label": label}
    with line.storage.hold(line.dataset, alone=False):
        move = max(declarations(line.storage, line.dataset), default=0) + 1
        path = f"{line.dataset}/declared/{{}}.json"
        while not line.storage.create(path.format(move), sealed({**note, "at": now()})):
            move += 1
    return replace(manifest, key=key, label=label)


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


def user() -> str:
    """Return the name of who runs this process, or the user's number where there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for this user id, as in some containers
        return str(os.getuid())


def user_and_host() -> str:
    """Return who runs this process, and where."""
    return f"{user()}@{socket.gethostname()}"
