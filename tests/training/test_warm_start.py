"""A training that starts from an earlier model: as good as one from nothing, in half the passes."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mlplatform.taxonomy import Taxonomy
from mlplatform.training.image_classifier import train
from mlplatform.training.image_classifier_settings import ClassifierSettings
from mlplatform.training.task import TrainingTask

BEFORE, NEW, MERGED = 80, 50, 10
MERGES = {f"c{n:03d}": [f"c{BEFORE - MERGED + n:03d}"] for n in range(MERGED)}


def photo(pattern: int, number: int) -> bytes:
    """Blocks of colours: more than half of them its pattern's, the rest its own."""
    shared, own = (
        np.random.default_rng(seed).integers(0, 256, (5, 5, 3)) for seed in (pattern, [pattern, number])
    )
    blocks = (0.55 * shared + 0.45 * own).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(blocks).resize((48, 48), Image.Resampling.BICUBIC).save(stream, "JPEG")
    return stream.getvalue()


def write(path: Path, label_of: Mapping[int, str], numbers: range) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in numbers:
            for pattern, label in label_of.items():
                example = tf.train.Example()
                features = example.features.feature
                features["image/encoded"].bytes_list.value.append(photo(pattern, number))
                features["label"].bytes_list.value.append(label.encode())
                writer.write(example.SerializeToString())
    return str(path)


def trained(folder: Path, label_of: Mapping[int, str], **more: Any) -> dict[str, Any]:
    """Train, and return the history of the head."""
    folder.mkdir()
    for name in ("work", "run"):
        (folder / name).mkdir()
    task = TrainingTask(
        train_files=(write(folder / "train", label_of, range(14)),),
        eval_files=(write(folder / "eval", label_of, range(100, 106)),),
        hyperparameters={"image_size": 48, "epochs": 24, "patience": 0, "augment": False},
        work_dir=folder / "work",
        model_dir=folder / "model",
        run_dir=folder / "run",
        **more,
    )
    train(task)
    head: dict[str, Any] = json.loads((folder / "run/history.json").read_text())["fits"]["head"]
    return head


def test_a_warm_start_has_half_the_passes_unless_told_otherwise() -> None:
    assert ClassifierSettings(epochs=7).epochs_from(has_base_model=False) == 7
    assert ClassifierSettings(epochs=7).epochs_from(has_base_model=True) == 4
    assert ClassifierSettings(epochs=7, warm_start_epochs=9).epochs_from(has_base_model=True) == 9


@pytest.mark.soak
def test_fifty_classes_more_and_ten_merged(tmp_path: Path) -> None:
    before = {n: f"c{n:03d}" for n in range(BEFORE)}
    taxonomy = Taxonomy.parse(f"merges: {json.dumps(MERGES)}", "taxonomy.yaml")
    after = {n: taxonomy.current(f"c{n:03d}") for n in range(BEFORE + NEW)}
    assert len({*after.values()}) == BEFORE + NEW - MERGED
    trained(tmp_path / "before", before)

    scratch = trained(tmp_path / "scratch", after, taxonomy=taxonomy)
    warm = trained(tmp_path / "warm", after, taxonomy=taxonomy, base_model_dir=tmp_path / "before/model")

    assert 2 * len(warm["epochs"]) == len(scratch["epochs"])
    accuracies = [max(epoch["val_accuracy"] for epoch in fit["epochs"]) for fit in (scratch, warm)]
    print("val_accuracy from nothing and from the model before:", accuracies)
    assert 0.4 < accuracies[0] < 0.98  # neither too easy nor too hard to tell the two apart
    assert accuracies[1] > accuracies[0] - 0.01
