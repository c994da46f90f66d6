"""A process that has modules imported, and forks a container's Python program from itself for each request.

A request is a line of JSON on its standard input, the exit status of the program a line on its output.
"""

import gc
import importlib
import json
import os
import runpy
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from mlplatform.orchestration.kubeflow import light_tfx


def main(modules: list[str]) -> None:
    """Import modules, and answer requests until there are none."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what modules print is no answer
    gc.disable()
    light_tfx.prepare()
    for module in modules:
        importlib.import_module(module)
    gc.enable()
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.close(answers)
            _become(json.loads(line))
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _become(request: Mapping[str, Any]) -> None:
    """Be the process that `python -m` starts."""
    status = 1
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for number, place in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
            os.dup2(place, number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        module, *arguments = request["arguments"]
        sys.argv = [module, *arguments]
        status = 0
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - it is printed, and the process ends
        status = 1
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
