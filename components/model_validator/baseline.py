"""The model to compare with: the one that is pushed now."""

from dataclasses import dataclass
from pathlib import Path

from mlplatform.registry import ModelStore


@dataclass(frozen=True)
class Baseline:
    """The model to compare with.

    Attributes:
        folder: Its SavedModel.
        name: What to call it in reports.
    """

    folder: Path
    name: str


def pushed_model(models_dir: Path, name: str) -> Path | None:
    """Return the folder of the newest version of `name` that servers see; None where there is none."""
    store = ModelStore(models_dir)
    if name not in store.names():
        return None
    serving = [version for version in store.versions(name) if not version.is_withdrawn]
    return serving[-1].path if serving else None
