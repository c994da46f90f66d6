"""Reports what is wrong with a pipeline's arguments before TFX is loaded, and before anything runs.

Loading TFX takes seconds. A pipeline that imports it only where it composes its components, as the packaged
ones do, has looked at its configuration by then; what it finds wrong need not wait for that. What only the
machine that runs the pipeline has, such as the data, a function `check_arguments` beside it looks for.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mlplatform.orchestration.local.reference import check_where_it_runs, make_pipeline

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
    """Check the arguments, and make the pipeline up to the first heavy import, in a process of its own.

    Raises:
        MlplatformError: What `reference.make_pipeline` or the pipeline's own functions raised until then.
    """
    sys.meta_path.insert(0, _Refusal())
    try:
        check_where_it_runs(reference, data, root, overrides)
        make_pipeline(reference, data, root, overrides)
    except _HeavyImport:
        return
