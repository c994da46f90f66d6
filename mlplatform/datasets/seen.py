"""Remembers which version a folder of files was, so that committing the same, untouched files reads none of
them.

As in git's index, a file is untouched while its size, its inode and both its times are the same: of
modification, and of change of the inode, which no program sets. A file that was changed within two seconds of
the scan is not trusted, because its times might not show the next change.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from mlplatform.datasets.examples_folder import Shard
from mlplatform.datasets.format.fields import DIGEST
from mlplatform.datasets.format.manifest import FORMAT, Manifest, sealed, unsealed
from mlplatform.datasets.line import Line
from mlplatform.errors import MlplatformError
from mlplatform.storage import Storage

_SETTLED_AFTER_S = 2.0


def seen_path(dataset: str, splits: Sequence[str], shards: Sequence[Shard]) -> str | None:
    """Return the path of the note on these files; None where their stamps cannot be trusted."""
    if not all(shard.is_local for shard in shards):
        return None
    newest = time.time_ns() - int(_SETTLED_AFTER_S * 1e9)
    changed = [Path(shard.path).stat().st_ctime_ns for shard in shards]
    if any(max(change, int(shard.stamp[1])) > newest for change, shard in zip(changed, shards, strict=True)):
        return None
    files = [
        [shard.split, shard.path, *shard.stamp, change] for change, shard in zip(changed, shards, strict=True)
    ]
    name = hashlib.sha256(json.dumps([list(splits), files]).encode()).hexdigest()[:32]
    return f"{dataset}/seen/{name}.json"


def seen_version(line: Line, path: str | None) -> Manifest | None:
    """Return the version that the files were; None where that is not known."""
    if path is None:
        return None
    try:
        number, digest = read_seen(line.storage.read(path), path)
    except (FileNotFoundError, MlplatformError):  # a cache: whatever is wrong with it, the files are read
        return None
    if number > len(line.manifests):
        return None
    manifest = line.manifests[number - 1]
    return manifest if manifest.digest == digest else None


def read_seen(data: bytes, path: str) -> tuple[int, str]:
    """Read a note on files that were seen: their version's number and digest. Raises CorruptStoreError."""
    fields = unsealed(data, path)
    return fields.count("number", 1), fields.text("digest", DIGEST)


def note_seen(storage: Storage, path: str | None, manifest: Manifest) -> None:
    """Remember which version the files are."""
    if path is not None:
        note = {"format": FORMAT, "digest": manifest.digest, "number": manifest.number}
        storage.put(path, sealed(note))
