"""What is wrong with a pipeline's arguments is told before TFX is loaded, and nothing else is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINE = """
from mlplatform.errors import UsageError


class WrongSizeError(UsageError):
    pass


def create_pipeline(size=1):
    if size > 9:
        raise WrongSizeError("size is 9 at most")
    try:
        import tfx
    except Exception:
        raise WrongSizeError("somebody took it for a missing module") from None
    raise WrongSizeError("too late for a check")
"""
CHECK = """
import sys
from mlplatform.orchestration.local.early_check import check_arguments
try:
    check_arguments(sys.argv[1], None, "root", {"size": int(sys.argv[2])})
finally:
    print("tfx" in sys.modules, flush=True)
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    file = tmp_path / "early.py"
    file.write_text(PIPELINE)
    return file


@pytest.mark.parametrize(("size", "said"), [(10, "WrongSizeError: size is 9 at most"), (1, "")])
def test_it_makes_the_pipeline_up_to_the_first_heavy_import(pipeline: Path, size: int, said: str) -> None:
    command = [sys.executable, "-c", CHECK, str(pipeline), str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "False\n"
    assert done.returncode == bool(said)
    assert said in done.stderr


def test_what_has_to_be_there_where_it_runs_is_looked_for_by_a_function_beside(pipeline: Path) -> None:
    pipeline.write_text(
        f"{PIPELINE}\ndef check_arguments(size=1, root=None):\n"
        "    if size == 5:\n        raise WrongSizeError(f'no file of size 5 in {root}')\n"
    )
    for size, said in ((5, "no file of size 5 in root"), (10, "size is 9 at most"), (1, "")):
        command = [sys.executable, "-c", CHECK, str(pipeline), str(size)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == bool(said)
        assert said in done.stderr


@pytest.mark.parametrize(
    ("setting", "said"), [("size=10", "size is 9 at most"), ("sise=1", "takes no sise; it takes size")]
)
def test_a_run_tells_it_while_tfx_is_still_loading(pipeline: Path, setting: str, said: str) -> None:
    endless = pipeline.parent / "hidden/tfx/__init__.py"
    endless.parent.mkdir(parents=True)
    endless.write_text("import time\ntime.sleep(600)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mlplatform.cli.main", "run", "early.py", "--set", setting, "--root", "root"],
        env={**os.environ, "PYTHONPATH": str(endless.parents[1])},
        cwd=pipeline.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
