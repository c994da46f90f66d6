"""Models to push: folders that look like SavedModels; the store never reads inside."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlplatform.registry import ModelStore
from mlplatform.registry.model_ledger import ledger_of


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
