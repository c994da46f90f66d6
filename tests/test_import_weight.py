"""Nothing heavy at import: what a fresh process loads."""

import json
import subprocess
import sys
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
    "fsspec",
    "botocore",
}


def fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_package_loads_the_standard_library_alone() -> None:
    loaded = json.loads(
        fresh_python(
            "import sys; before = set(sys.modules); import mlplatform, json;"
            "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
        )
    )
    assert set(loaded) - set(sys.stdlib_module_names) == {"mlplatform"}


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "compile",
        "runs",
        "datasets",
        "models",
        "predict",
        "search",
        "lineage",
        "ui",
        "serve",
        "image",
        "demo",
        "doctor",
    ],
)
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


def test_the_help_of_the_program_loads_no_command() -> None:
    loaded = fresh_python(
        "import sys\n"
        "from mlplatform.cli.main import cli\n"
        "try:\n"
        "    cli(['--help'])\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "print('LOADED', *(m for m in sys.modules if m.startswith('mlplatform.')))"
    )
    names = set(loaded.rpartition("LOADED ")[2].split())
    assert names == {"mlplatform.cli", "mlplatform.cli.main", "mlplatform.errors"}


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
