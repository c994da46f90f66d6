"""Notices to people: a webhook, a mail or a command, when a run fails, is refused or recovers."""

from mlplatform.home import Home
from mlplatform.storage import open_storage

SETTINGS_FILE = "notices.yaml"


def has_settings(home: Home) -> bool:
    """Return whether a root says that people are notified; costs less than reading what it says."""
    try:
        return open_storage(home.root).size(SETTINGS_FILE) > 0
    except FileNotFoundError:
        return False
