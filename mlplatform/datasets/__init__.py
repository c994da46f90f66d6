"""Datasets as immutable versions: `from mlplatform.datasets import DatasetStore`.

Needs NumPy where records are read and nothing where only manifests are; never TensorFlow, Beam or TFX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.datasets.commit import Committed as Committed
    from mlplatform.datasets.format.manifest import Manifest as Manifest
    from mlplatform.datasets.store import DatasetStore as DatasetStore

_HOME_OF = {
    "Committed": "mlplatform.datasets.commit",
    "DatasetStore": "mlplatform.datasets.store",
    "Manifest": "mlplatform.datasets.format.manifest",
}

__all__ = ["Committed", "DatasetStore", "Manifest"]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mlplatform.datasets' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOME_OF[name]), name)
    return value
