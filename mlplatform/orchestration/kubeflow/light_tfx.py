"""Lets TFX be imported without TensorFlow, for executors that need none.

TFX's file layer imports TensorFlow for its file systems, each `tfx.components.x` imports all components, and
every artifact imports TensorFlow's tools for documentation. The first two are put off: the file systems until
a URL needs one of them, the components until somebody asks `tfx.components` for a name. What an executor
imports itself is imported as ever.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlplatform.orchestration.local.processes.deferred import defer_imports

_PLUGIN = "tfx.dsl.io.plugins.tensorflow_gfile"
_SCHEMES = ["gs://", "hdfs://", "viewfs://"]  # those that no file system of ours takes
_PRIORITY = 1  # below 10, TFX's for local files; TensorFlow's own, once it is there, is 0


def prepare() -> None:
    """Put off what is heavy; nothing happens where TFX is imported already."""
    if "tfx" in sys.modules:
        return
    defer_imports(_PLUGIN, "tfx.components")
    with absent("tensorflow"):  # of which it takes decorators for documentation, or else makes its own
        importlib.import_module("tfx.utils.doc_controls")
    from tfx.dsl.io import filesystem, filesystem_registry

    class TensorFlowWhenNeeded(filesystem.Filesystem):
        """TensorFlow's file systems, which are imported at the first call."""

        SUPPORTED_SCHEMES = _SCHEMES

    for name, function in vars(filesystem.Filesystem).items():
        if isinstance(function, staticmethod):
            setattr(TensorFlowWhenNeeded, name, staticmethod(_Later(name)))
    registry = filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY
    registry.register(TensorFlowWhenNeeded, priority=_PRIORITY, use_as_fallback=True)


def complete() -> None:
    """Give TFX its own file systems, where something has imported TensorFlow: some of TFX counts on them."""
    if "tensorflow" in sys.modules:
        _ = importlib.import_module(_PLUGIN).TensorflowFilesystem


@contextmanager
def absent(name: str) -> Iterator[None]:
    """Let a module that is not imported yet be one that is not installed, within the block.

    Args:
        name: A module that TFX only looks whether it is there.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


class _Later:
    """A function of TensorFlow's file systems."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        real = importlib.import_module(_PLUGIN).TensorflowFilesystem
        return getattr(real, self._name)(*arguments, **named)
