"""Running a model's code: found, keyed, held, and taken up again after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from mlplatform.components.model_trainer.errors import (
    NoExamplesError,
    NoModelError,
    RunFunctionError,
    TrainingInProgressError,
)
from mlplatform.components.model_trainer.task import TrainingTask
from mlplatform.components.model_trainer.train import _held, find_function, train, training_key
from mlplatform.config import ConfigError
from mlplatform.demo.photos import make_photos
from mlplatform.pipelines.item_category.model import train as train_item_category
from mlplatform.vision.efficientnet_lite import efficientnet_lite0

MODEL = "mlplatform.pipelines.item_category.model:train"
SETTINGS = {"image_size": 32, "epochs": 12, "patience": 0, "batch_size": 8}

# What a component's process does, with shards of one batch, so that there is something to kill.
TRAIN = f"""
import json, sys
from pathlib import Path
from mlplatform.vision import features
features.SHARD_PHOTOS = 32
from mlplatform.components.model_trainer.train import train
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
train({MODEL!r}, train_files=[str(folder / "train.gz")], eval_files=[str(folder / "eval.gz")],
      hyperparameters={SETTINGS!r}, work_root=out / "work", model_dir=out / "model", run_dir=out / "run")
"""


@pytest.fixture(scope="module")
def photos(colours: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn photos of four categories as Examples: 128 to train on, 32 to evaluate with, and a few."""
    folder = tmp_path_factory.mktemp("photos")
    make_photos(folder / "drawn", categories=4, per_category=40, unseen=0, size_px=48)
    with (folder / "drawn" / "listing.csv").open(newline="") as file:
        records = [
            colours.example((folder / "drawn" / row["path"]).read_bytes(), row["label"], row["item_id"])
            for row in csv.DictReader(file)
        ]
    order = np.random.default_rng(0).permutation(len(records))
    colours.write(folder / "train.gz", [records[n] for n in order[:128]])
    colours.write(folder / "few.gz", [records[n] for n in order[:24]])
    colours.write(folder / "eval.gz", [records[n] for n in order[128:]])
    return folder


def start(photos: Path, out: Path) -> "subprocess.Popen[bytes]":
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", TRAIN, str(photos), str(out)], stdout=log, stderr=log)


def kill_when(process: "subprocess.Popen[bytes]", is_time: Callable[[], bool]) -> None:
    """Kill with SIGKILL as soon as `is_time` says so."""
    deadline = time.monotonic() + 120
    while not is_time():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def figures(out: Path) -> list[dict[str, float]]:
    epochs: list[dict[str, float]] = json.loads((out / "run" / "history.json").read_text())["fits"]["head"][
        "epochs"
    ]
    return epochs


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_model(photos: Path, tmp_path: Path) -> None:
    undisturbed = start(photos, tmp_path / "one")

    out = tmp_path / "two"
    shards = lambda: sorted(out.glob("work/*/train-features/features-*.npz"))  # noqa: E731
    kill_when(start(photos, out), lambda: len(shards()) >= 2)
    (work,) = (out / "work").iterdir()
    kept = {shard: shard.stat().st_mtime_ns for shard in shards()}
    assert not (out / "model").exists()
    kill_when(start(photos, out), lambda: any(work.glob("head/checkpoint-00000[3-9]*")))
    assert len(shards()) == 4
    assert all(shard.stat().st_mtime_ns == written for shard, written in kept.items())
    assert start(photos, out).wait(timeout=240) == 0, (out / "log").read_text()
    assert undisturbed.wait(timeout=240) == 0, (tmp_path / "one" / "log").read_text()

    one, two = figures(tmp_path / "one"), figures(out)
    assert len(one) == len(two) == 12
    np.testing.assert_allclose([e["val_loss"] for e in one], [e["val_loss"] for e in two], atol=5e-3)
    records = tf.constant(list(tf.data.TFRecordDataset(str(photos / "eval.gz"), "GZIP").as_numpy_iterator()))
    answers = [
        tf.saved_model.load(str(folder / "model")).signatures["serving_default"](examples=records)
        for folder in (tmp_path / "one", out)
    ]
    np.testing.assert_allclose(answers[0]["probabilities"], answers[1]["probabilities"], atol=5e-3)
    assert max(epoch["val_accuracy"] for epoch in two) > 0.5  # a guess is right one time in four
    assert not list((out / "work").iterdir())


