"""A dataset version as TFX artifacts: its facts, its Examples, and what was made from it."""

import json
import posixpath
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfx.dsl.io import fileio

from mlplatform.datasets import DatasetStore, Manifest
from mlplatform.storage.urls import is_local

VERSION_FILE = "version.json"


def write_version(uri: str, store: DatasetStore, manifest: Manifest) -> None:
    """Write `version.json`: which version it is, of what, and where; the same bytes for the same version."""
    fileio.makedirs(uri)
    partial = posixpath.join(uri, f".{VERSION_FILE}")
    with fileio.open(partial, "w") as file:
        file.write(json.dumps(version_facts(store, manifest), indent=2) + "\n")
    fileio.rename(partial, posixpath.join(uri, VERSION_FILE), overwrite=True)


def read_version(uri: str) -> dict[str, Any]:
    """Return the facts of `version.json`; none where it is missing or was not written by `write_version`."""
    path = posixpath.join(uri, VERSION_FILE)
    if not fileio.exists(path):
        return {}
    with fileio.open(path, "rb") as file:
        try:
            return dict(json.loads(file.read()))
        except ValueError:
            return {}


def version_facts(store: DatasetStore, manifest: Manifest) -> dict[str, Any]:
    """Return the facts of `version.json`."""
    return {
        "store": store.url,
        "dataset": manifest.dataset,
        "version": manifest.version,
        "digest": manifest.digest,
        "parent": manifest.parent,
        "key": manifest.key,
        "created_at": manifest.created_at,
        "splits": {name: asdict(split) for name, split in manifest.splits.items()},
    }


def check_out_into(uri: str, store: DatasetStore, manifest: Manifest) -> None:
    """Write the version's Examples to a folder or URL, in place of what a killed run may have left there."""
    if fileio.exists(uri) and fileio.listdir(uri):
        fileio.rmtree(uri)
    if is_local(uri):
        store.checkout(manifest.dataset, manifest.version, uri)
        return
    local = Path(tempfile.mkdtemp(prefix="mlplatform-"))
    try:
        store.checkout(manifest.dataset, manifest.version, local, place=uri)
        for split in sorted(local.iterdir()):
            fileio.makedirs(posixpath.join(uri, split.name))
            for file in sorted(split.iterdir()):
                fileio.copy(str(file), posixpath.join(uri, split.name, file.name))
    finally:
        shutil.rmtree(local)


def note_use(dataset_uri: str, kind: str, name: str, detail: str) -> None:
    """Let `mlplatform datasets blame` and `forget` name what was made; saying it again changes nothing.

    Args:
        dataset_uri: Folder of a DatasetVersion artifact.
        kind: `model` or `push`.
        name: Its name, such as `item_category@7`.
        detail: More, such as its path.
    """
    facts = json.loads((Path(dataset_uri) / VERSION_FILE).read_text("utf-8"))
    DatasetStore(facts["store"]).record_use(facts["dataset"], facts["version"], kind, name, detail)
