"""What gates say of a model: read as TFX's Evaluator and InfraValidator write it, and as an approval does."""

import json
from collections.abc import Mapping, Sequence

from tfx import types
from tfx.types import artifact_utils

from mlplatform.tfx_io.artifacts import fetched

BLESSED_FILE = "BLESSED"
APPROVAL_FILE = "approval.json"
_YES = frozenset({BLESSED_FILE, "INFRA_BLESSED"})
_NO = frozenset({"NOT_BLESSED", "INFRA_NOT_BLESSED"})


def refusing(inputs: Mapping[str, Sequence[types.Artifact]], gates: Sequence[str]) -> list[str]:
    """Return the gates, by the names of their inputs, that are there and do not say yes."""
    return [
        gate
        for gate in gates
        if inputs.get(gate) and not is_blessed(artifact_utils.get_single_instance(list(inputs[gate])))
    ]


def is_blessed(blessing: types.Artifact) -> bool:
    """Return whether a gate says yes: by the file that it wrote, else by the property.

    Source: `tfx/components/evaluator/executor.py` and `infra_validator/executor.py` write both.
    """
    try:
        with fetched(blessing.uri) as folder:
            files = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        files = set()
    if files & _NO:
        return False
    # Not by tfx.components.util.model_utils, which loads every stock component.
    return bool(files & _YES) or blessing.get_int_custom_property("blessed") == 1


def approved_digest(blessing: types.Artifact) -> tuple[str, str] | None:
    """Return the model's name and digest that an approval is about; None where a blessing is not of one.

    What cannot be read is about nothing: two empty texts.
    """
    try:
        with fetched(blessing.uri) as folder:
            found = json.loads((folder / APPROVAL_FILE).read_text("utf-8"))
        return str(found["model"]), str(found["digest"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        return "", ""
