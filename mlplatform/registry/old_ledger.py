"""The ledger of a model as release 0.1 wrote it: `ledger.jsonl` in the model's folder, one event a line.

It is only read: what it holds is the beginning of the model's stream, and becomes its first event when the
next one is written. A line that is not an event is skipped and reported.
"""

import functools
import json
import logging
import stat
from pathlib import Path

from mlplatform.registry.errors import LedgerAccessError
from mlplatform.registry.model_events import is_model_event

log = logging.getLogger(__name__)

OLD_LEDGER_FILE = "ledger.jsonl"


def old_events(model_folder: Path) -> list[dict[str, object]]:
    """Return the events in a model's `ledger.jsonl`, oldest first; none where there is no such file.

    Raises:
        LedgerAccessError: The file cannot be read as a whole.
    """
    path = model_folder / OLD_LEDGER_FILE
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise LedgerAccessError(path, "it is not a file")
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise LedgerAccessError(path, error.strerror or str(error)) from error
    found = []
    for number, line in enumerate(lines, start=1):
        event = _parsed(line) if line.strip() else None
        if event is not None:
            found.append(event)
        elif line.strip() and number < len(lines):  # a killed writer left the last one incomplete
            _report_damage(path, number, line[:80])
    return found


def _parsed(line: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return found if is_model_event(found) else None


@functools.lru_cache(maxsize=1024)  # a server reads the ledger each second: once is enough
def _report_damage(path: Path, number: int, start: bytes) -> None:
    log.warning("%s: line %d is damaged and skipped: %r", path, number, start.decode("utf-8", "replace"))
