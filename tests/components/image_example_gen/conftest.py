"""Small real photos, and the component's executor run as TFX runs it."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@dataclass(frozen=True)
class Ingest:
    """A finished ingest.

    Attributes:
        examples: Per split, the Examples as features by name, in file order.
        rejects: Reason by path.
        warnings: Reason by path.
        summary: The artifact's summary.
        folder: Where the artifacts lie.
    """

    examples: dict[str, list[dict[str, Any]]]
    rejects: dict[str, str]
    warnings: dict[str, str]
    summary: dict[str, Any]
    folder: Path

    def ids(self, split: str) -> list[str]:
        return [example["item_id"].decode() for example in self.examples[split]]


def encoded(kind: str = "JPEG", size: tuple[int, int] = (24, 16), seed: int = 0) -> bytes:
    """A photo of noise, which compresses badly, so that half of it is really half of it."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="session")
def make_photo() -> Callable[..., bytes]:
    return encoded


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Two classes of six photos."""
    base = tmp_path / "shop"
    for label in ("hat", "shoe"):
        (base / label).mkdir(parents=True)
        for number in range(6):
            (base / label / f"{number}.jpg").write_bytes(encoded(seed=len(label) * 10 + number))
    return base


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Path]:
    """Write a listing, rows of (path, label, item_id, seller_id), and its photos but for those `without`."""

    def make(rows: list[tuple[str, str, str, str]], without: tuple[str, ...] = ()) -> Path:
        base = tmp_path / "listed"
        base.mkdir()
        for number, (path, *_) in enumerate(rows):
            if path and path not in without and ".." not in path and not path.startswith("/"):
                (base / path).parent.mkdir(parents=True, exist_ok=True)
                (base / path).write_bytes(encoded(seed=number))
        lines = ["path,label,item_id,seller_id", *(",".join(row) for row in rows)]
        (base / "listing.csv").write_text("\n".join(lines) + "\n", "utf-8")
        return base

    return make


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., Ingest]:
    """Declare the component, then run its driver's and its executor's work in this process."""

    def run(**arguments: Any) -> Ingest:
        from tfx.dsl.components.base import base_beam_executor
        from tfx.types import artifact_utils, standard_artifacts

        from mlplatform.artifacts import RejectedRecords
        from mlplatform.components import ImageExampleGen
        from mlplatform.components.image_example_gen.driver import Driver
        from mlplatform.components.image_example_gen.executor import Executor

        component = ImageExampleGen(**arguments)
        properties = Driver(None).resolve_exec_properties(dict(component.exec_properties), None, None)
        folder = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        examples, rejects = standard_artifacts.Examples(), RejectedRecords()
        examples.uri, rejects.uri = str(folder / "examples"), str(folder / "rejects")
        context = base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=[], tmp_dir=str(folder / "tmp")
        )
        Executor(context).Do({}, {"examples": [examples], "rejects": [rejects]}, properties)
        splits = artifact_utils.decode_split_names(examples.split_names)
        assert rejects.count == len(lines(folder / "rejects" / "rejects.jsonl"))
        return Ingest(
            {split: read_examples(folder / "examples" / f"Split-{split}") for split in splits},
            {line["path"]: line["reason"] for line in lines(folder / "rejects" / "rejects.jsonl")},
            {line["path"]: line["reason"] for line in lines(folder / "rejects" / "warnings.jsonl")},
            json.loads((folder / "rejects" / "summary.json").read_text()),
            folder,
        )

    return run


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def read_examples(folder: Path) -> list[dict[str, Any]]:
    """Read Examples with TensorFlow's own reader."""
    import tensorflow as tf

    found = []
    for record in tf.data.TFRecordDataset(sorted(str(file) for file in folder.iterdir())).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        example = {}
        for name, feature in features.items():
            values = list(getattr(feature, feature.WhichOneof("kind")).value)
            example[name] = values[0] if len(values) == 1 else values
        found.append(example)
    return found
