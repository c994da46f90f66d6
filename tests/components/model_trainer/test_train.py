"""Running a model's code: found, keyed, held, and taken up again after a kill."""

import csv
import dataclasses
import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlplatform.components.model_trainer.errors import (
    NoModelError,
    RunFunctionError,
    TrainingInProgressError,
)
from mlplatform.components.model_trainer.train import find_function, train
from mlplatform.components.model_trainer.unfinished import held
from mlplatform.components.model_validator.serving_check import check_serving
from mlplatform.components.model_validator.settings import Budget
from mlplatform.config import ConfigError
from mlplatform.demo.photos import make_photos
from mlplatform.serving.saved_model import load
from mlplatform.serving.search import embedding_run
from mlplatform.training.errors import NoEvaluationExamplesError, NoExamplesError, TooFewClassesError
from mlplatform.training.image_classifier import train as train_item_category
from mlplatform.training.task import TrainingTask
from mlplatform.vision.decoding import decode_batch
from mlplatform.vision.efficientnet_lite import efficientnet_lite0
from mlplatform.vision.examples import UnreadablePhotoError, sample_records
from mlplatform.vision.fine_tuning import NoBlocksError
from mlplatform.vision.signatures import LabelError
from mlplatform.vision.small_cnn import small_cnn

pytestmark = pytest.mark.usefixtures("quick_probes")

MODEL = "mlplatform.training.image_classifier:train"
SETTINGS = {
    "image_size": 32,
    "epochs": 8,
    "learning_rate": 0.01,
    "patience": 0,
    "batch_size": 16,
    "fine_tune_blocks": 1,
    "fine_tune_epochs": 2,
}

# What a component's process does, with shards of one batch, so that there is something to kill. It kills
# itself before it gives a file or folder the name that the last argument, a pattern, matches.
TRAIN = f"""
import json, os, signal, sys
from pathlib import Path
from mlplatform.training import fit
from mlplatform.vision import features
features.SHARD_PHOTOS = 32
fit.CHECKPOINT_EVERY_S = 0.0
from mlplatform.components.model_trainer.train import train

def until_killed(move):
    def moved(path, target):
        if sys.argv[4] and Path(target).match(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
        return move(path, target)
    return moved

Path.rename, Path.replace = until_killed(Path.rename), until_killed(Path.replace)
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
train({MODEL!r}, train_files=[str(folder / "train.gz")], eval_files=[str(folder / "eval.gz")],
      hyperparameters=json.loads(sys.argv[3]), work_root=out / "work", model_dir=out / "model",
      run_dir=out / "run")
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


@pytest.fixture
def start(warm_processes: Any, photos: Path, network: str) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Start a training in a process of its own, which ends before it writes what `killed_before` matches."""

    def start(out: Path, killed_before: str = "") -> "subprocess.Popen[bytes]":
        out.mkdir(parents=True, exist_ok=True)
        settings = json.dumps({**SETTINGS, "backbone": network})
        with (out / "log").open("ab") as log:
            command = [sys.executable, "-c", TRAIN, str(photos), str(out), settings, killed_before]
            return warm_processes.Popen(command, stdout=log, stderr=log)

    return start


def fits(out: Path) -> dict[str, list[dict[str, float]]]:
    """The figures of each fit's epochs."""
    history = json.loads((out / "run" / "history.json").read_text())
    return {name: fit["epochs"] for name, fit in history["fits"].items()}


@pytest.mark.slow
def test_killed_in_every_part_it_ends_with_the_same_model(
    start: Callable[..., "subprocess.Popen[bytes]"], photos: Path, tmp_path: Path
) -> None:
    """Killed in the features, the head, the middle of an epoch of fine-tuning, and the export.

    Also the random changes of photos are the same after a kill in the middle of an epoch.
    """
    undisturbed = start(tmp_path / "one")

    out = tmp_path / "two"

    def kill(before: str) -> None:
        assert start(out, before).wait(timeout=240) == -signal.SIGKILL, (out / "log").read_text()

    kill("train-features/features-000002.npz")
    shards = lambda: sorted(out.glob("work/*/train-features/features-*.npz"))  # noqa: E731
    kept = {shard: shard.stat().st_mtime_ns for shard in shards()}
    assert len(kept) == 2
    kill("head/checkpoint-000003-*")
    assert len(shards()) == 4
    assert all(shard.stat().st_mtime_ns == written for shard, written in kept.items())
    kill("network/checkpoint-000001-000000002")
    assert not (out / "model").exists()
    kill("two/model")
    assert not (out / "model").exists()
    assert start(out).wait(timeout=240) == 0, (out / "log").read_text()
    assert undisturbed.wait(timeout=240) == 0, (tmp_path / "one" / "log").read_text()

    one, two = fits(tmp_path / "one"), fits(out)
    for name, epochs in (("head", 8), ("fine_tuning", 2)):
        assert len(one[name]) == len(two[name]) == epochs
        np.testing.assert_allclose(
            [e["val_loss"] for e in one[name]], [e["val_loss"] for e in two[name]], atol=5e-3
        )
    records = tf.constant(list(tf.data.TFRecordDataset(str(photos / "eval.gz"), "GZIP").as_numpy_iterator()))
    answers = [
        tf.saved_model.load(str(folder / "model")).signatures["serving_default"](examples=records)
        for folder in (tmp_path / "one", out)
    ]
    np.testing.assert_allclose(answers[0]["probabilities"], answers[1]["probabilities"], atol=5e-3)
    assert two["head"][-1]["val_loss"] < two["head"][0]["val_loss"]
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


