"""Does a server's own TensorFlow load the model, and answer as this one does?

A model that a newer library wrote may not load in the server that is to serve it.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlplatform.components.model_validator import asked_elsewhere
from mlplatform.components.model_validator.errors import ServingEnvironmentError

_SHOWN = 300  # characters of a message


def find_python(environment: str) -> Path:
    """Return the Python of an environment.

    Args:
        environment: Folder of a virtual environment, or a Python executable.

    Raises:
        ServingEnvironmentError: It is neither.
    """
    path = Path(environment).expanduser()
    python = path / "bin" / "python" if path.is_dir() else path
    if not python.is_file() or not os.access(python, os.X_OK):
        raise ServingEnvironmentError(environment, f"there is no Python that can be run at {python}")
    return python


def ask_elsewhere(
    model_dir: Path, requests: Path, environment: str, *, time_limit_s: float
) -> list[dict[str, Any]]:
    """Load a model in another environment and ask it what was asked here.

    Args:
        model_dir: The SavedModel.
        requests: Requests with their answers (`asked_elsewhere`).
        environment: Folder of a virtual environment, or a Python executable; only TensorFlow must be there.
        time_limit_s: Above it the process is killed.

    Returns:
        What was found, in the form of the probe's facts.

    Raises:
        ServingEnvironmentError: There is no such environment, or TensorFlow does not start in it.
    """
    python = find_python(environment)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [str(python), "-I", asked_elsewhere.__file__, str(model_dir), str(requests)]
    try:
        ended = subprocess.run(
            command, env=variables, capture_output=True, check=False, timeout=time_limit_s, text=True,
            errors="replace", stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise ServingEnvironmentError(environment, str(error)) from error
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode("utf-8", "replace")
        return _found(_facts(output), requests, environment, f"it took more than {time_limit_s:g} s")
    facts = _facts(ended.stdout)
    last = ended.stderr.strip().splitlines()
    message = last[-1][:_SHOWN] if last else "no message"
    if not any("tensorflow" in fact for fact in facts):
        raise ServingEnvironmentError(environment, f"TensorFlow does not start in it: {message}")
    cause = f"ended with code {ended.returncode}: {message}" if ended.returncode else ""
    return _found(facts, requests, environment, cause)


def _facts(output: str) -> list[dict[str, Any]]:
    whole, _, _unfinished = output.rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def _found(
    facts: Sequence[dict[str, Any]], requests: Path, environment: str, cause: str
) -> list[dict[str, Any]]:
    # Here, as this module's other function is asked where TensorFlow is not loaded.
    from mlplatform.components.model_validator.probe import difference

    version = next((fact["tensorflow"] for fact in facts if "tensorflow" in fact), "that does not start")
    name = f"TensorFlow {version} of {environment}"
    if cause:
        step = next((fact["doing"] for fact in reversed(facts) if "doing" in fact), "start")
        return [{"check": name, "passed": False, "detail": f"{cause}, at the step: {step}"}]
    asked = [json.loads(line) for line in requests.read_text("utf-8").splitlines()]
    answers = [fact["outputs"] for fact in facts if "outputs" in fact]
    found: list[dict[str, Any]] = [{"check": name, "passed": True, "detail": "loads it"}]
    for request, answer in zip(asked, answers, strict=True):
        wanted, got = (
            {key: asked_elsewhere.from_text(text) for key, text in outputs.items()}
            for outputs in (request["outputs"], answer)
        )
        found.append(
            {
                "check": f"same answers: {request['signature']} here and in {name}",
                "difference": difference(wanted, got),
            }
        )
    return found
