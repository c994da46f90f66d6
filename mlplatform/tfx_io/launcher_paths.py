"""Where Kubeflow's launcher keeps the copies of artifacts in a container: `s3://b/k` lies at `/s3/b/k`.

The launcher downloads the inputs there before the container's command starts, and uploads what lies there of
the outputs after it has ended well. Source: `LocalPathForURI` in kubeflow/pipelines,
backend/src/v2/component/launcher_v2.go.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlplatform.storage.urls import parent, scheme

FOLDERS = {"s3": "s3", "minio": "minio", "gs": "gcs"}
ROOT_VARIABLE = "MLPLATFORM_LAUNCHER_ROOT"  # set by the entry point for the executor's own processes


def local_path(uri: str, root: Path = Path("/")) -> Path | None:
    """Return where the launcher keeps an artifact; None for a kind of URI that it does not copy.

    Args:
        uri: The artifact's URI.
        root: The folder that the launcher's own folders lie in: the root of the file system, on a cluster.
    """
    folder = FOLDERS.get(scheme(uri))
    return root / folder / uri.partition("://")[2] if folder else None


def copy_of(uri: str) -> Path | None:
    """Return the launcher's copy of an artifact; None where there is none, or this is no container of it."""
    root = os.environ.get(ROOT_VARIABLE)
    place = local_path(uri, Path(root)) if root else None
    return place if place is not None and place.is_dir() else None


def launcher_root(output_file: str, uris: Iterable[str]) -> Path | None:
    """Return the folder that the launcher's folders lie in; None where no launcher has made them.

    Args:
        output_file: The file that the launcher wants the outputs' facts in.
        uris: The URIs of the outputs.
    """
    for uri in uris:
        place = local_path(parent(uri))
        if place is None:
            continue
        within = place.relative_to("/")
        beside = Path(output_file).parent
        if beside.parts[-len(within.parts) :] == within.parts:  # newer launchers have a file of its own place
            root = Path(*beside.parts[: -len(within.parts)])
            return root if (root / within).is_dir() else None
        return Path("/") if place.is_dir() else None
    return None


@dataclass
class LocalCopies:
    """The artifacts of a task by their local paths.

    Args:
        root: As `launcher_root` returns it; None: nothing is copied, all URIs stay as they are.
    """

    root: Path | None
    _uris: dict[str, str] = field(default_factory=dict)

    def localize(self, uri: str, *, must_exist: bool) -> str:
        """Return the path of an artifact's copy, or its URI where it has none.

        Args:
            uri: The URI.
            must_exist: It is an input: no copy is there unless the launcher made one.
        """
        place = local_path(uri, self.root) if self.root is not None else None
        if place is None or (must_exist and not place.exists()):
            return uri
        self._uris[str(place)] = uri
        return str(place)

    def uri_of(self, path: str) -> str:
        """Return the URI of what lies at a path, which may lie below an artifact; other texts as they are."""
        for place, uri in self._uris.items():
            if path == place or path.startswith(f"{place}/"):
                return uri + path[len(place) :]
        return path

    def with_uris(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return metadata in which no local path stands for a URI; what is None is left out."""
        return {
            name: self.uri_of(value) if isinstance(value, str) else value
            for name, value in metadata.items()
            if value is not None
        }
