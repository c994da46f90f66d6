"""The wheel and the sdist: built from this checkout, installed into a clean environment, used from there."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
CONSTRAINTS = REPOSITORY / "constraints" / ("tfx116.txt" if sys.version_info < (3, 11) else "tfx121.txt")
# Every file of the package but what is built, under the one import name that it is installed with.
FILES = sorted(
    str(Path(name, path.relative_to(REPOSITORY / folder)))
    for name, folder in (
        ("mlplatform", "mlplatform"),
        ("mlplatform/components", "components"),
        ("mlplatform/pipelines", "pipelines"),
    )
    for path in (REPOSITORY / folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
)

pytestmark = pytest.mark.e2e


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sdist and wheel, the wheel built from the sdist as an installer would."""
    source = tmp_path_factory.mktemp("source") / "mlplatform"
    ignored = shutil.ignore_patterns(
        ".venv*", ".git", ".mlplatform", "demo-out", "__pycache__", "*.egg-info", ".*_cache", "*.so"
    )
    shutil.copytree(REPOSITORY, source, symlinks=True, ignore=ignored)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--installer", "uv", "--outdir", out, source)
    return out


def test_both_archives_hold_real_files_under_one_import_name(dist: Path) -> None:
    wheel = zipfile.ZipFile(next(dist.glob("*.whl"))).namelist()
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        sdist = ["/".join(member.name.split("/")[1:]) for member in archive.getmembers() if member.isfile()]
    assert len(FILES) > 150
    assert set(FILES) - set(wheel) == set()
    assert set(FILES) - set(sdist) == set()
    assert {
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "constraints/tfx116.txt",
        "constraints/tfx116.hashes.txt",
        "constraints/tfx121.txt",
        "constraints/tfx121.hashes.txt",
    } <= set(sdist)
    assert "mlplatform/datasets/format/native/library.abi3.so" in wheel
    folder = "mlplatform/datasets/format/native/blake3"
    blake3 = {f"{folder}/{name}" for name in ("LICENSE_A2", "README.md", "blake3.h")}
    assert blake3 <= set(sdist)
    assert {"mlplatform/datasets/format/native/blake3/LICENSE_A2"} <= set(wheel)
    assert not [name for name in wheel if name.startswith(("components/", "pipelines/", "tests/"))]


@pytest.mark.parametrize("stack", ["tfx116", "tfx121"])
def test_the_hashes_are_those_of_the_pinned_set(stack: str) -> None:
    def pins(name: str) -> list[str]:
        lines = (REPOSITORY / "constraints" / name).read_text("utf-8").splitlines()
        return [line.removesuffix(" \\").strip() for line in lines if line[:1].isalpha()]

    hashed = (REPOSITORY / "constraints" / f"{stack}.hashes.txt").read_text("utf-8")
    assert pins(f"{stack}.hashes.txt") == pins(f"{stack}.txt"), "run: tools/make_constraints.sh --hashes"
    assert len(re.findall(r"^[a-z].*\\\n    --hash=sha256:[0-9a-f]{64}", hashed, re.MULTILINE)) == len(
        pins(f"{stack}.txt")
    )


def test_the_wheel_works_from_a_clean_environment(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*-cp310-abi3-*.whl")  # one for all versions of Python
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    run(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(uv, "pip", "install", "--quiet", "--python", python, "--constraints", CONSTRAINTS, wheel)

    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = tmp_path / "venv" / "bin" / "mlplatform"
    doctor = subprocess.run(
        [command, "doctor", "--json", "--root", "home"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert doctor.returncode == 0, doctor.stdout
    photos = run(command, "demo", "photos", tmp_path / "photos", "--per-category", 2, cwd=tmp_path)
    assert "photos" in photos
    assert (tmp_path / "photos" / "listing.csv").exists()
    where = run(python, "-c", "import mlplatform.components as c; print(c.__file__)", cwd=tmp_path)
    assert str(tmp_path / "venv") in where
    render = (
        "from pathlib import Path\n"
        "from mlplatform.reports.run_page import RunPage, write_run_page\n"
        "write_run_page(Path('page.html'), RunPage('item_category', 'r1', 'now', 1.0, nodes=[]))"
    )
    run(python, "-c", render, cwd=tmp_path)
    assert "item_category" in (tmp_path / "page.html").read_text("utf-8")
