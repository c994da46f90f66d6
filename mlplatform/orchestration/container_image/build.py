"""Builds an image of a context with what this machine has: buildah, podman or docker."""

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from mlplatform.orchestration.container_image.errors import BuildFailedError, NoBuilderError

Builder = Literal["buildah", "podman", "docker"]
BUILDERS: tuple[Builder, ...] = get_args(Builder)
# `--layers`: buildah alone does not take layers of earlier builds unless it is asked to.
_COMMANDS: dict[Builder, tuple[str, ...]] = {
    "buildah": ("buildah", "build", "--layers"),
    "podman": ("podman", "build", "--layers"),
    "docker": ("docker", "build"),
}


def find_builder(wanted: Builder | None = None) -> Builder:
    """Return the first builder that this machine has, or the one that is wanted.

    Raises:
        NoBuilderError: There is none, or for docker no daemon answers.
    """
    problems = []
    for builder in BUILDERS if wanted is None else (wanted,):
        if shutil.which(builder) is None:
            problems.append(f"{builder} is not on the PATH")
        elif builder == "docker" and (problem := _problem_of_docker()):
            problems.append(f"docker: {problem}")
        else:
            return builder
    raise NoBuilderError(problems)


def build_image(context: Path, tag: str, builder: Builder, arguments: Sequence[str] = ()) -> None:
    """Build an image; what the builder prints goes to stderr.

    Args:
        context: The folder of a build context.
        tag: The image's name.
        builder: What builds it.
        arguments: Further arguments of the builder.

    Raises:
        BuildFailedError: It failed.
    """
    command = [*_COMMANDS[builder], "--tag", tag, *arguments, str(context)]
    done = subprocess.run(command, stdout=2, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise BuildFailedError(shlex.join(command), done.returncode)


def _problem_of_docker() -> str:
    """Return why docker cannot build; empty where its daemon answers."""
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip() or "no daemon answers").splitlines()[-1] if done.returncode else ""