def write_nothing(task: TrainingTask) -> None:
    """A model's code that ends without a model."""


def task(photos: Path, out: Path, **hyperparameters: object) -> TrainingTask:
    (out / "work").mkdir(parents=True)
    (out / "run").mkdir()
    return TrainingTask(
        train_files=(str(photos / "few.gz"),),
        eval_files=(str(photos / "few.gz"),),
        hyperparameters={"image_size": 32, "epochs": 2, **hyperparameters},
        work_dir=out / "work",
        model_dir=out / "model",
        run_dir=out / "run",
    )


def test_fine_tuning_changes_the_last_blocks_alone(photos: Path, tmp_path: Path) -> None:
    tuned = task(photos, tmp_path, fine_tune_blocks=2, fine_tune_epochs=1)

    train_item_category(tuned)

    pretrained = efficientnet_lite0(32).get_weights()
    weights = [weight.numpy() for weight in tf.saved_model.load(str(tuned.model_dir)).weights]
    is_same = [np.array_equal(one, other) for one, other in zip(pretrained, weights, strict=False)]
    # Kernel and bias of block 15 (three convolutions) and of the top one are new; all before them stays.
    assert is_same == [True] * (len(pretrained) - 8) + [False] * 8
    history = json.loads((tuned.run_dir / "history.json").read_text())
    assert list(history["fits"]) == ["head", "fine_tuning"]


def test_scratch_trains_the_whole_network(photos: Path, tmp_path: Path) -> None:
    scratch = task(photos, tmp_path / "s", backbone="scratch", class_weights="balanced", epochs=1)

    train_item_category(scratch)

    history = json.loads((scratch.run_dir / "history.json").read_text())
    assert list(history["fits"]) == ["network"]
    assert history["photos"] == 24
    assert not list(scratch.work_dir.glob("*features*"))


def test_a_misspelt_hyperparameter_is_told(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        train_item_category(task(photos, tmp_path, learning_rat=0.1))


def test_an_empty_training_split_is_told(colours: ModuleType, photos: Path, tmp_path: Path) -> None:
    empty = colours.write(tmp_path / "train.gz", [])
    with pytest.raises(NoExamplesError, match="hold no records"):
        train_item_category(
            TrainingTask(
                train_files=(empty,),
                eval_files=(),
                hyperparameters={},
                work_dir=tmp_path,
                model_dir=tmp_path / "m",
                run_dir=tmp_path,
            )
        )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_colon", "is not 'package.module:function'"),
        ("mlplatform.nowhere:train", "no module 'mlplatform.nowhere'"),
        ("mlplatform.pipelines.item_category.model:trian", "no function 'trian'"),
    ],
)
def test_code_that_is_not_there_is_told(path: str, reason: str) -> None:
    with pytest.raises(RunFunctionError, match=reason):
        find_function(path)


def test_the_key_sees_files_and_hyperparameters(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12")
    key = training_key(MODEL, [str(file)], {"epochs": 1})

    assert key == training_key(MODEL, [str(file)], {"epochs": 1})
    assert key != training_key(MODEL, [str(file)], {"epochs": 2})
    file.write_bytes(b"123")
    assert key != training_key(MODEL, [str(file)], {"epochs": 1})


def test_two_processes_never_train_the_same_model_at_once(tmp_path: Path) -> None:
    with _held(tmp_path / "work"), pytest.raises(TrainingInProgressError), _held(tmp_path / "work"):
        pass
    with _held(tmp_path / "work"):
        pass  # free again


def test_code_that_writes_no_model_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("a_model")
    module.train = write_nothing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_model", module)

    with pytest.raises(NoModelError, match="a_model:train ended and wrote no SavedModel"):
        train(
            "a_model:train",
            train_files=[],
            eval_files=[],
            hyperparameters={},
            work_root=tmp_path / "work",
            model_dir=tmp_path / "model",
            run_dir=tmp_path / "run",
        )
