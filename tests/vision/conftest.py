"""Photos of colours, for all tests of this folder."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def colours() -> ModuleType:
    """The module `colour_photos`."""
    spec = importlib.util.spec_from_file_location(
        "colour_photos", Path(__file__).with_name("colour_photos.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
