"""`item_category` on real photos: what an engine finds, and the pushed model, are those of this process."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from comparing import assert_same
from google.protobuf import json_format
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlplatform.datasets import DatasetStore
from mlplatform.orchestration.local import LocalRunner

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"
EVERY = 16  # photo of each class
# A short training: what is compared is the gate's figures, not how good they are.
SHORT = {
    "model": {"epochs": 2},
    "budget": {"p99_latency_ms": 60_000.0, "load_time_s": 600.0},  # the machine is busy
    "thresholds": {"top_1": 0.05, "top_5": 0.05, "per_class_top_5": 0.0, "tail_top_5": 0.0},
}

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"the development data {CLOTHING} is not there"),
]


@dataclass(frozen=True)
class Found:
    """What a run left.

    Attributes:
        digest: Of the dataset version.
        records: Of it, by split.
        statistics: Parsed, by split.
        verdict: The data gate's.
    """

    digest: str
    records: dict[str, int]
    statistics: dict[str, Any]
    verdict: dict[str, Any]

    @classmethod
    def of(cls, root: Path) -> "Found":
        """Read it."""
        manifest = DatasetStore(str(root / "datasets")).show("items", "latest")
        records = {name: split.records for name, split in manifest.splits.items()}
        [verdict] = root.glob("reports/*/DataValidator/verdict.json")
        return cls(manifest.digest, records, statistics(root), json.loads(verdict.read_text()))


def statistics(root: Path) -> dict[str, Any]:
    """Return the parsed statistics of each split, in the order of the features."""
    found = {}
    for file in root.rglob("DataValidator/statistics/*/Split-*/FeatureStats.pb"):
        parsed = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())
        for dataset in parsed.datasets:
            dataset.features.sort(key=lambda feature: [*feature.path.step])
        found[file.parent.name] = json_format.MessageToDict(parsed)
    assert found
    return found


def figures(root: Path) -> Any:
    """Return the model gate's figures."""
    [verdict] = root.glob("reports/*/ModelValidator/verdict.json")
    return json.loads(verdict.read_text())["quality"]


def probabilities(root: Path, records: Sequence[bytes]) -> Any:
    """Return what the pushed model answers, shape (records, classes)."""
    [version] = (root / "models/item_category").glob("[0-9]*")
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    return signature(examples=tf.constant(records))["probabilities"].numpy()


def run(root: Path, photos: Path, engine: Any = None) -> Path:
    runner = LocalRunner(root, parallelism=1)
    try:
        runner.run_reference("item_category", data=str(photos), overrides=SHORT, engine=engine)
    finally:
        runner.close()
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every sixteenth of the clothing photos, and a file that is no photo."""
    folder = tmp_path_factory.mktemp("clothing")
    for kind in sorted(CLOTHING.glob("*/*")):
        (folder / kind.relative_to(CLOTHING)).mkdir(parents=True)
        for photo in sorted(kind.glob("*.jpg"))[::EVERY]:
            shutil.copy(photo, folder / photo.relative_to(CLOTHING))
    (folder / "train/hat/broken.jpg").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="session")
def here(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run in this process."""
    return run(tmp_path_factory.mktemp("here"), photos)


@pytest.fixture(scope="session")
def there(block: dict[str, Any], photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run on each engine."""
    return run(tmp_path_factory.mktemp("there"), photos, block)


def test_the_data_nodes_find_the_same(there: Path, here: Path) -> None:
    assert_same(asdict(Found.of(there)), asdict(Found.of(here)))


def test_the_model_gate_finds_the_same(there: Path, here: Path) -> None:
    assert_same(figures(there), figures(here))


def test_the_pushed_model_is_the_same(there: Path, here: Path) -> None:
    files = sorted(here.glob("pipelines/item_category/ImageExampleGen/examples/*/Split-validation/*"))
    records = [*tf.data.TFRecordDataset([*map(str, files)]).take(32).as_numpy_iterator()]
    expected = probabilities(here, records)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(probabilities(there, records), expected, rtol=0, atol=1e-6)
