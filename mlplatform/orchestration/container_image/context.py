"""A build context: a folder with a Dockerfile and all that it copies."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from mlplatform.orchestration.container_image.errors import ContextFolderError, ImageCodeError, WheelError

DEFAULT_BASE = "python:3.12-slim"
DEFAULT_EXTRAS = ("kubeflow", "s3")
# The pinned sets of a checkout, by what the image's own Python needs.
_STACK = """python -c 'import sys; print("tfx116" if sys.version_info < (3, 11) else "tfx121")'"""
_IGNORED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "*.so")
_MARK = "Dockerfile"
_SUFFIXES = (".py", ".whl")

_PIP = "pip install --disable-pip-version-check"
_MOUNTS = "--mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip"
_DOCKERFILE = """\
# Written by `mlplatform image build`.
FROM {base} AS dependencies
USER root
# Some of what is installed has no wheels for newer Pythons; the compiler stays behind in this stage.
RUN command -v g++ >/dev/null && [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] \\
    || (apt-get update && apt-get install -y --no-install-recommends g++ python3-dev python3-venv)
RUN python3 -m venv /opt/mlplatform
ENV PATH=/opt/mlplatform/bin:$PATH
COPY requirements.txt /opt/build/
COPY constraints /opt/build/constraints
RUN {mounts} \\
    {pip} {constraints} -r /opt/build/requirements.txt

FROM {base}
USER root
RUN command -v python3 >/dev/null \\
    || (apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*)
# What the code needs is a layer of its own, which stays when the code changes.
COPY --from=dependencies /opt/mlplatform /opt/mlplatform
ENV PATH=/opt/mlplatform/bin:$PATH
COPY constraints /opt/build/constraints
COPY wheels /opt/build/wheels
RUN {mounts} \\
    {pip} {constraints} {wheels}
"""  # noqa: E501 - lines of another language
_UPDATED = """\
# Written by `mlplatform image build`.
FROM {base}
USER root
WORKDIR /
ENV HOME=/root
RUN rm -rf /opt/build /app
COPY requirements.txt /opt/build/
COPY constraints /opt/build/constraints
# What is there in the right version stays.
RUN {mounts} \\
    {pip} {constraints} -r /opt/build/requirements.txt
COPY wheels /opt/build/wheels
# First what they need, then themselves: their versions may be those of the code before.
RUN {mounts} \\
    {pip} {constraints} {wheels} && {pip} --force-reinstall --no-deps {wheels}
"""
_CODE = """\
COPY code /app
# Whoever runs it may not write here: the byte code is made now, and is valid whatever the files' times are.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app
# Any user, also one that the image has no name for; whose home is what every user may write to.
ENV PYTHONPATH=/app HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR /app
USER 65534:65534
CMD ["mlplatform", "--help"]
"""


@dataclass(frozen=True)
class Context:
    """A build context.

    Attributes:
        folder: Where it lies.
        base: The image that it builds on.
        requirements: What is installed beside the wheels.
        wheels: File names of the wheels in it.
        code: Files and folders that are copied to `/app`.
    """

    folder: Path
    base: str
    requirements: tuple[str, ...]
    wheels: tuple[str, ...]
    code: tuple[str, ...]


def write_context(
    folder: Path,
    *,
    base: str = DEFAULT_BASE,
    code: Sequence[Path] = (),
    extras: Sequence[str] = DEFAULT_EXTRAS,
    requirements: Sequence[Path] = (),
    constraints: Path | None = None,
    is_update: bool = False,
) -> Context:
    """Write a build context.

    This package goes into it as a wheel where it runs from its sources, else by its version. The same code
    gives the same wheels, so that builders take their layers from earlier builds.

    Args:
        folder: Where it is written; an earlier context there is replaced.
        base: The image to build on: with Python 3 and venv, or a Debian or Ubuntu that can install them; for
            GPUs, one with the libraries of CUDA.
        code: The team's own: projects (built as wheels, with what they need), folders of modules (copied to
            `/app`, which is on the path), packages, `.py` files and wheels.
        extras: Extras of this package.
        requirements: Requirements files, what else is to be installed.
        constraints: File of pinned versions; default: the tested ones, where this package runs from its
            sources.
        is_update: `base` is the image of an earlier build: only what differs is installed.

    Raises:
        ContextFolderError: The folder holds something that is not a build context.
        ImageCodeError: Some of `code` is missing, or is not code.
        WheelError: A project cannot be built.
        OSError: A file cannot be read or written.
    """
    for path in code:
        _check_code(path)
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise ContextFolderError(str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _made_aside(folder) as aside:
        for name in ("wheels", "code", "constraints"):
            (aside / name).mkdir()
        source = source_folder()
        needed = [*_own_requirements(extras, source), *_lines(requirements)]
        (aside / "requirements.txt").write_text("".join(f"{line}\n" for line in needed), "utf-8")
        if source is not None:
            build_wheel(source, aside / "wheels")
        for path in code:
            _add_code(path, aside)
        wheels = tuple(sorted(path.name for path in (aside / "wheels").iterdir()))
        text = (_UPDATED if is_update else _DOCKERFILE).format(
            base=base,
            mounts=_MOUNTS,
            pip=_PIP,
            constraints=_constraints(aside / "constraints", constraints, source),
            wheels=" ".join(f"/opt/build/wheels/{name}" for name in wheels)
            or "-r /opt/build/requirements.txt",
        )
        (aside / _MARK).write_text(text + _CODE, "utf-8")
        copied = tuple(sorted(path.name for path in (aside / "code").iterdir()))
    return Context(folder, base, tuple(needed), wheels, copied)


def source_folder() -> Path | None:
    """Return the checkout that this package runs from; None where it is installed."""
    import mlplatform

    folder = Path(mlplatform.__file__).resolve().parents[1]
    return folder if (folder / "setup.py").is_file() and (folder / "pyproject.toml").is_file() else None


def build_wheel(project: Path, into: Path) -> None:
    """Build a project's wheel, in a copy of it; the same files give the same bytes.

    Raises:
        WheelError: It cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="mlplatform-wheel-") as tmp:
        copy = Path(tmp) / "project"
        shutil.copytree(project, copy, symlinks=True, ignore=_IGNORED)
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
        done = subprocess.run(
            [*command, "--quiet", "--disable-pip-version-check", "--wheel-dir", str(into), str(copy)],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "SOURCE_DATE_EPOCH": "315532800",  # 1980, the first that a zip file can hold
                "CFLAGS": f"{os.environ.get('CFLAGS', '')} -g0",  # else it names the folder
            },
        )
    if done.returncode:
        raise WheelError(str(project), done.stderr or done.stdout)


