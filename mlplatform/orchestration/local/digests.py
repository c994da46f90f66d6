"""Digests of files and folders by content, remembered by what the file system says of each file."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mlplatform.orchestration.local.records import write_json

# A file that changed so shortly before it was read may change again within one tick of its clock.
_TICK_NS = 20_000_000
_BLOCK_BYTES = 1 << 20

FileFacts = list[int | str]  # size, mtime_ns, inode, digest


def is_local(uri: str) -> bool:
    """Say whether a URI is a path of this machine."""
    return "://" not in uri


class Digests:
    """Digests of content, with a memory in a folder that can be deleted at any time.

    A file counts as unchanged while its size, modification time and inode are the same, and as long as that
    time lay clearly before the moment at which it was read.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def of(self, path: str) -> str:
        """Return the digest of a file, or of all files below a folder with their relative names.

        Returns:
            Hexadecimal, 32 characters; empty where nothing is there.
        """
        if not Path(path).exists():
            return ""
        note = self._memory / f"{text_digest(path)}.json"
        known = _read(note)
        now_known: dict[str, FileFacts] = {}
        total = hashlib.blake2b(digest_size=16)
        for name, file, facts in _files(path):
            entry = known.get(name)
            if entry is None or entry[:3] != facts:
                entry = _read_facts(file, facts)
            now_known[name] = entry
            total.update(f"{name}\0{entry[3]}\n".encode("utf-8", "surrogatepass"))
        if now_known != known:
            self._memory.mkdir(parents=True, exist_ok=True)
            write_json(note, now_known)
        return total.hexdigest()


def file_facts(file: str) -> FileFacts:
    """Return what `is_same_file` needs to know of a file: size, modification time, inode, digest."""
    return _read_facts(file, _facts(os.stat(file)))  # noqa: PTH116


def is_same_file(file: str, facts: FileFacts) -> bool:
    """Say whether a file still has the content that it had when its facts were taken."""
    try:
        return facts[:3] == _facts(os.stat(file)) or facts[3] == file_digest(file)  # noqa: PTH116
    except OSError:
        return False


def file_digest(file: str) -> str:
    """Return the digest of one file's content: hexadecimal, 32 characters."""
    digest = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """Return the digest of a text: hexadecimal, 32 characters."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _files(path: str) -> Iterator[tuple[str, str, FileFacts]]:
    """Yield name, path and facts of every file, names in order."""
    if not os.path.isdir(path):  # noqa: PTH112 - many small calls
        yield "", path, _facts(os.stat(path))  # noqa: PTH116
        return
    found = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(path, folder)) as entries:  # noqa: PTH118
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    pending.append(name)
                elif entry.is_file():
                    found.append((name, entry.path, _facts(entry.stat())))
    yield from sorted(found)


def _facts(status: os.stat_result) -> FileFacts:
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _read_facts(file: str, facts: FileFacts) -> FileFacts:
    """Add the digest; one read too early to be trusted later gets a size that no file has."""
    started_ns = time.time_ns()
    digest = file_digest(file)
    settled = int(facts[1]) < started_ns - _TICK_NS
    return [*(facts if settled else [-1, 0, 0]), digest]


def _read(note: Path) -> dict[str, FileFacts]:
    try:
        known = json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
