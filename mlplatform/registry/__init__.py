"""What happened: runs, verdicts, pushed models and where they came from. Plain files anywhere, no server."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.registry.contents import tree_digest as tree_digest
    from mlplatform.registry.models import ModelStore as ModelStore
    from mlplatform.registry.models import ModelVersion as ModelVersion
    from mlplatform.registry.push_record import Push as Push
    from mlplatform.registry.version_files import check_model_name as check_model_name

# Imported when they are used: who writes an event needs no store of models.
_HOME = {
    "ModelStore": "models",
    "ModelVersion": "models",
    "Push": "push_record",
    "check_model_name": "version_files",
    "tree_digest": "contents",
}
__all__ = ["ModelStore", "ModelVersion", "Push", "check_model_name", "tree_digest"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mlplatform.registry' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(f"mlplatform.registry.{_HOME[name]}"), name)
    return value
