"""Finds and deletes what no version needs: what killed commits, lost races and old caches left behind."""

from dataclasses import dataclass

from mlplatform.datasets.forget import erase_forgotten
from mlplatform.datasets.line import Line
from mlplatform.datasets.manifest import unsealed
from mlplatform.datasets.storage import ASIDE, Storage
from mlplatform.errors import MlplatformError

GRACE_S = 24 * 3600.0


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


def collect(storage: Storage, dataset: str, *, is_dry_run: bool, grace_s: float = GRACE_S) -> list[Garbage]:
    """Delete what no version of a dataset needs; see `DatasetStore.gc`."""
    with storage.hold(dataset, alone=True):
        line = Line.read(storage, dataset)
        if not is_dry_run:
            erase_forgotten(line)
        garbage = []
        for path in _unneeded(line):
            try:
                size, age_s = storage.size(path), storage.age_s(path)
            except FileNotFoundError:
                continue
            garbage.append(Garbage(path, size, age_s, is_spared=age_s < grace_s))
        for one in garbage:
            if not is_dry_run and not one.is_spared:
                storage.delete(one.path)
        if not is_dry_run:
            for folder in storage.names(dataset):
                if folder.startswith(f"{ASIDE}-") and not storage.names(f"{dataset}/{folder}"):
                    storage.delete_folder(f"{dataset}/{folder}")
        return garbage


def _unneeded(line: Line) -> list[str]:
    storage, dataset = line.storage, line.dataset
    packs = {pack.name for pack in line.packs}
    bitmaps = {manifest.bitmaps for manifest in line.manifests}
    found = [
        f"{dataset}/packs/{name}"
        for name in storage.names(f"{dataset}/packs")
        if name.split(".")[0] not in packs
    ]
    found += [
        f"{dataset}/keys/{name}"
        for name in storage.names(f"{dataset}/keys")
        if name.split("-")[0] not in packs
    ]
    found += [
        f"{dataset}/bitmaps/{name}" for name in storage.names(f"{dataset}/bitmaps") if name not in bitmaps
    ]
    for folder in storage.names(dataset):
        if folder.startswith(ASIDE):
            found += [f"{dataset}/{folder}/{name}" for name in storage.names(f"{dataset}/{folder}")]
    for name in storage.names(f"{dataset}/seen"):
        path = f"{dataset}/seen/{name}"
        try:
            is_of_use = line.with_digest(str(unsealed(storage.read(path), path)["digest"])) is not None
        except MlplatformError:
            is_of_use = False
        if not is_of_use:
            found.append(path)
    return found
