"""An image that `mlplatform image build` builds for real, on a base made here, and what runs in it."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[2] / "tools" / "kubernetes"
PROGRAM = """
import json, os, pathlib, sys, tensorflow, tfx
import mlplatform.orchestration.kubeflow.entrypoint, team
code = [pathlib.Path(module.__file__) for module in (mlplatform, tensorflow, tfx, team)]
compiled = [bool(list((each.parent / "__pycache__").glob(f"{each.stem}.*.pyc"))) for each in code]
print(json.dumps({"uid": os.getuid(), "team": team.NAME, "compiled": compiled}))
"""


@pytest.mark.timeout(3600)
def test_an_image_for_any_user(
    built_image: dict[str, Any], note: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs as a user that it has no name for, on a read-only root, with the team's code, byte-compiled."""
    assert (built_image["builder"], built_image["code"]) == ("podman", ["team.py"])
    monkeypatch.setenv("CONTAINERS_CONF", str(TOOLS / "containers.conf"))
    image = built_image["image"]
    (size,) = json.loads(run("podman", "image", "inspect", image))
    note("  its size in GB, not seconds", size["Size"] / 1e9)
    container = ["podman", "run", "--rm", "--user=1234", "--read-only", "--tmpfs=/tmp", image]
    began = time.monotonic()
    seen: dict[str, Any] = json.loads(run(*container, "python", "-c", PROGRAM).splitlines()[-1])
    note("TensorFlow and TFX imported in a container", time.monotonic() - began)
    assert seen == {"uid": 1234, "team": "items", "compiled": [True, True, True, True]}
    assert run(*container, "mlplatform", "--version").startswith("mlplatform, version ")


def run(*words: object) -> str:
    """Run a program, and return what it prints on stdout."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stderr[-4000:]}"
    return done.stdout
