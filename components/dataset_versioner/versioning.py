"""The work: commit Examples, and lay the version out for the components that follow."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlplatform.datasets import DatasetStore, Manifest

VERSION_FILE = "version.json"


def write_version(folder: str | os.PathLike[str], store: DatasetStore, manifest: Manifest) -> Path:
    """Write `version.json`: which version it is, of what, and where; the same bytes for the same version.

    Returns:
        The file.
    """
    path = Path(folder) / VERSION_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{VERSION_FILE}")
    partial.write_text(json.dumps(version_facts(store, manifest), indent=2) + "\n", "utf-8")
    partial.replace(path)
    return path


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


def check_out_into(folder: str | os.PathLike[str], store: DatasetStore, manifest: Manifest) -> Path:
    """Write the version's Examples to a folder, in place of what a killed run may have left there."""
    target = Path(folder)
    if target.exists() and any(target.iterdir()):
        shutil.rmtree(target)
    return store.checkout(manifest.dataset, manifest.version, target)
