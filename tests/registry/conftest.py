"""Models to push: folders that look like SavedModels; the store never reads inside."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.registry import ModelStore
from mlplatform.registry.model_ledger import ledger_of

KILLED = 77
Action = Callable[[], object]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], Path]:
    """Make a model whose content is a text."""

    def model(content: str) -> Path:
        folder = tmp_path / "exported" / content
        if not folder.exists():
            (folder / "variables").mkdir(parents=True)
            (folder / "saved_model.pb").write_text(content)
            (folder / "variables" / "variables.index").write_text(content)
        return folder

    return model


@pytest.fixture
def push(store: ModelStore, model: Callable[[str], Path]) -> Callable[..., int]:
    """Push models of these contents as versions of `items`; returns the last one's number."""

    def push(*contents: str) -> int:
        return [store.push(model(content), "items").version.version for content in contents][-1]

    return push


def _killed_at(step: int, action: Action) -> bool:
    """Run `action` in a process that is killed before its step `step`; False where it has fewer steps.

    A forked process ends itself in an audit hook, before the Nth call that changes something or opens a file
    for that: of what Python audits, all but reading. Between two of them lies at most one write.
    """
    child = os.fork()
    if child == 0:
        left = [step]

        def count(event: str, arguments: tuple[object, ...]) -> None:
            if _is_step(event, arguments):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(KILLED)

        try:
            sys.addaudithook(count)
            action()
        except BaseException:  # noqa: BLE001 - the exit code is all that the parent sees
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


def _is_step(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        mode = arguments[1]  # None: os.open, for the ledger, and for what is synchronized after a rename
        return mode is None or any(letter in str(mode) for letter in "wax+")
    return event.startswith(("os.", "fcntl.", "shutil.")) and event not in ("os.listdir", "os.scandir")


@pytest.fixture
def killed_at() -> Callable[[int, Action], bool]:
    """Run something that is killed before one of its steps."""
    return _killed_at


def folders_of(store: ModelStore) -> tuple[list[int], list[int]]:
    """What lies in the folders: versions that a server of the folder sees, and those aside."""
    base = store.models_dir / "items"
    aside = base / "withdrawn"
    return (
        sorted(int(p.name) for p in base.iterdir() if p.name.isdigit()),
        sorted(int(p.name) for p in aside.iterdir()) if aside.is_dir() else [],
    )


@pytest.fixture
def stream(store: ModelStore) -> Path:
    """The folder of the events of `items`."""
    return Path(ledger_of(store.url)) / "models" / "items"


def as_release_0_1_left_it(store: ModelStore) -> Path:
    """Make the ledger of `items` a `ledger.jsonl`, as release 0.1 wrote it; return that."""
    file = store.models_dir / "items" / "ledger.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in store.ledger("items")))
    shutil.rmtree(ledger_of(store.url))
    return file


@pytest.fixture
def old_ledger(store: ModelStore) -> Callable[[], Path]:
    """Make the ledger of `items` one of release 0.1, and return its file."""
    return lambda: as_release_0_1_left_it(store)


@pytest.fixture
def folders(store: ModelStore) -> Callable[[], tuple[list[int], list[int]]]:
    """Return the version folders of `items`: those that a server sees, and those aside."""
    return lambda: folders_of(store)
