"""The files of an Examples artifact."""

from collections.abc import Sequence

from tfx import types
from tfx.types import artifact_utils

from mlplatform.errors import UsageError
from mlplatform.home import local_path
from mlplatform.storage import open_storage
from mlplatform.storage.urls import join


class SplitNotFoundError(UsageError):
    """The Examples have no split of that name."""

    def __init__(self, split: str, known: Sequence[str]) -> None:
        super().__init__(split, known)
        self.split, self.known = split, known

    def __str__(self) -> str:
        return f"the Examples have no split {self.split!r}; they have {', '.join(self.known) or 'none'}."


def split_files(
    examples: Sequence[types.Artifact], splits: Sequence[str], *, may_be_remote: bool = False
) -> list[str]:
    """Return the TFRecord files of splits, sorted.

    Args:
        examples: The artifacts.
        splits: Names of splits.
        may_be_remote: The files of an artifact at a URL are URLs, instead of an error.

    Raises:
        SplitNotFoundError: An artifact has no such split.
        RemotePathError: An artifact does not lie on this machine.
    """
    files: list[str] = []
    for split in splits:
        for artifact in examples:
            known = artifact_utils.decode_split_names(artifact.split_names)
            if split not in known:
                raise SplitNotFoundError(split, known)
            folder = artifact_utils.get_split_uri([artifact], split)
            if not may_be_remote:
                local_path(folder, f"the folder of split {split!r}")
            # A name that begins with a dot is what a killed writer left.
            names = [name for name in open_storage(folder).paths("") if not name.startswith(".")]
            files += [join(folder, name) for name in names if "/" not in name]
    return files
