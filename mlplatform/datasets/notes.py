"""Small notes beside the versions: tags, each move a file of its own, and what versions were used for."""

import datetime
import errno
import getpass
import hashlib
import json
import os
from dataclasses import dataclass, replace

from mlplatform.datasets.format.manifest import FORMAT, Manifest, sealed, unsealed
from mlplatform.datasets.line import Line, check_tag_name, declarations, tag_moves
from mlplatform.storage.errors import NoAtomicCreateError, StoreAccessError
from mlplatform.storage.urls import is_local


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

    @classmethod
    def from_json(cls, data: bytes, path: str) -> "Use":
        """Read its file. Raises CorruptStoreError."""
        fields = unsealed(data, path)
        version = f"v{fields.count('number', 1)}"
        return cls(version, *(fields.text(name) for name in ("kind", "name", "detail", "at")))


@dataclass(frozen=True)
class Copy:
    """A folder outside of the store that a version was read from or written to.

    Attributes:
        version: The version's name, such as `v3`.
        kind: `source` (it was committed from there), `checkout`, `export`, or a word of the caller's.
        place: The folder or URL.
        at: When it was first noted, UTC, ISO 8601.
    """

    version: str
    kind: str
    place: str
    at: str

    @classmethod
    def from_json(cls, data: bytes, path: str) -> "Copy":
        """Read its file. Raises CorruptStoreError."""
        fields = unsealed(data, path)
        version = f"v{fields.count('number', 1)}"
        return cls(version, *(fields.text(name) for name in ("kind", "place", "at")))

    @property
    def is_there(self) -> bool | None:
        """The folder is still there; None where it is not on this machine."""
        place = self.place.removeprefix("file://")
        return os.path.exists(place) if is_local(place) else None  # noqa: PTH110 - False for any text


def tag_version(line: Line, manifest: Manifest, tag: str) -> None:
    """Let a tag name a version, and no longer the one that it named before."""
    check_tag_name(tag)
    with line.storage.hold(line.dataset, alone=False):
        note = sealed({"format": FORMAT, "tag": tag, "number": manifest.number, "at": now()})
        move = max(tag_moves(line.storage, line.dataset, tag), default=0) + 1
        while not line.storage.create(f"{line.dataset}/tags/{tag}/{move}.json", note):
            move += 1


def declare(line: Line, manifest: Manifest, key: list[str], label: str, taxonomy: str) -> Manifest:
    """Declare another key, label or taxonomy for a version that is there; return the version with them."""
    note = {"format": FORMAT, "number": manifest.number, "key": key, "label": label}
    if taxonomy:
        note["taxonomy"] = taxonomy
    with line.storage.hold(line.dataset, alone=False):
        move = max(declarations(line.storage, line.dataset), default=0) + 1
        path = f"{line.dataset}/declared/{{}}.json"
        while not line.storage.create(path.format(move), sealed({**note, "at": now()})):
            move += 1
    return replace(manifest, key=key, label=label, taxonomy=taxonomy)


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
        if name.endswith(".json"):  # nothing else is ours
            path = f"{line.dataset}/uses/{name}"
            uses.append(Use.from_json(line.storage.read(path), f"{line.storage.url}/{path}"))
    return sorted(uses, key=lambda use: use.at)


def record_copy(line: Line, manifest: Manifest, kind: str, place: str) -> None:
    """Note where a version was read from or written to; who may not write to the store notes nothing."""
    fact = {"number": manifest.number, "kind": kind, "place": printable(place)}
    file = hashlib.sha256(json.dumps(fact, sort_keys=True).encode()).hexdigest()[:32]
    path = f"{line.dataset}/copies/{file}.json"
    try:
        with line.storage.hold(line.dataset, alone=False):
            line.storage.create(path, sealed({"format": FORMAT, **fact, "at": now()}))
    except (PermissionError, StoreAccessError, NoAtomicCreateError):
        return
    except OSError as error:
        if error.errno != errno.EROFS:
            raise


def read_copies(line: Line) -> list[Copy]:
    """Return the folders that the versions of a dataset were read from and written to, the oldest first."""
    copies = [
        Copy(manifest.version, "source", manifest.source, manifest.created_at) for manifest in line.manifests
    ]
    for name in line.storage.names(f"{line.dataset}/copies"):
        if name.endswith(".json"):  # nothing else is ours
            path = f"{line.dataset}/copies/{name}"
            copies.append(Copy.from_json(line.storage.read(path), f"{line.storage.url}/{path}"))
    return sorted(copies, key=lambda copy: copy.at)


def printable(text: str) -> str:
    """Return the text with bytes that are no UTF-8, as file names may have, written as `\\xff`."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


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
    return f"{user()}@{os.uname().nodename}"
