"""What the launcher of Kubeflow Pipelines does around a container's command; a folder stands for its disk.

Source: kubeflow/pipelines 2.17, backend/src/v2/component/launcher_v2.go and backend/src/v2/objectstore.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.storage import open_storage
from mlplatform.storage.urls import name, parent
from mlplatform.testing.kubeflow.containers import Container, Runs
from mlplatform.testing.kubeflow.driver import LOGS, with_placeholders
from mlplatform.testing.kubeflow.errors import DriverError
from mlplatform.tfx_io.launcher_paths import FOLDERS, local_path

_LOG_LINES = 40


@dataclass(frozen=True)
class Launched:
    """An attempt of a task.

    Attributes:
        status: Exit status of the container's command.
        log: What it printed.
        termination_message: What the pod's status says of its end.
        artifacts: URI and metadata of the outputs, by key; of a command that succeeded.
        parameters: Values of the outputs, likewise.
        error: Why the launcher fails the task though the command succeeded; empty for nothing.
    """

    status: int
    log: str
    termination_message: str = ""
    artifacts: Mapping[str, tuple[str, dict[str, Any]]] | None = None
    parameters: Mapping[str, Any] | None = None
    error: str = ""


def launch(
    task: str,
    container: Mapping[str, Any],
    executor_input: Mapping[str, Any],
    run_root: str,
    root: Path,
    containers: Runs,
    platform: Mapping[str, Any] | None = None,
) -> Launched:
    """Run a container once, inputs downloaded before and outputs uploaded after it.

    Args:
        task: The task's name.
        container: The container's specification.
        executor_input: What the driver hands over.
        run_root: The run's own folder in the object store.
        root: A folder that stands for the container's disk.
        containers: Runs commands.
        platform: The container's entry in the platform document.

    Raises:
        DriverError: An input or an output has a URI that the launcher cannot take.
    """
    termination = _prepare(task, executor_input, root)
    words = [*container.get("command", ()), *container.get("args", ())]
    environment = {each["name"]: each.get("value", "") for each in container.get("env", ())}
    log_file = root / "log"
    status = containers.run(
        Container(
            command=tuple(with_placeholders(words, executor_input, root)),
            environment={**environment, "MLPLATFORM_TERMINATION_LOG": str(termination)},
            folder=root / "work",
            tmp=root / "tmp",
            log=log_file,
            disk=root,
            task=task,
            image=container.get("image", ""),
            resources=container.get("resources", {}),
            platform=platform or {},
        )
    )
    log, message = log_file.read_text(errors="replace"), termination.read_text(errors="replace")
    try:
        _upload_log(executor_input, log_file)
        if status:
            return Launched(status, log, message)
        output = _executor_output(Path(executor_input["outputs"]["outputFile"]))
        parameters = _parameters(executor_input, output)
        artifacts = {
            key: _uploaded(task, key, some["artifacts"][0], output, run_root, root)
            for key, some in executor_input["outputs"].get("artifacts", {}).items()
        }
    except DriverError as error:
        return Launched(status, log, message, error=str(error))
    finally:
        for folder in FOLDERS.values():
            shutil.rmtree(root / folder, ignore_errors=True)
    return Launched(status, log, message, artifacts, parameters)


def _prepare(task: str, executor_input: Mapping[str, Any], root: Path) -> Path:
    for folder in ("work", "tmp"):
        (root / folder).mkdir(parents=True)
    for some in executor_input["inputs"].get("artifacts", {}).values():
        _download(some["artifacts"][0]["uri"], root)  # the first of them alone
    for some in executor_input["outputs"].get("artifacts", {}).values():
        uri = some["artifacts"][0]["uri"]
        place = local_path(uri, root)
        if place is None:
            raise DriverError(
                task, f"failed to generate local path for URI {uri}: unsupported storage scheme"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
    for about in executor_input["outputs"].get("parameters", {}).values():
        Path(about["outputFile"]).parent.mkdir(parents=True, exist_ok=True)
    termination = root / "termination-log"
    termination.touch()
    return termination


def _download(uri: str, root: Path) -> None:
    """Download what lies below a URI; nothing happens where nothing does, or for another kind of URI."""
    place = local_path(uri, root)
    if place is None or place.exists():
        return
    storage, path = open_storage(parent(uri)), name(uri)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage.fetch_tree(path, place)
    except FileNotFoundError:
        try:
            place.write_bytes(storage.read(path))
        except FileNotFoundError:
            return


def _upload_log(executor_input: Mapping[str, Any], log_file: Path) -> None:
    for each in executor_input["outputs"].get("artifacts", {}).get(LOGS, {}).get("artifacts", ()):
        open_storage(parent(each["uri"])).put(name(each["uri"]), log_file.read_bytes())


def _executor_output(place: Path) -> dict[str, Any]:
    if not place.is_file():
        return {}
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    text = place.read_text("utf-8")
    try:
        json_format.Parse(text, pipeline_spec_pb2.ExecutorOutput())
    except json_format.ParseError as error:
        raise DriverError(place.name, f"failed to unmarshall ExecutorOutput: {error}") from error
    return dict(json.loads(text))


def _parameters(executor_input: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(output.get("parameterValues", {}))
    for key, about in executor_input["outputs"].get("parameters", {}).items():
        if key not in values:
            place = Path(about["outputFile"])
            if not place.is_file():
                raise DriverError(key, f'failed to read output parameter name="{key}": no file {place.name}')
            values[key] = place.read_text("utf-8")
    return values


def _uploaded(
    task: str, key: str, given: Mapping[str, Any], output: Mapping[str, Any], run_root: str, root: Path
) -> tuple[str, dict[str, Any]]:
    """Upload an output, and return its URI and metadata."""
    found = (output.get("artifacts", {}).get(key, {}).get("artifacts") or [{}])[0]
    uri = found.get("uri") or given["uri"]
    metadata = {**given.get("metadata", {}), **found.get("metadata", {})}
    nulls = [each for each, value in metadata.items() if value is None]
    if nulls:
        raise DriverError(task, f'unable to produce MLMD artifact for output "{key}": {nulls[0]} is null')
    place = local_path(uri, root)
    if place is not None and key != LOGS:
        if not uri.startswith(f"{run_root}/"):
            raise DriverError(
                task,
                f'failed to upload output artifact "{key}": URI "{uri}" does not have expected bucket prefix '
                f'"{run_root}"',
            )
        storage, path = open_storage(parent(uri)), name(uri)
        if place.is_dir():
            storage.put_tree(path, place)
        elif place.is_file():
            storage.put(path, place.read_bytes())
    return uri, metadata
