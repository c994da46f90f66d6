"""Nothing heavy at import: what a fresh process loads, and how long it takes."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = {
    "tensorflow",
    "tfx",
    "apache_beam",
    "keras",
    "numpy",
    "pandas",
    "pyarrow",
    "grpc",
    "ml_metadata",
    "pydantic",
}


def fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def median_seconds(command: list[str], repeats: int = 5) -> float:
    def once() -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    once()  # reads the files into the page cache
    return statistics.median(once() for _ in range(repeats))


def test_importing_the_package_loads_the_standard_library_alone() -> None:
    loaded = json.loads(
        fresh_python(
            "import sys; before = set(sys.modules); import mlplatform, json;"
            "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
        )
    )
    assert set(loaded) - set(sys.stdlib_module_names) == {"mlplatform"}


def test_importing_the_package_takes_a_tenth_of_a_second_at_most() -> None:
    code = "import time; t = time.perf_counter(); import mlplatform; print(time.perf_counter() - t)"
    assert statistics.median(float(fresh_python(code)) for _ in range(5)) <= 0.1


@pytest.mark.parametrize("command", ["run", "runs", "datasets", "models", "serve", "demo", "doctor"])
def test_the_help_of_every_command_loads_nothing_heavy(command: str) -> None:
    code = (
        "import json, sys\n"
        "from mlplatform.cli.main import cli\n"
        "try:\n"
        f"    cli([{command!r}, '--help'])\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "print('LOADED', json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    loaded = set(json.loads(fresh_python(code).rpartition("LOADED ")[2]))
    assert loaded & HEAVY == set()


def test_help_answers_in_three_tenths_of_a_second_at_most() -> None:
    assert median_seconds([sys.executable, "-m", "mlplatform.cli.main", "--help"]) <= 0.3


def test_components_have_one_import_name() -> None:
    package = Path(__file__).parents[1]
    offenders = [
        f"{path}:{number}"
        for folder in ("mlplatform", "components", "pipelines", "tests", "examples")
        for path in (package / folder).rglob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if line.lstrip().startswith(
            ("from components", "import components", "from pipelines", "import pipelines")
        )
    ]
    assert offenders == []
