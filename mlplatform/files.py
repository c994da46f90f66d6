"""Files of this machine that appear in one step, or that only their owner can read."""

import json
import os
from pathlib import Path


def write_json(path: Path, document: object, *, mode: int = 0o666, is_synced: bool = False) -> None:
    """Write a JSON file in one step: whoever reads it sees the old one or the new one.

    Args:
        path: The file.
        document: What `json` can write; all else as text.
        mode: Its permissions, less the umask.
        is_synced: It survives a power cut.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.touch(mode)
    with aside.open("w", encoding="utf-8") as file:
        file.write(json.dumps(document, indent=1, default=str))
        if is_synced:
            file.flush()
            os.fsync(file.fileno())
    aside.replace(path)


def write_privately(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read: it may hold a password of a database."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
