"""Which run an executor is part of."""

import os
from typing import Any

# What names the run where TFX's context does not: a runner of ours that starts containers, and the names
# under which Kubeflow's documentation passes a pod's run on.
_VARIABLES = ("MLPLATFORM_RUN_ID", "KFP_RUN_ID", "KFP_RUN_NAME")


def run_id(context: Any) -> str:
    """Return the id of the run; empty where nothing says it.

    Args:
        context: The executor's context, None where it has none.
    """
    known = getattr(context, "pipeline_run_id", None)
    return str(known or next((found for name in _VARIABLES if (found := os.environ.get(name))), ""))
