"""The root folder: where a machine keeps its runs, datasets, metadata and pushed models."""

import os
from dataclasses import dataclass
from pathlib import Path

from mlplatform.errors import UsageError

ROOT_VARIABLE = "MLPLATFORM_HOME"
DEFAULT_ROOT = ".mlplatform"


class RemotePathError(UsageError):
    """A URL stands where only a folder of this machine will do."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(path, what)
        self.path, self.what = path, what

    def __str__(self) -> str:
        return (
            f"{self.what} is {self.path!r}, which is no folder of this machine. Give a local folder, or one "
            "that is mounted."
        )


def local_path(path: str | os.PathLike[str], what: str) -> Path:
    """Return `path`, seen to be one of this machine: a URL would become a folder named `s3:`.

    Args:
        path: A path.
        what: What it is, for the error.

    Raises:
        RemotePathError: It is a URL.
    """
    if "://" in os.fspath(path):
        raise RemotePathError(os.fspath(path), what)
    return Path(path)


@dataclass(frozen=True)
class Home:
    """The places below one root folder. Nothing is created by naming it.

    Attributes:
        root: The root folder, absolute.
    """

    root: Path

    @classmethod
    def at(cls, root: str | os.PathLike[str] | None = None) -> "Home":
        """Return the home at `root`; where that is None or empty, at `$MLPLATFORM_HOME`, or `./.mlplatform`.

        Raises:
            RemotePathError: It is a URL, or below the home of a user whom this machine does not know.
        """
        named = root or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT
        try:
            return cls(local_path(named, "the root folder").expanduser().absolute())
        except RuntimeError as error:
            raise RemotePathError(os.fspath(named), "the root folder") from error

    @property
    def metadata_db(self) -> Path:
        """ML Metadata's SQLite file."""
        return self.root / "metadata" / "metadata.sqlite"

    @property
    def pipelines(self) -> Path:
        """Artifacts, one folder per pipeline: TFX's `pipeline_root` is `pipelines/<name>`."""
        return self.root / "pipelines"

    @property
    def runs(self) -> Path:
        """The local runner's records and logs, one folder per run."""
        return self.root / "runs"

    @property
    def datasets(self) -> Path:
        """The dataset store."""
        return self.root / "datasets"

    @property
    def models(self) -> Path:
        """Pushed models: `models/<name>/<version>/` is what a model server reads."""
        return self.root / "models"

    @property
    def reports(self) -> Path:
        """Verdicts and HTML pages that the gates wrote, kept also when the gate said no."""
        return self.root / "reports"

    @property
    def cache(self) -> Path:
        """What can be deleted at any time and is then made again."""
        return self.root / "cache"
