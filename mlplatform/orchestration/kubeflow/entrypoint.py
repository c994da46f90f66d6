"""What every container of a compiled pipeline starts, as `python -m`.

It puts right what open-source Kubeflow hands over, runs the executor (or a resolver's lookup), and writes
what happened into the ledger. A failure's cause is the pod's termination message; a gate that says no exits
with 3, wrong usage with 2, all else with 1.
"""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlplatform.errors import GateError, MlplatformError, UsageError
from mlplatform.files import write_json
from mlplatform.orchestration.kubeflow.entrypoint_errors import UnresolvedInputError
from mlplatform.orchestration.kubeflow.task import RUN_ID, PodTask, output_uris, parse_task
from mlplatform.orchestration.kubeflow.task_events import TaskEvents, kept_output
from mlplatform.tfx_io.launcher_paths import ROOT_VARIABLE, launcher_root

# Kubernetes reads a file of the container when it has ended; another path than its default can be set.
TERMINATION_VARIABLE = "MLPLATFORM_TERMINATION_LOG"
TERMINATION_LOG = "/dev/termination-log"
MAX_TERMINATION_BYTES = 4096  # what Kubernetes keeps of it


def main(arguments: Sequence[str]) -> int:
    """Run the task that the arguments describe; return the exit status of the container."""
    try:
        task = parse_task(arguments)
    except MlplatformError as error:
        _terminate(str(error))
        return 1
    if task.run:
        os.environ[RUN_ID] = task.run
    root = launcher_root(task.output_file, output_uris(arguments))
    if root is not None:
        os.environ[ROOT_VARIABLE] = str(root)
    with kept_output() as printed:
        status = _run(task, root)
    TaskEvents(task).publish(f"logs/{task.id}.log", printed.getvalue())
    return status


def _run(task: PodTask, root: Path | None) -> int:
    _log_to_stderr()
    happened = TaskEvents(task)
    happened.started()
    try:
        output = _output(task, root, happened)
        place = Path(task.output_file)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, output)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported, and the container ends
        traceback.print_exc()
        text = _text(error)
        _terminate(text)
        happened.failed(text)
        return 3 if isinstance(error, GateError) else 2 if isinstance(error, UsageError) else 1
    happened.finished(output)
    return 0


def _output(task: PodTask, root: Path | None, happened: TaskEvents) -> dict[str, Any]:
    if task.resolver is not None:
        from mlplatform.orchestration.kubeflow.resolver import resolve

        return resolve(task, happened.ledger)
    from mlplatform.orchestration.kubeflow.execution import run_executor

    try:
        return run_executor(task, root)
    except (KeyError, IndexError) as error:
        if task.unresolved:  # TFX's executors know no better word for it
            kind = str(task.node.get("type", "")).rpartition(".")[2] or "it"
            raise UnresolvedInputError(task.id, task.unresolved, kind) from error
        raise


def _text(error: BaseException) -> str:
    """Return the cause in a few lines: the text of our errors, and the class before that of others."""
    text = str(error).strip()
    return text if isinstance(error, MlplatformError) and text else f"{type(error).__name__}: {text}"


def _terminate(text: str) -> None:
    """Write a pod's termination message, and the last lines of the log."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the container's log
    place = Path(os.environ.get(TERMINATION_VARIABLE) or TERMINATION_LOG)
    if place.exists():  # as Kubernetes makes it: elsewhere there is none to write
        data = text.encode()
        place.write_bytes(data[:MAX_TERMINATION_BYTES].decode(errors="ignore").encode())


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        force=True,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.captureWarnings(True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