@pytest.mark.slow
def test_fine_tuning_changes_the_last_blocks_alone(photos: Path, tmp_path: Path) -> None:
    tuned = task(photos, tmp_path, fine_tune_blocks=2, fine_tune_epochs=1, embedding_dimensions=12)

    train_item_category(dataclasses.replace(tuned, eval_files=()))  # nothing to judge by: the last are kept

    pretrained = efficientnet_lite0(32).get_weights()
    model = tf.saved_model.load(str(tuned.model_dir))
    weights = [weight.numpy() for weight in model.weights]
    is_same = [np.array_equal(one, other) for one, other in zip(pretrained, weights, strict=False)]
    # Kernel and bias of block 15 (three convolutions) and of the top one are new; all before them stays.
    assert is_same == [True] * (len(pretrained) - 8) + [False] * 8
    history = json.loads((tuned.run_dir / "history.json").read_text())
    assert list(history["fits"]) == ["head", "fine_tuning"]
    # It embeds, too, with all three kinds of input, and servers and indexes take it for an embedder.
    signatures = model.signatures
    assert {"serving_default", "embed", "embed_image_bytes", "embed_pixels"} <= set(signatures)
    records = sample_records([str(photos / "few.gz")], 6)
    encoded = [tf.train.Example.FromString(one).features.feature["image/encoded"] for one in records]
    content = [one.bytes_list.value[0] for one in encoded]
    vectors = embedding_run(load(tuned.model_dir, "classifier", 1))(content)
    assert vectors.shape == (6, 12)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors @ vectors.T)[~np.eye(6, dtype=bool)].max() < 0.999
    by_example = signatures["embed"](examples=tf.constant(records))["embedding"]
    np.testing.assert_allclose(by_example, vectors, atol=1e-3)
    by_pixels = signatures["embed_pixels"](images=decode_batch(tf.constant(content), 32))["embedding"]
    np.testing.assert_allclose(by_pixels, vectors, atol=1e-3)


def test_fine_tuning_that_makes_the_model_worse_changes_nothing(
    photos: Path, network: str, tmp_path: Path
) -> None:
    spoilt = task(
        photos,
        tmp_path,
        backbone=network,
        epochs=8,
        batch_size=4,
        learning_rate=0.01,
        fine_tune_blocks=1,
        fine_tune_epochs=1,
        fine_tune_learning_rate=50.0,
    )

    train_item_category(spoilt)

    fits = json.loads((spoilt.run_dir / "history.json").read_text())["fits"]
    best = fits["head"]["epochs"][fits["head"]["best_epoch"]]["val_accuracy"]
    assert fits["fine_tuning"]["epochs"][0]["val_accuracy"] < best
    assert fits["fine_tuning"]["best_epoch"] == -1
    pretrained = keras.saving.load_model(network).get_weights()
    weights = [weight.numpy() for weight in tf.saved_model.load(str(spoilt.model_dir)).weights]
    assert all(np.array_equal(one, other) for one, other in zip(pretrained, weights, strict=False))


@pytest.mark.slow
def test_scratch_trains_the_whole_network(photos: Path, tmp_path: Path) -> None:
    scratch = task(photos, tmp_path / "s", backbone="scratch", class_weights="balanced", epochs=1)

    train_item_category(scratch)

    history = json.loads((scratch.run_dir / "history.json").read_text())
    assert list(history["fits"]) == ["network"]
    assert history["photos"] == 24
    assert not list(scratch.work_dir.glob("*features*"))


