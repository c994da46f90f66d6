"""Telling what is wrong with a pipeline's arguments before TFX is loaded.

Loading TFX takes seconds. A pipeline that imports it only where it composes its components, as the packaged
ones do, has looked at its configuration and its data by then; what it finds wrong need not wait for that.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mlplatform.orchestration.local.reference import make_pipeline

HEAVY = frozenset({"apache_beam", "tensorflow", "tfx"})


class _HeavyImport(BaseException):
    """A heavy module is imported: no `Exception`, so that nobody takes it for a missing module."""


class _Refusal:
    """An import finder that lets no heavy module in."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse a heavy module; leave all others to the finders behind this one."""
        del path, target
        if name.partition(".")[0] in HEAVY:
            raise _HeavyImport(name)
        return None


def check_arguments(reference: str, data: str | None, root: str, overrides: Mapping[str, Any]) -> None:
    """Make the pipeline up to the first heavy import; for a process of its own, which then imports none.

    Raises:
        MlplatformError: What `reference.make_pipeline` or the pipeline's own function raised until then.
    """
    sys.meta_path.insert(0, _Refusal())
    try:
        make_pipeline(reference, data, root, overrides)
    except _HeavyImport:
        return
