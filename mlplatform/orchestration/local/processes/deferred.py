"""Modules that nearly no pipeline uses and that take long to import: they run when they are first used.

`import tfx.v1` imports TFX's extension for Google Cloud's AI Platform, and with it three versions of that
service's client: a third of the whole import. A pipeline that uses the extension finds it as ever.
"""

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

DEFERRED = frozenset({"tfx.v1.extensions.google_cloud_ai_platform"})
_put_off: set[str] = set()


def defer_imports(*more: str) -> None:
    """Let this process, and its forked children, run the modules in `DEFERRED` when they are first used.

    Args:
        more: Further modules. A package's own modules can be imported meanwhile.
    """
    _put_off.update(DEFERRED, more)
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


class _Finder:
    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in _put_off else None
        if spec is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    """Puts a module in its place, and runs it later."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._lock = threading.RLock()
        self._has_begun = False

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it for later."""

    def run(self, module: ModuleType) -> None:
        """Run a module, once; others who ask for its names meanwhile wait, but not the module itself."""
        with self._lock:
            if self._has_begun:
                return
            self._has_begun = True
            try:
                self._real.exec_module(module)
            except BaseException:
                self._has_begun = False
                raise
            if module.__spec__ is not None:
                module.__spec__.loader = module.__loader__ = self._real


class _Deferred(ModuleType):
    """A module that runs when it is asked for the first name that it does not have yet.

    The standard library's lazy modules run when they are asked for anything: all that looks through
    `sys.modules`, as `inspect` and AutoGraph do, would run them.
    """

    def __getattr__(self, name: str) -> Any:
        loader: Any = self.__loader__
        if isinstance(loader, _Loader) and not name.startswith("__"):
            loader.run(self)
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
