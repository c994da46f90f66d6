"""How much memory this process has taken at most."""

from pathlib import Path


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process since its program was started, in MB.

    Not `getrusage`: Linux counts there the memory of the process that started this one, too, which may be a
    pipeline of several GB. Source: Linux, `Documentation/filesystems/proc.rst`, VmHWM.
    """
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) / 1024
