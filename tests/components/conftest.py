"""Photos of colours, for the tests of components."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

_FILE = Path(__file__).parents[1] / "vision" / "colour_photos.py"


@pytest.fixture(scope="session", autouse=True)
def _beam(beam_of_nodes: None) -> None:
    """All components' tests run Beam so."""


@pytest.fixture(scope="session")
def colours() -> ModuleType:
    """The module `colour_photos`."""
    spec = importlib.util.spec_from_file_location("colour_photos", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
