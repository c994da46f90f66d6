"""What a pipeline may look at without reading a file: the time, the environment, what is installed."""

import json
import os
from datetime import datetime, timezone
from pathlib import Path

from mlplatform.fingerprints.digests import text_digest
from mlplatform.fingerprints.libraries import environment_fingerprint

# Of the terminal and the session, not of the work.
_VOLATILE_VARIABLES = frozenset(
    {
        "_", "COLORTERM", "COLUMNS", "DISPLAY", "LINES", "LS_COLORS", "OLDPWD", "PYTEST_CURRENT_TEST",
        "SHLVL", "STY", "TERM", "TMUX", "TMUX_PANE", "WINDOW", "WINDOWID",
    }
)  # fmt: skip
_VOLATILE_PREFIXES = ("DBUS_", "GPG_", "SSH_", "TERM_", "VSCODE_", "XDG_SESSION_")


def surroundings() -> dict[str, str]:
    """Return the time, the folder, libraries and variables.

    The time is the hour, as pipelines compute spans from it, and the day in UTC, with which waivers end.
    """
    variables = {name: value for name, value in os.environ.items() if not is_volatile(name)}
    return {
        "hour": datetime.now().astimezone().isoformat(timespec="hours"),
        "day": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "folder": str(Path.cwd()),
        "libraries": environment_fingerprint(),
        "variables": text_digest(json.dumps(variables, sort_keys=True)),
    }


def is_volatile(variable: str) -> bool:
    """Say whether an environment variable is of the terminal and the session, not of the work."""
    return variable in _VOLATILE_VARIABLES or variable.startswith(_VOLATILE_PREFIXES)
