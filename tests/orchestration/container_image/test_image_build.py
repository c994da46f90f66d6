"""`mlplatform image build`: what a build context holds, and what a builder is asked for."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlplatform.orchestration.container_image import context as context_module
from mlplatform.orchestration.container_image.build import build_image, find_builder
from mlplatform.orchestration.container_image.context import Context, write_context
from mlplatform.orchestration.container_image.errors import (
    BuildFailedError,
    ContextFolderError,
    ImageCodeError,
    NoBuilderError,
    WheelError,
)

TEMPORARY = b"mlplatform-wheel-"  # in the name of the folder that a wheel is built in
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "team"
version = "1.2"
[tool.setuptools]
py-modules = ["team"]
"""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package be one that was installed from an index, which needs no wheel of its own."""
    monkeypatch.setattr(context_module, "source_folder", lambda: None)


def dockerfile(context: Context) -> str:
    return (context.folder / "Dockerfile").read_text("utf-8")


def test_of_a_checkout(tmp_path: Path) -> None:
    """The wheel holds the code, with the components; pinned versions come with it."""
    made = write_context(tmp_path / "context", base="debian:13", extras=["s3"])
    (wheel,) = made.wheels
    assert wheel.startswith("mlplatform-")
    archive = zipfile.ZipFile(made.folder / "wheels" / wheel)
    names = archive.namelist()
    # Nothing names the folder that it was built in, so that the same files make the same wheel.
    assert not [name for name in names if name.endswith(".so") and TEMPORARY in archive.read(name)]
    assert {"mlplatform/cli/main.py", "mlplatform/components/serving_pusher/push.py"} <= set(names)
    assert any(line.startswith("tfx") for line in made.requirements)
    assert any(line.startswith("s3fs") for line in made.requirements)
    assert not any(line.startswith(("mlplatform", "pytest", "kfp")) for line in made.requirements)
    assert (made.folder / "requirements.txt").read_text("utf-8").splitlines() == list(made.requirements)
    pinned = sorted(path.name for path in (made.folder / "constraints").iterdir())
    assert pinned == ["tfx116.txt", "tfx121.txt"]
    text = dockerfile(made)
    assert text.count("FROM debian:13") == 2
    assert text.count("constraints/$(python -c") == 2
    assert f"/opt/build/wheels/{wheel}" in text


def test_code_of_a_team(installed: None, tmp_path: Path) -> None:
    """A project becomes a wheel, whose bytes are those of its files; all else is copied."""
    project, modules, package = (tmp_path / name for name in ("project", "modules", "tools"))
    for folder in (project, modules, package, modules / "__pycache__"):
        folder.mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "team.py").write_text("NAME = 'team'\n")
    (modules / "pipeline.py").write_text("")
    (modules / "config.yaml").write_text("")
    (modules / "__pycache__/pipeline.pyc").write_bytes(b"")
    (package / "__init__.py").write_text("")
    (tmp_path / "alone.py").write_text("")
    wheel = tmp_path / "other-1-py3-none-any.whl"
    wheel.write_bytes(b"of somebody else")
    pinned = tmp_path / "pinned.txt"
    pinned.write_text("numpy==1.26.4\n    # via tensorflow\n")
    code = [project, modules, package, tmp_path / "alone.py", wheel]
    made = write_context(tmp_path / "context", code=code, constraints=pinned)
    assert made.wheels == ("other-1-py3-none-any.whl", "team-1.2-py3-none-any.whl")
    assert made.code == ("alone.py", "config.yaml", "pipeline.py", "tools")
    assert (made.folder / "code/tools/__init__.py").is_file()
    assert not (project / "build").exists()
    assert len(made.requirements) == 1
    assert made.requirements[0].startswith("mlplatform[kubeflow,s3]==")
    assert "-c /opt/build/constraints/constraints.txt" in dockerfile(made)
    assert (made.folder / "constraints/constraints.txt").read_text() == "numpy==1.26.4\n"
    before = (made.folder / "wheels/team-1.2-py3-none-any.whl").read_bytes()
    (project / "team.py").touch()
    again = write_context(made.folder, code=[project])  # over the earlier one
    assert (made.folder / "wheels/team-1.2-py3-none-any.whl").read_bytes() == before
    assert (again.wheels, again.code) == (("team-1.2-py3-none-any.whl",), ())
    assert list((made.folder / "code").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [("none", "no such file"), ("data.csv", "neither a .py file"), ("photos", "no Python file in it")],
)
def test_what_is_no_code(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "data.csv").write_text("1\n")
    (tmp_path / "photos").mkdir()
    with pytest.raises(ImageCodeError, match=problem):
        write_context(tmp_path / "context", code=[tmp_path / name])
    assert not (tmp_path / "context").exists()


def test_nothing_is_left_of_a_context_that_fails(installed: None, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text("[project\n")
    with pytest.raises(WheelError, match=f"no wheel can be built of {project}: "):
        write_context(tmp_path / "context", code=[project])
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


def test_a_folder_of_something_else_stays(installed: None, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ContextFolderError, match="no build context"):
        write_context(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def program(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_builders(programs: Path) -> None:
    program(programs, "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    with pytest.raises(NoBuilderError) as caught:
        find_builder()
    assert "buildah is not on the PATH; podman is not on the PATH; docker: Cannot connect" in str(
        caught.value
    )
    program(programs, "podman", "exit 0")
    assert find_builder() == "podman"
    program(programs, "docker", "echo 28.2.2")
    assert find_builder("docker") == "docker"
    program(programs, "buildah", "exit 0")
    assert find_builder() == "buildah"


def test_a_builder_that_fails(programs: Path, tmp_path: Path) -> None:
    program(programs, "podman", f'echo "$@" > {tmp_path}/asked; exit 125')
    with pytest.raises(BuildFailedError, match=r"podman build --layers --tag team:1 .* status 125"):
        build_image(tmp_path / "context", "team:1", "podman", ["--network=host"])
    asked = (tmp_path / "asked").read_text().strip()
    assert asked == f"build --layers --tag team:1 --network=host {tmp_path}/context"


def test_command(installed: None, programs: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    (tmp_path / "pipeline.py").write_text("")
    done = command("image", "build", tmp_path / "pipeline.py", "--tag", "team:1")
    assert done.code == 1
    assert "(here: --context DIR --context-only)" in done.err
    for words, problem in (
        (["--context-only"], "--context-only needs --context DIR"),
        ([], "an image needs a name"),
        (["--tag", "Team:1"], "it is not the name of an image"),
        (["--tag", "team:2", "--update", "team:1", "--base", "debian:13"], "leave --base out"),
    ):
        done = command("image", "build", *words)
        assert (done.code, problem in done.err) == (2, True)
    program(programs, "buildah", "exit 0")
    done = command("image", "build", tmp_path / "pipeline.py", "--tag", "team:1", "--json")
    facts = json.loads(done.out)
    assert (facts["image"], facts["builder"], facts["code"]) == ("team:1", "buildah", ["pipeline.py"])
    done = command(
        "image", "build", tmp_path / "pipeline.py", "--context", tmp_path / "context", "--context-only"
    )
    assert done.out == f"{tmp_path}/context: 0 wheels, 1 files and folders of code\n"
    made = (tmp_path / "context/Dockerfile").read_text()
    assert [line for line in made.splitlines() if line.startswith("FROM")] == [
        "FROM python:3.12-slim AS dependencies",
        "FROM python:3.12-slim",
    ]
    assert (tmp_path / "context/code/pipeline.py").is_file()


def test_an_update(installed: None, programs: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    """It builds on the earlier image, where the code of before makes room."""
    (tmp_path / "pipeline.py").write_text("")
    program(programs, "podman", f'/bin/cp -r "$5" {tmp_path}/built')
    done = command(
        "image", "build", tmp_path / "pipeline.py", "--tag", "team:2", "--update", "team:1", "--json"
    )
    assert json.loads(done.out)["base"] == "team:1"
    lines = (tmp_path / "built/Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM team:1"]
    assert lines.index("RUN rm -rf /opt/build /app") < lines.index("COPY code /app")
