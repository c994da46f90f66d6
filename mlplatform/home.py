"""The root folder: where runs, datasets, pushed models and reports lie, on this machine or at a URL."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from mlplatform.errors import UsageError
from mlplatform.storage.urls import absolute, is_local, join

ROOT_VARIABLE = "MLPLATFORM_HOME"
DEFAULT_ROOT = ".mlplatform"
CACHE_VARIABLE = "XDG_CACHE_HOME"


class RemotePathError(UsageError):
    """A URL stands where only a folder of this machine will do."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(path, what)
        self.path, self.what = path, what

    def __str__(self) -> str:
        return (
            f"{self.what} is {self.path!r}, which is not a folder of this machine. Give a local folder, or "
            "one that is mounted."
        )


def local_path(path: str | os.PathLike[str], what: str) -> Path:
    """Return `path`, seen to be one of this machine: a URL would become a folder named `s3:`.

    Args:
        path: A path.
        what: What it is, for the error.

    Raises:
        RemotePathError: It is a URL.
    """
    if not is_local(os.fspath(path)):
        raise RemotePathError(os.fspath(path), what)
    return Path(path)


@dataclass(frozen=True)
class Home:
    """The places below one root. Nothing is created by naming it.

    What other machines read lies below the root, so these places are local paths or URLs, as the root is.
    What has to be on the machine that runs, such as SQLite's file, lies below `machine`.

    Attributes:
        root: The root: an absolute local path, or a URL.
    """

    root: str

    @classmethod
    def at(cls, root: str | os.PathLike[str] | None = None) -> "Home":
        """Return the home at `root`; where that is None or empty, at `$MLPLATFORM_HOME`, or `./.mlplatform`.

        Args:
            root: A local folder, or a URL such as `s3://bucket/team`.

        Raises:
            RemotePathError: It is below the home of a user whom this machine does not know.
        """
        named = root or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT
        try:
            return cls(absolute(named))
        except RuntimeError as error:
            raise RemotePathError(os.fspath(named), "the root folder") from error

    @property
    def datasets(self) -> str:
        """The dataset store."""
        return join(self.root, "datasets")

    @property
    def models(self) -> str:
        """Pushed models: `models/<name>/<version>/` is what a model server reads."""
        return join(self.root, "models")

    @property
    def ledger(self) -> str:
        """What happened: runs, verdicts, pushes, each an immutable event."""
        return join(self.root, "ledger")

    @property
    def reports(self) -> str:
        """Verdicts and HTML pages that the gates wrote, kept also when the gate said no."""
        return join(self.root, "reports")

    @property
    def requests(self) -> str:
        """The request logs of model servers."""
        return join(self.root, "requests")

    @property
    def work(self) -> str:
        """Unfinished trainings and their features: can be deleted at any time and are then made again."""
        return join(self.root, "work")

    @property
    def machine(self) -> Path:
        """The folder of this machine for what cannot be at a URL: the root itself where that is local.

        Of a URL it is below `$XDG_CACHE_HOME/mlplatform/roots`, and another machine has its own.
        """
        if is_local(self.root):
            return Path(self.root)
        caches = os.environ.get(CACHE_VARIABLE)
        base = Path(caches) if caches and Path(caches).is_absolute() else Path("~/.cache").expanduser()
        return base / "mlplatform" / "roots" / hashlib.sha256(self.root.encode()).hexdigest()[:16]

    @property
    def metadata_db(self) -> Path:
        """ML Metadata's SQLite file."""
        return self.machine / "metadata" / "metadata.sqlite"

    @property
    def pipelines(self) -> Path:
        """Artifacts, one folder per pipeline: TFX's `pipeline_root` is `pipelines/<name>`."""
        return self.machine / "pipelines"

    @property
    def runs(self) -> Path:
        """The local runner's records and logs of the runs that this machine made, one folder per run."""
        return self.machine / "runs"

    @property
    def cache(self) -> Path:
        """What can be deleted at any time and is then made again."""
        return self.machine / "cache"
