"""Finds a kind of answer by its name or import path."""

import difflib
import importlib
import re
from typing import cast

from mlplatform.evaluation.errors import UnknownKindError
from mlplatform.evaluation.kind import Kind

KINDS = {
    "classification": "mlplatform.evaluation.classification:Classification",
    "multi_label": "mlplatform.evaluation.multi_label:MultiLabel",
    "regression": "mlplatform.evaluation.regression:Regression",
    "embedding": "mlplatform.evaluation.embedding:Embedding",
}
_MEMBERS = ("signatures", "metrics", "primary", "tolerance", "tally", "change")


def find_kind(kind: str) -> Kind:
    """Return a kind of answer.

    Args:
        kind: A name of `KINDS`, or `package.module:Class`.

    Raises:
        UnknownKindError: There is none.
    """
    path = KINDS.get(kind, kind)
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", path):
        near = difflib.get_close_matches(kind, KINDS, n=1)
        raise UnknownKindError(
            kind, f"did you mean {near[0]!r}?" if near else "there is none of this name", [*KINDS]
        )
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise UnknownKindError(kind, f"there is no module {error.name!r}", [*KINDS]) from error
        raise
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise UnknownKindError(kind, f"module {module_name!r} has no class {name!r}", [*KINDS])
    made = found()
    missing = [member for member in _MEMBERS if not hasattr(made, member)]
    if missing:
        reason = f"it has no {', no '.join(missing)} (mlplatform.evaluation.kind.Kind says what they are)"
        raise UnknownKindError(kind, reason, [*KINDS])
    return cast(Kind, made)
