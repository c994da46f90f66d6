"""What lies outside of a pipeline and is read by it, as one fingerprint per task.

Kubeflow Pipelines keys its cache on a task's arguments: new files under an old path would be an old result.
So the fingerprint of what a task reads becomes one of its arguments when a run is submitted. A recurring run
is submitted once and reads often: its tasks that read are not cached.
"""

import copy
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlplatform.errors import MissingExtraError
from mlplatform.orchestration.kubeflow.compile import Package
from mlplatform.storage.errors import StoreAccessError
from mlplatform.storage.urls import is_local

ARGUMENT = "--data_fingerprint"
_PARAMETER = re.compile(r"\{([^{}]*)\}")


def with_fingerprints(package: Package, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a package's spec with the fingerprints of what its tasks read, which are cached then.

    What this machine cannot see, such as a volume of the cluster, has none: its task is not cached.

    Args:
        package: The package; is not changed.
        parameters: The runtime parameters of the run.
    """
    spec: dict[str, Any] = copy.deepcopy(dict(package.spec))
    values = {name: about.get("defaultValue") for name, about in package.parameters.items()} | dict(
        parameters
    )
    dags = [spec["root"], *(each for each in spec["components"].values() if "dag" in each)]
    for task_name, task in (item for dag in dags for item in dag["dag"]["tasks"].items()):
        places = package.read_paths.get(task_name)
        if not places:
            continue
        named = [_PARAMETER.sub(lambda found: str(values.get(found[1], "")), place) for place in places]
        found = fingerprint(named)
        if not found:
            continue
        label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        arguments = spec["deploymentSpec"]["executors"][label]["container"]["args"]
        place = arguments.index("--node") + 2  # before what Beam takes
        arguments[place:place] = [ARGUMENT, found]
        task["cachingOptions"] = {"enableCache": True}
    return spec


def fingerprint(places: list[str]) -> str:
    """Return a fingerprint of names, sizes and times of all files at some places.

    Args:
        places: Local paths and URLs; of a path with `{SPAN}` or `*` in it, the folder before.

    Returns:
        Hexadecimal, 32 characters; empty where one of the places cannot be seen from here.
    """
    digest = hashlib.blake2b(digest_size=16)
    for place in places:
        folder = _folder(place)
        if is_local(folder) and not Path(folder).exists():  # as a volume of the cluster
            return ""
        try:
            for name, facts in _files(folder):
                digest.update(os.fsencode(f"{name}\0{facts}\n"))
        except (StoreAccessError, MissingExtraError, OSError):  # pods may read what this machine may not
            return ""
        digest.update(os.fsencode(f"{place}\n"))
    return digest.hexdigest()


def _folder(place: str) -> str:
    before = re.split(r"[{*?\[]", place, maxsplit=1)[0]
    return before if before == place else before.rpartition("/")[0]


def _files(place: str) -> Iterator[tuple[str, str]]:
    if is_local(place):
        path = Path(place)
        files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        for file in files:
            facts = file.stat()
            yield file.relative_to(path).as_posix(), f"{facts.st_size} {facts.st_mtime_ns}"
        return
    from mlplatform.storage.file_systems import identities

    for name, facts_there in identities(place):
        yield name, repr(facts_there)