def test_what_cannot_be_trained_or_judged_is_told_before_anything_is_computed(
    colours: ModuleType, photos: Path, tmp_path: Path
) -> None:
    write, examples = colours.write, colours.examples
    two = write(tmp_path / "two.gz", examples(2, ["red", "blue"]))
    odd = [colours.example(colours.encode("red"), label, label) for label in ("red", "two\nlines")]
    cases: list[tuple[str, str, dict[str, object], type[Exception], str]] = [
        (write(tmp_path / "one.gz", examples(2, ["red"])), two, {}, TooFewClassesError, r"one class \(red\)"),
        (
            two,
            write(tmp_path / "g.gz", examples(2, ["green"])),
            {},
            NoEvaluationExamplesError,
            "other classes",
        ),
        (two, write(tmp_path / "none.gz", []), {}, NoEvaluationExamplesError, "no records"),
        (write(tmp_path / "odd.gz", odd), two, {}, LabelError, "line break"),
    ]
    small_cnn(32).save(tmp_path / "mine.keras")
    mine = {"backbone": str(tmp_path / "mine.keras"), "fine_tune_blocks": 1, "image_size": 32}
    cases.append((two, two, mine, NoBlocksError, "not named by blocks"))
    for number, (train_file, eval_file, settings, error, says) in enumerate(cases):
        work = tmp_path / str(number)
        work.mkdir()
        with pytest.raises(error, match=says):
            train_item_category(
                TrainingTask(
                    train_files=(train_file,),
                    eval_files=(eval_file,),
                    hyperparameters=settings,
                    work_dir=work,
                    model_dir=work / "model",
                    run_dir=work,
                )
            )
        assert not list(work.iterdir())


@pytest.mark.parametrize(("form", "precision"), [("float", "bfloat16"), ("int8", "none")])
@pytest.mark.slow
def test_other_engines_are_exported_checked_and_served(
    photos: Path, network: str, tmp_path: Path, form: str, precision: str
) -> None:
    with_forms = task(photos, tmp_path, backbone=network, epochs=1, tflite=form, mixed_precision=precision)

    train_item_category(with_forms)

    samples = [tf.train.Example.FromString(r) for r in sample_records([str(photos / "eval.gz")], 16)]
    check = check_serving(with_forms.model_dir, samples, Budget())
    assert check.reasons == []
    is_bfloat16 = precision == "bfloat16"
    findings = {f.name for f in check.findings}
    assert "TensorFlow Lite, pixels" in findings
    assert ("bfloat16, image_bytes" in findings) == is_bfloat16
    served = load(with_forms.model_dir, "items", 1, prefers_tflite=True)
    engine = "tensorflow-bfloat16" if is_bfloat16 else "tensorflow"
    assert {name: s.engine for name, s in served.signatures.items()} == {
        "serving_default": engine,
        "image_bytes": engine,
        "pixels": "tflite",
    }


@pytest.mark.parametrize("split", ["train", "eval"])
def test_an_unreadable_photo_is_named_where_the_network_learns_from_photos(
    colours: ModuleType, tmp_path: Path, split: str
) -> None:
    good = colours.examples(4)
    files = {
        name: colours.write(tmp_path / f"{name}.gz", [*good, colours.example(b"text", "red", "broken-one")])
        if name == split
        else colours.write(tmp_path / f"{name}.gz", good)
        for name in ("train", "eval")
    }
    with pytest.raises(UnreadablePhotoError, match="cannot decode the photo of item 'broken-one'"):
        train_item_category(
            TrainingTask(
                train_files=(files["train"],),
                eval_files=(files["eval"],),
                hyperparameters={"backbone": "scratch", "image_size": 32, "epochs": 1},
                work_dir=tmp_path,
                model_dir=tmp_path / "model",
                run_dir=tmp_path,
            )
        )


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
        ("a/file.py:train", "is not 'package.module:function'"),
        ("module:train()", "is not 'package.module:function'"),
        ("mlplatform.nowhere:train", "no module 'mlplatform.nowhere'"),
        ("mlplatform.training.image_classifier:trian", "no function 'trian'"),
    ],
)
def test_code_that_is_not_there_is_told(path: str, reason: str) -> None:
    with pytest.raises(RunFunctionError, match=reason):
        find_function(path)


UNFINISHED = """
from a_network import WIDTH

def train(task):
    (task.work_dir / "half a model").touch()
    raise RuntimeError(sorted(p.name for p in task.work_dir.iterdir()))
"""


def test_an_unfinished_training_is_taken_up_with_the_same_code_files_and_settings_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a_model.py").write_text(UNFINISHED)
    network, data = tmp_path / "code" / "a_network.py", tmp_path / "data"
    network.write_text("WIDTH = 1")
    data.write_bytes(b"12")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    for name in ("a_model", "a_network"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()

    def folders(epochs: int = 1) -> int:
        with pytest.raises(RuntimeError, match="half a model"):
            train(
                "a_model:train",
                train_files=[str(data)],
                eval_files=[],
                hyperparameters={"epochs": epochs},
                work_root=tmp_path / "work",
                model_dir=tmp_path / "model",
                run_dir=tmp_path / "run",
            )
        return len(list((tmp_path / "work").iterdir()))

    assert [folders(), folders(), folders(epochs=2), folders()] == [1, 1, 2, 2]
    network.write_text("WIDTH = 2")  # which the model's code imports
    assert [folders(), folders()] == [3, 3]
    data.write_bytes(b"123")
    assert folders() == 4


def test_two_processes_never_train_the_same_model_at_once(tmp_path: Path) -> None:
    with held(tmp_path / "work"), pytest.raises(TrainingInProgressError), held(tmp_path / "work"):
        pass
    with held(tmp_path / "work"):
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
