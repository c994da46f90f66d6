"""mlplatform: reusable TFX components, per-model pipelines, and what makes them trusted.

Importing this package loads nothing outside the standard library; each public name is loaded when it is
first used.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mlplatform.artifacts import DatasetVersion as DatasetVersion
    from mlplatform.artifacts import DataVerdict as DataVerdict
    from mlplatform.artifacts import EmbeddingIndex as EmbeddingIndex
    from mlplatform.artifacts import RejectedRecords as RejectedRecords
    from mlplatform.datasets import DatasetStore as DatasetStore
    from mlplatform.orchestration.local import LocalRunner as LocalRunner
    from mlplatform.serving import Client as Client

# The artifact types are among them because Kubeflow's containers import each by the name of its type.
_HOME_OF = {
    "Client": "mlplatform.serving",
    "DataVerdict": "mlplatform.artifacts",
    "DatasetStore": "mlplatform.datasets",
    "DatasetVersion": "mlplatform.artifacts",
    "EmbeddingIndex": "mlplatform.artifacts",
    "LocalRunner": "mlplatform.orchestration.local",
    "RejectedRecords": "mlplatform.artifacts",
}

__all__ = [
    "Client",
    "DataVerdict",
    "DatasetStore",
    "DatasetVersion",
    "EmbeddingIndex",
    "LocalRunner",
    "RejectedRecords",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mlplatform' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOME_OF[name]), name)
    return value