def _own_requirements(extras: Sequence[str], source: Path | None) -> Iterator[str]:
    """Yield what this package needs with its extras; itself too, where it comes from an index."""
    own = metadata.distribution("mlplatform")
    if source is None:
        chosen = f"[{','.join(extras)}]" if extras else ""
        yield f"mlplatform{chosen}=={own.version}"
        return
    for text in own.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None:
            yield text
        elif any(marker.evaluate({"extra": extra}) for extra in extras):
            requirement.marker = None  # an extra is all that our markers name
            yield str(requirement)


def _lines(files: Sequence[Path]) -> Iterator[str]:
    for file in files:
        yield from file.read_text("utf-8").splitlines()


def _constraints(folder: Path, given: Path | None, source: Path | None) -> str:
    """Put the pinned versions into the context, and return pip's option for them."""
    if given is not None:
        _copy_pins(given, folder / "constraints.txt")
        return "-c /opt/build/constraints/constraints.txt"
    if source is None:
        return ""
    for stack in ("tfx116", "tfx121"):
        _copy_pins(source / "constraints" / f"{stack}.txt", folder / f"{stack}.txt")
    return f'-c "/opt/build/constraints/$({_STACK}).txt"'


def _copy_pins(file: Path, to: Path) -> None:
    """Copy pinned versions without comments, whose change would have builders install everything again."""
    lines = file.read_text("utf-8").splitlines(keepends=True)
    to.write_text("".join(line for line in lines if not line.lstrip().startswith("#")), "utf-8")


def _check_code(path: Path) -> None:
    if not path.exists():
        raise ImageCodeError(str(path), "there is no such file or folder")
    if path.is_file() and path.suffix not in _SUFFIXES:
        raise ImageCodeError(str(path), "it is neither a .py file nor a wheel")
    if path.is_dir() and not _is_project(path) and not any(path.rglob("*.py")):
        raise ImageCodeError(str(path), "there is no Python file in it")


def _is_project(path: Path) -> bool:
    return any((path / name).is_file() for name in ("pyproject.toml", "setup.py"))


def _add_code(path: Path, context: Path) -> None:
    path = path.resolve()
    if path.suffix == ".whl":
        shutil.copyfile(path, context / "wheels" / path.name)
    elif path.is_file():
        shutil.copyfile(path, context / "code" / path.name)
    elif _is_project(path):
        build_wheel(path, context / "wheels")
    else:
        place = context / "code"
        place = place / path.name if (path / "__init__.py").is_file() else place
        shutil.copytree(path, place, ignore=_IGNORED, dirs_exist_ok=True)


@contextmanager
def _made_aside(folder: Path) -> Iterator[Path]:
    """Let a folder be filled beside its place, and put it there when it is whole."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield aside
        shutil.rmtree(folder, ignore_errors=True)
        aside.chmod(0o755)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
