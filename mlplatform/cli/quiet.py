"""Heavy libraries within a command: what they log when they are loaded is not shown."""

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Let TensorFlow, Beam and Google's libraries keep their notes on CUDA, CPUs and versions to themselves.

    Call it before they are loaded. $TF_CPP_MIN_LOG_LEVEL, where set, stays. What fails still comes as an
    exception.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
    logging.getLogger().setLevel(logging.ERROR)
