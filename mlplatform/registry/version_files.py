"""Where the files of pushed versions lie, and how they come, move and go: in a local folder, or at a URL.

In a local folder a stock TensorFlow Serving sees what lies there, so the folders follow the ledger: a version
is renamed into place, and moved to `withdrawn/` when it is rolled back. At a URL nothing can be renamed: a
version is uploaded to its place and counts by its event alone, until it is removed.
"""

import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from mlplatform.registry.contents import PUSH_FILE, WITHDRAWN, sync
from mlplatform.registry.errors import DuplicateVersionError, InvalidModelNameError, LedgerAccessError
from mlplatform.registry.history import History
from mlplatform.registry.model_events import MAX_VERSION, PUSH, ModelEvent
from mlplatform.registry.model_ledger import ModelLedger
from mlplatform.registry.push_record import Push, push_of, read_push
from mlplatform.storage import LocalStorage, open_storage
from mlplatform.storage.urls import is_local, join, name, parent

SAVED_MODEL = "saved_model.pb"
_COPY, _REMOVED = ".incoming-", ".removed-"  # of these, what a killed process left is removed after a day
_STALE_S = 24 * 3600


@dataclass(frozen=True)
class Files:
    """The files of one version.

    Attributes:
        url: Its folder, a local path or a URL.
        is_aside: Servers of the folder do not see it.
        push: What is known of its push.
    """

    url: str
    is_aside: bool
    push: Push | None


class VersionFiles(Protocol):
    """The files of all versions of the models below one place."""

    def names(self) -> list[str]:
        """Return the names of the models, sorted."""

    def has(self, model: str, events: Sequence[ModelEvent]) -> bool:
        """Return whether there is such a model, to which these events happened."""

    def begin(self, model: str) -> None:
        """Make the place for a model's versions."""

    def found(self, model: str, history: History) -> dict[int, Files]:
        """Return the versions that are there, by number."""

    def hold(self, model: str) -> "ExitStack":
        """Keep other writers of the model away, where locks exist, until the block ends."""

    def copy_place(self, model: str) -> "tuple[Path, ExitStack]":
        """Return a new local folder's name to prepare a version in, and what removes it in the end."""

    def show(self, model: str, number: int, files: Files) -> None:
        """Make a withdrawn version visible to servers of the folder."""

    def hide(self, model: str, number: int, files: Files) -> None:
        """Take a version out of the sight of servers of the folder."""

    def take_out(self, model: str, files: Files) -> str:
        """Begin to remove a version; return what `delete` takes once the ledger says so."""

    def delete(self, place: str) -> None:
        """Remove what `take_out` returned."""

    def delete_left(self, model: str, history: History) -> None:
        """Remove what `delete` did not come to, as its process was killed."""

    def abandoned(self, history: History) -> list[int]:
        """Return the versions whose uploads were killed; they are to be noted as removed."""

    def clean(self, model: str, history: History) -> None:
        """Remove what killed processes left."""


