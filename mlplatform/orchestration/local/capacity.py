"""How many nodes at the same time a machine, or the control group (container) on it, has room for."""

import math
import os
from pathlib import Path

NODE_MEMORY_BYTES = 1_500_000_000  # what one more node at the same time may need


def default_parallelism(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many nodes at the same time the cores and the available memory allow, at least 1.

    Args:
        proc: The kernel's files of processes.
        cgroups: Its files of control groups, version 2.
    """
    cores = float(len(os.sched_getaffinity(0)))
    free_bytes = _available_bytes(proc)
    for group in _control_groups(proc, cgroups):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if quota.isdigit():
            cores = min(cores, int(quota) / int(period))
        limit, used = _text(group / "memory.max"), _text(group / "memory.current")
        if limit.isdigit() and used.isdigit():
            # The page cache counts as used, and is given up when memory is needed.
            free_bytes = min(free_bytes, int(limit) - int(used) + _reclaimable_bytes(group))
    return max(1, min(math.ceil(cores), free_bytes // NODE_MEMORY_BYTES))


def _available_bytes(proc: Path) -> int:
    for line in _text(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0


def _control_groups(proc: Path, cgroups: Path) -> list[Path]:
    """Return the folders of this process's control group and of those around it."""
    for line in _text(proc / "self/cgroup").splitlines():
        if line.startswith("0::"):
            group = cgroups / line.removeprefix("0::").strip("/")
            return [group, *(parent for parent in group.parents if parent.is_relative_to(cgroups))]
    return []


def _reclaimable_bytes(group: Path) -> int:
    for line in _text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
