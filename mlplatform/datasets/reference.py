"""`NAME@VERSION`: how a stored version is named where a folder may be named, too."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_REFERENCE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,99})@(?P<version>[A-Za-z0-9][A-Za-z0-9_.-]*)")


@dataclass(frozen=True)
class Reference:
    """A version of a dataset.

    Attributes:
        name: The dataset's name.
        version: `v3`, a tag, the beginning of a digest, or `latest`.
    """

    name: str
    version: str


def version_reference(place: str | os.PathLike[str]) -> Reference | None:
    """Return the version that a place names; None where it is a folder of this machine, or a path or URL."""
    found = _REFERENCE.fullmatch(os.fspath(place))
    return Reference(found["name"], found["version"]) if found and not Path(place).exists() else None
