"""Small real models whose right and wrong answers are known, made once and judged by many tests."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import tensorflow as tf

from mlplatform.components.model_validator.serving_check import ServingCheck, check_serving
from mlplatform.components.model_validator.settings import Budget
from mlplatform.vision.signatures import export_image_classifier

LABELS = ["blue", "green", "red"]


def parsed(records: Sequence[bytes]) -> list[tf.train.Example]:
    """Return serialized Examples as Examples."""
    return [tf.train.Example.FromString(record) for record in records]


@pytest.fixture(autouse=True)
def _probes_are_quick(quick_probes: None) -> None:
    """For every test here."""


@pytest.fixture
def real_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test's probes be processes as users have them."""
    monkeypatch.setattr("mlplatform.components.model_validator.serving_check.psutil", psutil)


@pytest.fixture(scope="session")
def models(colours: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`new` knows all colours; `old` takes red for green."""
    folder = tmp_path_factory.mktemp("models")
    for name, labels in (("new", LABELS), ("old", ["blue", "red", "green"])):
        network = colours.colour_network(16, LABELS)
        export_image_classifier(network, labels, 16, folder / name, samples=colours.examples(1))
    return folder


@pytest.fixture(scope="session")
def safe(models: Path, colours: ModuleType, quick_probes: None) -> ServingCheck:
    """What the serving check finds of `new`, as of `old`, which answers other names with the same scores."""
    return check_serving(models / "new", parsed(colours.examples(2)), Budget())


@pytest.fixture(scope="session")
def photos(colours: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 rightly labelled photos, and four red ones that are labelled blue."""
    wrong = [
        colours.example(colours.encode("red", 100 + n), "blue", f"wrongly-labelled-{n}") for n in range(4)
    ]
    file = tmp_path_factory.mktemp("photos") / "eval.gz"
    return str(colours.write(file, [*colours.examples(8), *wrong]))