class LocalFiles:
    """Versions in a local folder."""

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir

    def names(self) -> list[str]:
        if not self._models_dir.is_dir():
            return []
        return sorted(p.name for p in self._models_dir.iterdir() if p.is_dir() and is_model_name(p.name))

    def has(self, model: str, events: Sequence[ModelEvent]) -> bool:
        return (self._models_dir / model).is_dir()

    def begin(self, model: str) -> None:
        (self._models_dir / model).mkdir(parents=True, exist_ok=True)

    def found(self, model: str, history: History) -> dict[int, Files]:
        base = self._models_dir / model
        return {
            int(path.name): Files(str(path), folder != base, read_push(path / PUSH_FILE))
            for folder in (base / WITHDRAWN, base)  # of two with the same number, one that servers see
            if folder.is_dir()
            for path in sorted(folder.iterdir())
            if path.name.isascii()
            and path.name.isdecimal()
            and int(path.name) <= MAX_VERSION
            and path.is_dir()
        }

    def hold(self, model: str) -> ExitStack:
        held = ExitStack()
        try:
            held.enter_context(LocalStorage(self._models_dir).hold(model, alone=True))
        except OSError as error:
            lock = self._models_dir / model / "lock"
            raise LedgerAccessError(lock, error.strerror or str(error)) from error
        return held

    def copy_place(self, model: str) -> tuple[Path, ExitStack]:
        place = self._models_dir / model / f"{_COPY}{uuid.uuid4().hex}"
        removed = ExitStack()
        removed.callback(shutil.rmtree, place, ignore_errors=True)
        return place, removed

    def show(self, model: str, number: int, files: Files) -> None:
        if files.is_aside:
            self._move(Path(files.url), self._models_dir / model / str(number))

    def hide(self, model: str, number: int, files: Files) -> None:
        aside = self._models_dir / model / WITHDRAWN / str(number)
        aside.parent.mkdir(exist_ok=True)
        if aside.exists():
            raise DuplicateVersionError(Path(files.url), aside)
        self._move(Path(files.url), aside)

    def add(self, model: str, number: int, copy: Path) -> None:
        """Show a version that was prepared, in one step."""
        self._move(copy, self._models_dir / model / str(number))

    def _move(self, source: Path, target: Path) -> None:
        source.rename(target)
        sync(target.parent.parent if target.parent.name == WITHDRAWN else target.parent)

    def take_out(self, model: str, files: Files) -> str:
        aside = self._models_dir / model / f"{_REMOVED}{uuid.uuid4().hex}"
        Path(files.url).rename(aside)
        return str(aside)

    def delete(self, place: str) -> None:
        shutil.rmtree(place, ignore_errors=True)  # `clean` tries again

    def delete_left(self, model: str, history: History) -> None:
        for path in (self._models_dir / model).glob(f"{_REMOVED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def abandoned(self, history: History) -> list[int]:
        return []

    def clean(self, model: str, history: History) -> None:
        base = self._models_dir / model
        for path in base.iterdir() if base.is_dir() else ():
            if path.name.startswith((_COPY, _REMOVED)):
                with suppress(FileNotFoundError):  # another push just made its copy a version
                    # The time of the last change of its entry: a copy takes over its source's other times.
                    if time.time() - path.stat().st_ctime > _STALE_S:
                        shutil.rmtree(path, ignore_errors=True)


class UploadedFiles:
    """Versions at a URL: those that the ledger has, whatever else lies there."""

    def __init__(self, models_dir: str, ledger: ModelLedger) -> None:
        self._models_dir = models_dir
        self._ledger = ledger
        self._storage = open_storage(models_dir)

    def names(self) -> list[str]:
        return [model for model in self._ledger.names() if is_model_name(model)]

    def has(self, model: str, events: Sequence[ModelEvent]) -> bool:
        return bool(events)

    def begin(self, model: str) -> None:
        pass  # a folder is but the beginning of its files' names

    def found(self, model: str, history: History) -> dict[int, Files]:
        pushed = {
            number: next(e for e in reversed(history.about[number]) if e["event"] == PUSH)
            for number in history.digests.keys() - history.removed
        }
        return {
            number: Files(join(self._models_dir, model, str(number)), False, push_of(event))
            for number, event in pushed.items()
        }

    def hold(self, model: str) -> ExitStack:
        return ExitStack()  # object storage has no locks: the ledger orders the writers

    def copy_place(self, model: str) -> tuple[Path, ExitStack]:
        removed = ExitStack()
        folder = removed.enter_context(tempfile.TemporaryDirectory(prefix="mlplatform-push-"))
        return Path(folder) / model, removed

    def show(self, model: str, number: int, files: Files) -> None:
        pass

    def hide(self, model: str, number: int, files: Files) -> None:
        pass

    def upload(self, model: str, number: int, copy: Path) -> None:
        """Upload a version that was prepared; its `saved_model.pb`, which servers look for, comes last."""
        self._storage.put_tree(f"{model}/{number}", copy, last=[SAVED_MODEL])

    def take_out(self, model: str, files: Files) -> str:
        return f"{model}/{name(files.url)}"

    def delete(self, place: str) -> None:
        self._storage.delete_tree(place)  # a killed one is finished by `clean`

    def delete_left(self, model: str, history: History) -> None:
        self.clean(model, history)

    def abandoned(self, history: History) -> list[int]:
        return [
            number
            for number, at in history.claims.items()
            if number not in history.digests and number not in history.removed and _is_stale(at)
        ]

    def clean(self, model: str, history: History) -> None:
        there = set(self._storage.names(model)) if history.removed else set()
        for number in history.removed:
            if str(number) in there:
                self._storage.delete_tree(f"{model}/{number}")


def files_of(models_dir: str, ledger: ModelLedger) -> LocalFiles | UploadedFiles:
    """Return the files of versions at a place."""
    return LocalFiles(Path(models_dir)) if is_local(models_dir) else UploadedFiles(models_dir, ledger)


@contextmanager
def fetched(url: str) -> Iterator[Path]:
    """A version's folder on this machine: itself where it is local, else a copy until the block ends."""
    if is_local(url):
        yield Path(url)
        return
    with tempfile.TemporaryDirectory(prefix="mlplatform-model-") as folder:
        target = Path(folder) / name(parent(url)) / name(url)  # signatures name the model by its folder
        target.parent.mkdir()
        open_storage(parent(url)).fetch_tree(name(url), target)
        yield target


def check_model_name(model: str) -> None:
    """See that a model can have this name.

    Raises:
        InvalidModelNameError: It cannot be the name of a folder that a model server reads.
    """
    if not is_model_name(model):
        raise InvalidModelNameError(model)


def is_model_name(model: str) -> bool:
    """Return whether a model can have this name."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model) is not None


def _is_stale(at: str) -> bool:
    try:
        age = datetime.now(timezone.utc) - datetime.fromisoformat(at)
    except (ValueError, TypeError):
        return False
    return age.total_seconds() > _STALE_S
