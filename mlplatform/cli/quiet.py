"""Heavy libraries within a command: what they log when they are loaded is not shown."""

import logging
import os
import warnings

import click


def quiet_libraries() -> None:
    """Silence what TensorFlow, Beam and Google's libraries note on CUDA, CPUs and versions, for one command.

    Call it in the command, before they are loaded. $TF_CPP_MIN_LOG_LEVEL, where set, stays; what TensorFlow
    from 2.21 on logs before it reads that variable cannot be silenced. What fails still raises.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
    root = logging.getLogger()
    click.get_current_context().call_on_close(lambda level=root.level: root.setLevel(level))
    root.setLevel(logging.ERROR)
