"""Digests of files and folders by content, remembered by what the file system says of each file.

Of object storage, the listing says it: of each file the size and what identifies its bytes, such as an ETag.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mlplatform.errors import MissingExtraError
from mlplatform.files import write_json
from mlplatform.storage.errors import StoreAccessError
from mlplatform.storage.urls import is_local, scheme

# A file that changed so shortly before it was read may change again within one tick of its clock.
_TICK_NS = 20_000_000
_BLOCK_BYTES = 1 << 20
UNUSED_DAYS = 90
UNSEEN = "elsewhere"  # in the place of a digest: what is there cannot be known from here

FileFacts = list[int | str]  # size, mtime_ns, ctime_ns, device, inode, digest


class Digests:
    """Digests of content, with a memory in a folder that can be deleted at any time.

    A file counts as unchanged while its size, its times (of content and of inode, so that a time that is put
    back does not deceive), its device and its inode are the same, and as long as these times lay clearly
    before the moment at which it was read.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def of(self, path: str) -> str:
        """Return the digest of a file, or of all files below a folder with their relative names.

        Links are followed; a folder that several links lead to is read once. An empty folder counts by its
        name.

        Args:
            path: A local path; or a URL, whose files are listed and not read.

        Returns:
            Hexadecimal, 32 characters; empty where nothing is there; `UNSEEN` for a URL that this machine
            cannot list.
        """
        if not is_local(path):
            return _of_url(path)
        if not Path(path).exists():
            return ""
        note = self._memory / f"{text_digest(path)}.json"
        known = _read(note)
        now_known: dict[str, FileFacts] = {}
        total = hashlib.blake2b(digest_size=16)
        for name, file, facts in _files(path):
            if not file:  # a folder that is empty, or was read already
                total.update(os.fsencode(f"{name}\n"))
                continue
            entry = known.get(name)
            if entry is None or entry[:-1] != facts:
                entry = _read_facts(file, facts)
            now_known[name] = entry
            total.update(os.fsencode(f"{name}\0{entry[-1]}\n"))
        if now_known != known:
            self._memory.mkdir(parents=True, exist_ok=True)
            write_json(note, now_known)
        return total.hexdigest()


def _of_url(url: str) -> str:
    from mlplatform.storage.file_systems import OBJECT_STORES, identities

    if scheme(url) not in OBJECT_STORES:
        return UNSEEN
    total = hashlib.blake2b(digest_size=16)
    is_empty = True
    try:
        for name, (size, bytes_id) in identities(url):
            if not bytes_id:
                return UNSEEN
            total.update(f"{name}\0{size}\0{bytes_id}\n".encode("utf-8", "surrogateescape"))
            is_empty = False
    except (FileNotFoundError, NotADirectoryError):  # not even a bucket
        return ""
    except (StoreAccessError, MissingExtraError):  # who reads or writes there meets and reports it
        return UNSEEN
    return "" if is_empty else total.hexdigest()


def prune(folder: Path) -> None:
    """Remove the notes in a folder that nothing has been written to for `UNUSED_DAYS`.

    What a note remembers is read anew where it is asked for again.
    """
    oldest = time.time() - UNUSED_DAYS * 86_400
    for note in folder.glob("*.json"):
        try:
            if note.stat().st_mtime < oldest:
                note.unlink()
        except FileNotFoundError:  # another run was faster
            continue


def file_facts(file: str) -> FileFacts:
    """Return what `is_same_file` needs to know; an empty digest alone where there is no readable file."""
    try:
        return _read_facts(file, _facts(os.stat(file)))  # noqa: PTH116
    except OSError:
        return [""]


def is_same_file(file: str, facts: FileFacts) -> bool:
    """Say whether a file still has the content that it had when its facts were taken."""
    try:
        if facts[:-1] == _facts(os.stat(file)):  # noqa: PTH116
            return True
    except OSError:
        return facts[-1] == ""
    return facts[-1] == digest_or_empty(file)


def file_digest(file: str) -> str:
    """Return the digest of one file's content: hexadecimal, 32 characters."""
    digest = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def digest_or_empty(file: str) -> str:
    """Return the digest of one file's content; empty where there is no file that can be read."""
    try:
        return file_digest(file)
    except OSError:
        return ""


def text_digest(text: str) -> str:
    """Return the digest of a text, which may be a file's name: hexadecimal, 32 characters."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _files(path: str) -> Iterator[tuple[str, str, FileFacts]]:
    """Yield name, path and facts of every file, in an order that depends on the names alone.

    A folder that was met before gives a name that says where, and an empty path; an empty one its name.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - many small calls
        yield "", path, _facts(os.stat(path))  # noqa: PTH116
        return
    seen = {_identity(os.stat(path)): ""}  # noqa: PTH116
    pending = [""]
    while pending:
        folder = pending.pop()
        inner = []
        is_empty = True
        with os.scandir(os.path.join(path, folder)) as entries:  # noqa: PTH118
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{folder}/{entry.name}" if folder else entry.name
                is_empty = False
                if _is_loop(entry):
                    continue
                if entry.is_dir():
                    identity = _identity(entry.stat())
                    if identity in seen:
                        yield f"{name}\0-> {seen[identity]}", "", []
                    else:
                        seen[identity] = name
                        inner.append(name)
                elif entry.is_file():
                    yield name, entry.path, _facts(entry.stat())
        if is_empty and folder:
            yield f"{folder}/", "", []
        pending.extend(reversed(inner))


def _is_loop(entry: os.DirEntry[str]) -> bool:
    """Say whether this is a link that leads to itself."""
    try:
        entry.is_dir()
    except OSError:
        return True
    return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _facts(status: os.stat_result) -> FileFacts:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino]


def _read_facts(file: str, facts: FileFacts) -> FileFacts:
    """Add the digest; one read too early to be trusted later gets a size that no file has."""
    started_ns = time.time_ns()
    digest = file_digest(file)
    settled = max(int(facts[1]), int(facts[2])) < started_ns - _TICK_NS
    return [*(facts if settled else [-1, 0, 0, 0, 0]), digest]


def _read(note: Path) -> dict[str, FileFacts]:
    try:
        known = json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
