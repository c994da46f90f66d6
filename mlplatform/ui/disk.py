"""How large each part of a root is, and what `mlplatform gc` would remove."""

import os
import threading
import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mlplatform.errors import MlplatformError
from mlplatform.home import Home
from mlplatform.retention.collect import collect
from mlplatform.retention.policy import RetentionPolicy, read_policy
from mlplatform.storage.urls import is_local

_KNOWN_FOR_S = 60.0


class DiskUse:
    """The disk use of a root, measured in a thread of its own: of many runs it takes seconds.

    Args:
        home: The root.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._known: tuple[float, dict[str, Any]] | None = None
        self._measuring: threading.Thread | None = None
        self._lock = threading.Lock()

    def last(self) -> dict[str, Any] | None:
        """Return what was measured last, None until the first time is over; after a minute, measure again."""
        with self._lock:
            known = self._known
            is_old = known is None or time.monotonic() - known[0] > _KNOWN_FOR_S
            if is_old and (self._measuring is None or not self._measuring.is_alive()):
                self._measuring = threading.Thread(target=self._measure, name="disk use", daemon=True)
                self._measuring.start()
        return known[1] if known else None

    def wait(self) -> None:
        """Wait for a measurement that has begun."""
        if self._measuring is not None:
            self._measuring.join()

    def _measure(self) -> None:
        found = {"parts": _parts(self._home), "gc": _would_remove(self._home)}
        measured_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._known = time.monotonic(), {**found, "measured_at": measured_at}


def _parts(home: Home) -> list[dict[str, Any]]:
    if not is_local(home.root) or not Path(home.root).is_dir():
        return []
    with os.scandir(home.root) as entries:
        folders = sorted((e.name, e.path) for e in entries if e.is_dir(follow_symlinks=False))
    parts = [{"part": name, **_measured(path)} for name, path in folders]
    return [part for part in parts if part["files"]]


def _would_remove(home: Home) -> dict[str, Any]:
    """Return what `mlplatform gc` would remove, by the root's policy or else the default one."""
    try:
        policy = read_policy(home)
        found = collect(home, policy or RetentionPolicy(), datetime.now(timezone.utc), is_dry_run=True)
    except MlplatformError as error:  # a policy that cannot be used hides no sizes
        return {"problem": str(error), "has_policy": False, "bytes": 0, "removed_runs": [], "freed": []}
    freed = [asdict(each) for each in found.freed if each.count]
    return {
        "problem": "",
        "has_policy": policy is not None,
        "bytes": found.bytes,
        "removed_runs": list(found.removed_runs),
        "freed": freed,
    }


def _measured(folder: str) -> dict[str, int]:
    size, files, left, seen = 0, 0, [folder], set()
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                        continue
                    facts = entry.stat(follow_symlinks=False)
                    files += 1
                    if facts.st_nlink == 1 or facts.st_ino not in seen:  # a checkout links the store's files
                        seen.add(facts.st_ino)
                        size += facts.st_blocks * 512
        except OSError:  # deleted meanwhile
            continue
    return {"bytes": size, "files": files}
