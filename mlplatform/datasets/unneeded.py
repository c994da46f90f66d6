"""Which files of a dataset no version needs: of killed and refused commits, lost races and old caches."""

from mlplatform.datasets.line import Line
from mlplatform.datasets.seen import read_seen
from mlplatform.errors import MlplatformError
from mlplatform.storage import ASIDE, EARLIER_ASIDE


def unneeded(line: Line) -> list[str]:
    """Return the paths, below the store, of the files that no version needs."""
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
        if folder.startswith((ASIDE, EARLIER_ASIDE)):
            found += [f"{dataset}/{folder}/{name}" for name in storage.names(f"{dataset}/{folder}")]
    for name in storage.names(f"{dataset}/seen"):
        path = f"{dataset}/seen/{name}"
        try:
            is_of_use = line.with_digest(read_seen(storage.read(path), path)[1]) is not None
        except MlplatformError:
            is_of_use = False
        if not is_of_use:
            found.append(path)
    return found
