"""Which versions of a model lie under its base path, and which of them a policy wants."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LatestVersions:
    """The newest `count` versions."""

    count: int = 1


@dataclass(frozen=True)
class AllVersions:
    """Every version there is."""


@dataclass(frozen=True)
class SpecificVersions:
    """These versions, as far as they are there."""

    versions: tuple[int, ...]


VersionPolicy = LatestVersions | AllVersions | SpecificVersions


def version_folders(base_path: Path) -> dict[int, Path]:
    """Return the version folders under `base_path`: those whose names are numbers.

    Leading zeros are allowed; of two folders with the same number, the last by name counts.

    Raises:
        OSError: `base_path` cannot be listed.
    """
    found: dict[int, Path] = {}
    for entry in sorted(base_path.iterdir()):
        if entry.name.isascii() and entry.name.isdigit() and entry.is_dir():
            found[int(entry.name)] = entry
    return found


def aspired(versions: Iterable[int], policy: VersionPolicy) -> list[int]:
    """Return the versions that `policy` wants served, newest first."""
    newest_first = sorted(versions, reverse=True)
    if isinstance(policy, LatestVersions):
        return newest_first[: policy.count]
    if isinstance(policy, SpecificVersions):
        return [version for version in newest_first if version in policy.versions]
    return newest_first


def fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a version's files do: a failed load is tried again only then."""
    facts = []
    for path in (folder, folder / "saved_model.pb", folder / "model.tflite", folder / "variables"):
        try:
            stat = path.stat()
        except OSError:
            continue
        facts.append((path.name, stat.st_mtime_ns, stat.st_size))
    return tuple(facts)
