"""A dataset version as TFX artifacts: its facts, its Examples, and what was made from it."""

import json
import shutil
from dataclasses import asdict
from typing import Any

from mlplatform.datasets import DatasetStore, Manifest
from mlplatform.files import write_json
from mlplatform.storage import open_storage
from mlplatform.taxonomy import Taxonomy
from mlplatform.tfx_io.artifacts import published

VERSION_FILE = "version.json"


def write_version(uri: str, store: DatasetStore, manifest: Manifest) -> None:
    """Write `version.json`: which version it is, of what, and where; the same bytes for the same version."""
    with published(uri) as folder:
        write_json(folder / VERSION_FILE, version_facts(store, manifest))


def read_version(uri: str) -> dict[str, Any]:
    """Return the facts of `version.json`; none where it is missing or was not written by `write_version`."""
    try:
        return dict(json.loads(open_storage(uri).read(VERSION_FILE)))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return {}


def version_facts(store: DatasetStore, manifest: Manifest) -> dict[str, Any]:
    """Return the facts of `version.json`."""
    facts = {
        "store": store.url,
        "dataset": manifest.dataset,
        "version": manifest.version,
        "digest": manifest.digest,
        "parent": manifest.parent,
        "key": manifest.key,
        "created_at": manifest.created_at,
        "splits": {name: asdict(split) for name, split in manifest.splits.items()},
    }
    return {**facts, "taxonomy": manifest.taxonomy} if manifest.taxonomy else facts


def read_taxonomy_of(uri: str) -> Taxonomy | None:
    """Return the taxonomy of a DatasetVersion artifact; None where the version declares none."""
    facts = read_version(uri)
    text = facts.get("taxonomy")
    return Taxonomy.parse(text, f"of {facts['dataset']}@{facts['version']}") if text else None


def check_out_into(uri: str, store: DatasetStore, manifest: Manifest) -> None:
    """Write the version's Examples to a folder or URL, in place of what a killed run may have left there."""
    with published(uri) as folder:
        if any(folder.iterdir()):
            shutil.rmtree(folder)
        store.checkout(manifest.dataset, manifest.version, folder, place=uri)


def note_use(dataset_uri: str, kind: str, name: str, detail: str) -> None:
    """Let `mlplatform datasets blame` and `forget` name what was made; saying it again changes nothing.

    Args:
        dataset_uri: Folder or URL of a DatasetVersion artifact.
        kind: `model` or `push`.
        name: Its name, such as `item_category@7`.
        detail: More, such as its path.
    """
    facts = json.loads(open_storage(dataset_uri).read(VERSION_FILE))
    DatasetStore(facts["store"]).record_use(facts["dataset"], facts["version"], kind, name, detail)
