"""Which versions of a model lie under its base path, and which of them a policy wants."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LatestVersions:
    """The newest `count` versions, and those of `also` that are there."""

    count: int = 1
    also: tuple[int, ...] = ()


@dataclass(frozen=True)
class AllVersions:
    """Every version there is."""


@dataclass(frozen=True)
class SpecificVersions:
    """These versions, as far as they are there."""

    versions: tuple[int, ...]


Fingerprint = tuple[tuple[str, int, int], ...]

MAX_VERSION = (1 << 63) - 1

VersionPolicy = LatestVersions | AllVersions | SpecificVersions


def version_folders(base_path: Path) -> dict[int, Path]:
    """Return the version folders under `base_path`: those whose names are numbers of 64 bits.

    Leading zeros are allowed; of two folders with the same number, the last by name counts.

    Raises:
        OSError: `base_path` cannot be listed.
    """
    found: dict[int, Path] = {}
    for entry in sorted(base_path.iterdir()):
        is_number = entry.name.isascii() and entry.name.isdigit() and int(entry.name) <= MAX_VERSION
        if is_number and entry.is_dir():
            found[int(entry.name)] = entry
    return found


def aspired(versions: Iterable[int], policy: VersionPolicy) -> list[int]:
    """Return the versions that `policy` wants served, newest first."""
    newest_first = sorted(versions, reverse=True)
    if isinstance(policy, LatestVersions):
        return [v for n, v in enumerate(newest_first) if n < policy.count or v in policy.also]
    if isinstance(policy, SpecificVersions):
        return [version for version in newest_first if version in policy.versions]
    return newest_first


def fingerprint(folder: Path) -> Fingerprint:
    """Return what changes when any of a version's files does: path, time and size of each."""
    facts = []
    for path in sorted(folder.rglob("*")):
        try:
            stat = path.stat()
        except OSError:  # it is being replaced
            continue
        facts.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(facts)
