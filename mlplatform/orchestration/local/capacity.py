"""How many nodes at the same time a machine, or the control group (container) on it, has room for."""

import math
from pathlib import Path

from mlplatform.machine import (
    CGROUPS,
    PROC,
    control_groups,
    kernel_text,
    memory_info_bytes,
    usable_cores,
)

NODE_MEMORY_BYTES = 1_500_000_000  # what one more node at the same time may need


def default_parallelism(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return how many nodes at the same time the cores and the available memory allow, at least 1.

    Args:
        proc: The kernel's files of processes.
        cgroups: Its files of control groups, version 2.
    """
    free_bytes = memory_info_bytes("MemAvailable", proc)
    for group in control_groups(proc, cgroups):
        limit, used = kernel_text(group / "memory.max"), kernel_text(group / "memory.current")
        if limit.isdigit() and used.isdigit():
            # The page cache counts as used, and is given up when memory is needed.
            free_bytes = min(free_bytes, int(limit) - int(used) + _reclaimable_bytes(group))
    return max(1, min(math.ceil(usable_cores(proc, cgroups)), free_bytes // NODE_MEMORY_BYTES))


def _reclaimable_bytes(group: Path) -> int:
    for line in kernel_text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0
