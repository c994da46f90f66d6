"""One small shop's photos, one root folder and one finished run, shared by the tests that look at them.

They are shared by the processes of a parallel test run as well, so what runs in the root, or copies it, does
so under its lock (`alone`).
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlplatform.demo.photos import make_photos


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process of a parallel test run makes the folder, or works in it; the others wait for it."""
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of six categories with their listing, the same for all processes of a parallel test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shop" / "photos"
    folder.parent.mkdir(exist_ok=True)
    with _locked(folder):
        if not folder.exists():
            make_photos(folder, categories=6, per_category=20, unseen=12, size_px=64)
    return folder


@pytest.fixture(scope="session")
def quick(photos: Path) -> dict[str, dict[str, object]]:
    """Arguments that make the pipeline quick: a network of next to nothing, trained for a moment.

    The default network runs in `test_demo.py`.
    """
    import keras

    network = photos.parent / "network.keras"
    with _locked(network):
        if not network.exists():
            layers = [keras.Input((32, 32, 3)), keras.layers.AveragePooling2D(8), keras.layers.Flatten()]
            keras.Sequential(layers).save(network)
    return {
        "model": {"backbone": str(network), "image_size": 32, "epochs": 1},
        "thresholds": {"top_1": 0.0, "top_5": 0.0},
    }


@pytest.fixture(scope="session")
def settings(quick: dict[str, dict[str, object]]) -> list[str]:
    """`--set` words that make the pipeline quick."""
    return [
        word
        for block, values in quick.items()
        for key, value in values.items()
        for word in ("--set", f"{block}.{key}={value}")
    ]


@pytest.fixture(scope="session")
def home(photos: Path, settings: list[str], mlplatform: Callable[..., Any]) -> Path:
    """A root folder in which the item-category pipeline ran once. Tests that change it copy it first.

    Running the same again changes nothing that others look at: every node is cached.
    """
    root = photos.parent / "home"
    with _locked(root):
        if not (root / "models").exists():
            done = mlplatform("run", "item_category", "--data", photos, "--root", root, *settings)
            assert done.code == 0, done.err
    return root


@pytest.fixture(scope="session")
def alone(home: Path) -> Callable[[], AbstractContextManager[None]]:
    """Keep the other test processes out of `home`, within a `with` block."""
    return lambda: _locked(home)


@pytest.fixture(scope="session")
def copy_of_home(home: Path, alone: Callable[[], AbstractContextManager[None]]) -> Callable[[Path], Path]:
    """Copy the root, whole; returns the copy."""

    def copy(to: Path) -> Path:
        with alone():
            return shutil.copytree(home, to)

    return copy
