"""The versions that a job's Python needs to have in common with the process that submits it."""

import importlib.metadata
import platform
from functools import cache

from mlplatform.beam.errors import WorkerVersionError

_COMPARED = ("mlplatform", "apache-beam", "tensorflow", "tfx")


@cache
def versions() -> str:
    """Return Python and the compared libraries of this process with their versions, as one line."""
    found = [f"Python {'.'.join(platform.python_version_tuple()[:2])}"]
    for name in _COMPARED:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def require_versions(driver: str) -> None:
    """Check, in a worker, that it has the versions of the process that submitted the job.

    Args:
        driver: What `versions` returned there.

    Raises:
        WorkerVersionError: They differ; the error names both.
    """
    if driver != versions():
        raise WorkerVersionError(driver, versions())
