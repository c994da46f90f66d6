"""Removes what a policy does not keep, in an order in which whoever is killed leaves nothing broken.

ML Metadata's rows go first, in one transaction: from then on no cache finds the artifacts, whose places were
noted in a file before. Then those places are deleted, reports, records of runs, withdrawn models, and files
of the dataset store. What a killed collection leaves, the next one finds: by that file, or by the policy.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from mlplatform.datasets import DatasetStore
from mlplatform.files import write_json
from mlplatform.home import Home
from mlplatform.registry import ModelStore
from mlplatform.reports.kept import write_index
from mlplatform.retention.kept_runs import Kept, kept_of
from mlplatform.retention.metadata import (
    OldRows,
    artifact_uris,
    delete_old_rows,
    find_old_rows,
    metadata,
    without_shared,
)
from mlplatform.retention.policy import RetentionPolicy
from mlplatform.storage import ASIDE, Storage, open_storage
from mlplatform.storage.urls import is_local, join

_STALE_S = 24 * 3600
_NOTED = "to-remove.json"  # beside ML Metadata's file


@dataclass(frozen=True)
class Freed:
    """What is removed of one kind.

    Attributes:
        kind: `runs` (records and logs), `artifacts`, `metadata rows`, `reports`, `withdrawn models` or
            `dataset files`.
        count: How many.
        bytes: Their size; 0 for rows, whose place the database uses again.
    """

    kind: str
    count: int
    bytes: int


@dataclass(frozen=True)
class Collection:
    """What a policy keeps and removes.

    Attributes:
        kept: Why runs are kept, by their ids.
        removed_runs: Ids of the runs whose records, artifacts and reports are removed. The ledger keeps what
            happened in them.
        removed_versions: Withdrawn versions of models, by the model's name.
        freed: What that frees, by kind.
    """

    kept: dict[str, str]
    removed_runs: tuple[str, ...]
    removed_versions: dict[str, tuple[int, ...]]
    freed: tuple[Freed, ...]

    @property
    def bytes(self) -> int:
        """What is freed in all."""
        return sum(each.bytes for each in self.freed)


def collect(home: Home, policy: RetentionPolicy, now: datetime, *, is_dry_run: bool) -> Collection:
    """Remove what a policy does not keep, or only say what that is.

    Args:
        home: The root, local or at a URL. Of a root at a URL, ML Metadata, artifacts and records of runs are
            those of this machine.
        policy: What is kept.
        now: The time, with its zone.
        is_dry_run: Remove nothing.

    Raises:
        LedgerAccessError: The ledger cannot be read.
        MetadataVersionError: ML Metadata's file is of another release.
        StoreAccessError: Something cannot be removed.
    """
    if is_dry_run:
        return _collect(home, policy, now, is_dry_run=True)
    with _alone(home):
        return _collect(home, policy, now, is_dry_run=False)


def _collect(home: Home, policy: RetentionPolicy, now: datetime, *, is_dry_run: bool) -> Collection:
    kept = kept_of(home, policy, now)
    rows, places = _metadata(home, kept, is_dry_run=is_dry_run)
    artifacts = [_removed(Path(place), is_dry_run=is_dry_run) for place in places]
    if not is_dry_run:
        (home.metadata_db.parent / _NOTED).unlink(missing_ok=True)
    reports = _reports(home, kept, now, is_dry_run=is_dry_run)
    runs = _records(home, kept, is_dry_run=is_dry_run)
    models = _models(home, kept, policy, is_dry_run=is_dry_run)
    garbage = DatasetStore(home.datasets).gc(is_dry_run=is_dry_run)
    freed = (
        _freed("runs", list(runs.values())),
        _freed("artifacts", artifacts),
        Freed("metadata rows", rows, 0),
        _freed("reports", list(reports.values())),
        _freed("withdrawn models", models),
        _freed("dataset files", [each.size for each in garbage if not each.is_spared]),
    )
    removed = tuple(run for run in kept.old_runs if run in runs or run in reports)
    return Collection(dict(kept.runs), removed, dict(kept.old_versions), freed)


def _freed(kind: str, sizes: Sequence[int | None]) -> Freed:
    """Count what was removed, and its bytes; None stands for what was not there."""
    found = [size for size in sizes if size is not None]
    return Freed(kind, len(found), sum(found))


def _reports(home: Home, kept: Kept, now: datetime, *, is_dry_run: bool) -> dict[str, int]:
    """Remove the reports of old runs; return their bytes by run."""
    reports = open_storage(home.reports)
    listed = set(reports.names(""))
    old = {run: name for run in kept.old_runs if (name := quote(run, safe="")) in listed}
    sizes = {run: _removed_tree(reports, name, is_dry_run=is_dry_run) for run, name in old.items()}
    if not is_dry_run and reports.names(ASIDE):  # also what a killed collection had taken out of sight
        for run in kept.old_runs:
            reports.delete_tree(quote(run, safe=""))
        _remove_litter(reports.local(ASIDE), now)
    if listed and not is_dry_run:  # also where a killed collection did not come to it
        write_index(reports)
    return sizes


def _remove_litter(aside: Path | None, now: datetime) -> None:
    """Remove what killed writers left half-written, after a day; others may be writing there."""
    for path in aside.iterdir() if aside is not None else ():
        with suppress(FileNotFoundError):
            if now.timestamp() - path.lstat().st_mtime > _STALE_S:
                _removed(path, is_dry_run=False)


def _records(home: Home, kept: Kept, *, is_dry_run: bool) -> dict[str, int]:
    """Remove the records and logs of old runs; return their bytes by run."""
    here = [run for run in kept.old_runs if "/" not in run and (home.runs / run).is_dir()]
    sizes = {run: _removed(home.runs / run, is_dry_run=is_dry_run) or 0 for run in here}
    if not is_local(home.root):  # logs that were published
        published = open_storage(join(home.root, "runs"))
        for run in sorted(set(kept.old_runs) & set(published.names(""))):
            sizes[run] = sizes.get(run, 0) + _removed_tree(published, run, is_dry_run=is_dry_run)
    return sizes


def _models(home: Home, kept: Kept, policy: RetentionPolicy, *, is_dry_run: bool) -> list[int]:
    models, sizes = ModelStore(home.models), []
    why = f"withdrawn for more than {policy.keep_withdrawn_days:g} days"
    for name in models.names():
        old = kept.old_versions.get(name, ())
        places = {v.version: v.url for v in models.versions(name) if v.version in old} if old else {}
        size_of = {number: _size(open_storage(url), "") for number, url in places.items()}
        # Also where none is old: it removes what a killed removal left.
        removed = list(places) if is_dry_run else models.remove_withdrawn(name, old, why=why)
        sizes += [size_of[number] for number in removed]
    return sizes


def _metadata(home: Home, kept: Kept, *, is_dry_run: bool) -> tuple[int, list[str]]:
    """Delete the rows of old runs; return how many, and the places that are to be deleted then."""
    file = home.metadata_db
    if not file.is_file():
        return 0, []
    noted = file.parent / _NOTED
    with metadata(file, is_written=not is_dry_run) as database:
        left = without_shared(_noted(noted), artifact_uris(database))
        old = find_old_rows(database, kept.old_runs)
        places = sorted({*left, *(place for place in _places(home, old) if os.path.lexists(place))})
        if not is_dry_run:
            write_json(noted, places, is_synced=True)
            delete_old_rows(database)
    return old.rows, places


def _noted(file: Path) -> list[str]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _places(home: Home, old: OldRows) -> Iterator[str]:
    """Yield the places of old artifacts below the root, and what TFX keeps of their executions."""
    artifacts = str(home.pipelines)
    executions = {str(number) for number in old.executions}
    for uri in old.uris:
        path = Path(os.path.normpath(uri))
        if not is_local(uri) or Path(artifacts) not in path.parents or _is_linked(path, home.pipelines):
            continue
        yield str(path)
        if path.name in executions:  # <pipeline>/<node>/<output>/<execution>
            yield str(path.parent.parent / ".system" / "executor_execution" / path.name)


def _is_linked(path: Path, above: Path) -> bool:
    """Return whether a link below `above` leads to a path: what it leads to is not ours."""
    return any(part.is_symlink() for part in (path, *path.parents) if above in part.parents)


def _removed(path: Path, *, is_dry_run: bool) -> int | None:
    """Delete a file or folder; return its size, None where it is not there."""
    if not os.path.lexists(path):
        return None
    size = _size_of(path)
    if not is_dry_run:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return size


def _removed_tree(storage: Storage, name: str, *, is_dry_run: bool) -> int:
    """Delete a folder; return its size."""
    size = _size(storage, name)
    if not is_dry_run:
        storage.delete_tree(name)
    return size


def _size(storage: Storage, folder: str) -> int:
    return sum(storage.size(f"{folder}/{path}" if folder else path) for path in storage.paths(folder))


def _size_of(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(Path(folder, name).lstat().st_size for folder, _, names in os.walk(path) for name in names)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Keep a second collection of this machine waiting."""
    home.cache.mkdir(parents=True, exist_ok=True)
    with open(home.cache / "gc.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
