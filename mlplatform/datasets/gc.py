"""Finds and deletes what no version needs: what killed commits, lost races and old caches left behind."""

from collections.abc import Iterable
from dataclasses import dataclass

from mlplatform.datasets.errors import DatasetNotFoundError
from mlplatform.datasets.forget import erase_forgotten
from mlplatform.datasets.line import Line, check_dataset_name, check_store, dataset_names, possible_names
from mlplatform.datasets.reading import reading
from mlplatform.datasets.unneeded import unneeded
from mlplatform.progress import track
from mlplatform.storage import ASIDE, EARLIER_ASIDE, PROBE, Storage

_ROOT_GRACE_S = 600.0  # files of the store itself are written in a moment, and no lock protects them
_KINDS = {"versions", "packs", "keys", "bitmaps", "seen", "tags", "uses", "copies", "forgotten", "erased"}


@dataclass(frozen=True)
class Garbage:
    """A file that no version needs.

    Attributes:
        path: The file, below the store.
        size: Its bytes.
        age_s: Seconds since it was written.
        is_spared: It is younger than the grace period: a commit that is under way may need it.
    """

    path: str
    size: int
    age_s: float
    is_spared: bool


def collect_all(storage: Storage, *, is_dry_run: bool, grace_s: float) -> list[Garbage]:
    """Delete what no version of any dataset needs, and what killed writers left of the store's own files."""
    check_store(storage)
    garbage = []
    for name in (*possible_names(storage), ASIDE):
        inside = storage.names(name)
        if any(one in _KINDS or one.startswith((ASIDE, EARLIER_ASIDE)) for one in inside):
            garbage += collect(storage, name, is_dry_run=is_dry_run, grace_s=grace_s)
            continue
        if name in (ASIDE, EARLIER_ASIDE):
            left = [f"{name}/{one}" for one in inside]
        elif PROBE.fullmatch(name):
            left = [name]
        else:
            continue
        found = _measured(storage, left, max(grace_s, _ROOT_GRACE_S))
        if not is_dry_run:
            _delete(storage, found)
        garbage += found
    return garbage


def collect(storage: Storage, dataset: str, *, is_dry_run: bool, grace_s: float) -> list[Garbage]:
    """Delete what no version of a dataset needs; see `DatasetStore.gc`."""
    check_dataset_name(dataset)
    if dataset not in storage.names(""):
        raise DatasetNotFoundError(dataset, storage.url, dataset_names(storage))
    if is_dry_run:
        with reading(storage, dataset):
            return _measured(storage, unneeded(Line.read(storage, dataset)), grace_s)
    with storage.hold(dataset, alone=True):
        line = Line.read(storage, dataset)
        erase_forgotten(line)
        garbage = _measured(storage, unneeded(line), grace_s)
        _delete(storage, garbage)
        for folder in storage.names(dataset):
            if folder.startswith((f"{ASIDE}-", f"{EARLIER_ASIDE}-")) and not storage.names(
                f"{dataset}/{folder}"
            ):
                storage.delete_folder(f"{dataset}/{folder}")
    return garbage


def _measured(storage: Storage, paths: Iterable[str], grace_s: float) -> list[Garbage]:
    garbage = []
    with track("look for what no version needs", unit="files") as bar:
        for path in paths:
            try:
                size, age_s = storage.size(path), storage.age_s(path)
            except FileNotFoundError:
                continue
            garbage.append(Garbage(path, size, age_s, is_spared=age_s < grace_s))
            bar.advance()
    return garbage


def _delete(storage: Storage, garbage: list[Garbage]) -> None:
    free = [one for one in garbage if not one.is_spared]
    with track("delete what no version needs", len(free), "files") as bar:
        for one in free:
            storage.delete(one.path)
            bar.advance()
