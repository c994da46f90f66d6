"""The embedded model server, with TensorFlow Serving's own interfaces, and a client for both.

Each public name is loaded when it is first used: the client needs no TensorFlow over REST.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.serving.client import Client as Client
    from mlplatform.serving.server import ModelServer as ModelServer

_HOME_OF = {"Client": "mlplatform.serving.client", "ModelServer": "mlplatform.serving.server"}

__all__ = ["Client", "ModelServer"]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'mlplatform.serving' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOME_OF[name]), name)
    return value
