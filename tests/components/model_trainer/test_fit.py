"""The training loop: stopped anywhere, it ends where an undisturbed one ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlplatform.training import fit as fit_module
from mlplatform.training.errors import MonitorNotFoundError, UnknownDirectionError
from mlplatform.training.fit import FitState, fit
from mlplatform.training.monitoring import direction_of

RANDOM = np.random.default_rng(0)
POINTS = RANDOM.normal(size=(96, 4)).astype(np.float32)
CLASSES = (POINTS[:, 0] + POINTS[:, 1] > 0).astype(np.int32)


def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(2)]
    )
    network.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return network


def batches(epoch: int) -> tf.data.Dataset:
    order = np.random.default_rng(epoch).permutation(64)
    return tf.data.Dataset.from_tensor_slices((POINTS[order], CLASSES[order])).batch(8)


VALIDATION = tf.data.Dataset.from_tensor_slices((POINTS[64:], CLASSES[64:])).batch(16)


def run(network: keras.Model, folder: Path, **changes: Any) -> FitState:
    settings = {"batches": batches, "validation": VALIDATION, "epochs": 4, "steps": 8, **changes}
    return fit(
        network,
        settings.pop("batches"),
        settings.pop("validation"),
        folder=folder / "checkpoints",
        logs=folder / "logs",
        description="fit",
        **settings,
    )


def killed_in(epoch: int, step: int) -> Any:
    """Return batches that end the process at a step of an epoch."""

    def dying(number: int) -> tf.data.Dataset:
        if number != epoch:
            return batches(number)

        def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for place, (points, classes) in enumerate(batches(number).as_numpy_iterator()):
                if place == step:
                    raise RuntimeError("killed here")
                yield points, classes

        signature = (tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None], tf.int32))
        return tf.data.Dataset.from_generator(rows, output_signature=signature)

    return dying


@pytest.mark.parametrize("every_s", [0.0, 1e9], ids=["checkpoints within epochs", "checkpoints at their end"])
def test_a_resumed_fit_ends_where_an_undisturbed_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: float
) -> None:
    monkeypatch.setattr(fit_module, "CHECKPOINT_EVERY_S", every_s)
    undisturbed, resumed = model(), model()
    expected = run(undisturbed, tmp_path / "one")

    for epoch, step in ((1, 5), (3, 2)):
        with pytest.raises((tf.errors.OpError, RuntimeError)):
            run(resumed, tmp_path / "two", batches=killed_in(epoch, step))
        resumed = model()  # the new process has nothing but the files
    progress = run(resumed, tmp_path / "two")

    assert progress.epoch == expected.epoch
    assert progress.best_epoch == expected.best_epoch
    for one, other in zip(undisturbed.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    values = [[epoch["val_loss"] for epoch in p.history] for p in (expected, progress)]
    np.testing.assert_allclose(values[0], values[1], atol=1e-5)


def test_a_finished_fit_is_not_done_again(tmp_path: Path) -> None:
    first = model()
    run(first, tmp_path)
    second = model()

    progress = run(second, tmp_path, batches=killed_in(0, 0))

    assert progress.epoch == 4
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_ends_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    network = model()

    progress = run(network, tmp_path, epochs=60, patience=3)

    accuracies = [epoch["val_accuracy"] for epoch in progress.history]
    assert len(accuracies) < 60
    assert progress.best_epoch == int(np.argmax(accuracies))
    assert len(accuracies) == progress.best_epoch + 4
    found = (network.predict(POINTS[64:], verbose=0).argmax(axis=1) == CLASSES[64:]).mean()
    assert found == pytest.approx(max(accuracies), abs=1e-6)


def test_without_validation_the_last_weights_stay(tmp_path: Path) -> None:
    progress = run(model(), tmp_path, validation=None, patience=1)

    assert progress.epoch == 4
    assert progress.best_epoch == 3


def test_class_weights_move_the_answer(tmp_path: Path) -> None:
    plain, weighted = model(), model()
    run(plain, tmp_path / "plain")
    run(weighted, tmp_path / "weighted", class_weights={0: 1.0, 1: 50.0})

    def ones(network: keras.Model) -> int:
        return int(network.predict(POINTS, verbose=0).argmax(axis=1).sum())

    assert ones(weighted) > ones(plain)


def test_tensorboard_reads_the_logs(tmp_path: Path) -> None:
    run(model(), tmp_path)

    for name in ("train", "validation"):
        (file,) = (tmp_path / "logs" / name).iterdir()
        tags = {
            value.tag
            for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
            for value in tf.compat.v1.Event.FromString(record).summary.value
        }
        assert tags == {"epoch_loss", "epoch_accuracy"}


def test_the_checkpoint_of_another_network_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(model(), tmp_path, epochs=2)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)])
    other.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )

    progress = run(other, tmp_path, epochs=2)

    assert len(progress.history) == 2
    assert "is the checkpoint of another network: the fit begins anew" in caplog.text
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-000002-000000000"]


@pytest.mark.parametrize("file", ["last.npz", "best.npz", "progress.json"])
@pytest.mark.parametrize("problem", ["empty", "zeros", "missing"])
def test_a_checkpoint_that_cannot_be_read_is_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, problem: str
) -> None:
    run(model(), tmp_path, epochs=2)
    hurt = tmp_path / "checkpoints" / "checkpoint-000002-000000000" / file
    size = hurt.stat().st_size
    hurt.unlink()
    if problem != "missing":
        hurt.write_bytes(bytes(size if problem == "zeros" else 0))
    anew, expected = model(), model()

    progress = run(anew, tmp_path, epochs=1)
    run(expected, tmp_path / "undisturbed", epochs=1)

    assert progress.epoch == len(progress.history) == 1
    assert caplog.text.count("cannot be read") == 1
    for one, other in zip(expected.get_weights(), anew.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-000001-000000000"]


def test_the_checkpoint_before_an_unreadable_one_is_taken(tmp_path: Path) -> None:
    run(model(), tmp_path, epochs=2)
    hurt = tmp_path / "checkpoints" / "checkpoint-000003-000000000"
    hurt.mkdir()
    (hurt / "last.npz").touch()

    progress = run(model(), tmp_path, epochs=2, batches=killed_in(0, 0))

    assert progress.epoch == 2


def test_checkpoints_need_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("this file system has none")

    monkeypatch.setattr("os.link", no_links)
    progress = run(model(), tmp_path)

    assert progress.epoch == 4
    assert (tmp_path / "checkpoints" / "checkpoint-000004-000000000" / "best.npz").is_file()


def test_a_torn_checkpoint_is_not_taken(tmp_path: Path) -> None:
    network = model()
    run(network, tmp_path, epochs=2)
    torn = tmp_path / "checkpoints" / ".partial"
    torn.mkdir()
    (torn / "last.npz").write_bytes(b"half")

    progress = run(model(), tmp_path, epochs=3)

    assert progress.epoch == 3
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-000003-000000000"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_fit_that_beats_nothing_leaves_the_weights_that_were_there(tmp_path: Path, is_killed: bool) -> None:
    network = model()
    before = network.get_weights()
    if is_killed:
        with pytest.raises(tf.errors.UnknownError, match="killed here"):
            run(network, tmp_path, to_beat=1.0, batches=killed_in(1, 3))
        network = model()
    progress = run(network, tmp_path, to_beat=1.0, patience=3)
    assert (progress.epoch, progress.best_epoch) == (3, -1)
    assert all(np.array_equal(one, other) for one, other in zip(before, network.get_weights(), strict=True))


def measured(
    network: keras.Model, folder: Path, monitor: str, **changes: Any
) -> tuple[FitState, list[float]]:
    """Fit with growing steps, so that the loss gets worse, and return what the epochs were judged by."""
    network.compile(
        keras.optimizers.SGD(3.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseCategoricalCrossentropy(name="oddity", from_logits=True),
        ],
    )
    progress = run(network, folder, monitor=monitor, epochs=6, **changes)
    return progress, [epoch[monitor] for epoch in progress.history]


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("val_loss", "auto"), ("val_accuracy", "auto"), ("val_oddity", "min"), ("val_oddity", "max")],
)
def test_the_best_epoch_is_the_best_by_the_monitored_metric(tmp_path: Path, monitor: str, mode: str) -> None:
    network = model()

    progress, values = measured(network, tmp_path, monitor, mode=mode)

    is_lower = monitor == "val_loss" or mode == "min"
    assert len(set(values)) > 1
    assert progress.best_epoch == int(np.argmin(values) if is_lower else np.argmax(values))
    assert progress.best == (min(values) if is_lower else max(values))
    kept = network.evaluate(VALIDATION, verbose=0, return_dict=True)
    assert kept[monitor.removeprefix("val_")] == pytest.approx(progress.best, rel=1e-4)


def test_a_resumed_fit_still_knows_which_way_is_better(tmp_path: Path) -> None:
    expected, values = measured(model(), tmp_path / "one", "val_loss")
    with pytest.raises((tf.errors.OpError, RuntimeError)):
        measured(model(), tmp_path / "two", "val_loss", batches=killed_in(4, 2))
    resumed, again = measured(model(), tmp_path / "two", "val_loss")
    assert (resumed.best_epoch, resumed.direction) == (expected.best_epoch, "min")
    np.testing.assert_allclose(again, values, rtol=1e-4)


def test_a_fit_judged_by_another_metric_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(model(), tmp_path, epochs=2)
    progress = run(model(), tmp_path, epochs=2, monitor="val_loss")
    assert (len(progress.history), progress.monitor, progress.direction) == (2, "val_loss", "min")
    assert "is the checkpoint of a fit judged by val_accuracy (max): the fit begins anew" in caplog.text


def test_a_fit_that_must_beat_a_loss_keeps_the_start_where_none_is_lower(tmp_path: Path) -> None:
    network = model()
    before = network.get_weights()
    progress = run(network, tmp_path, monitor="val_loss", to_beat=1e-9, epochs=2)
    assert progress.best_epoch == -1
    assert all(np.array_equal(one, other) for one, other in zip(before, network.get_weights(), strict=True))


def test_a_metric_of_unknown_direction_or_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownDirectionError, match="mode='max' or mode='min'"):
        run(model(), tmp_path / "a", monitor="val_oddity")
    assert not (tmp_path / "a").exists()  # before anything is computed
    with pytest.raises(UnknownDirectionError, match="mode is 'up'"):
        run(model(), tmp_path / "b", mode="up")
    with pytest.raises(
        MonitorNotFoundError, match=r"no metric 'val_auc' .*; it has accuracy, loss, val_accur"
    ):
        run(model(), tmp_path / "c", monitor="val_auc")


@pytest.mark.parametrize(
    ("monitor", "direction"),
    [
        ("val_accuracy", "max"),
        ("val_top_3_accuracy", "max"),
        ("val_auc_1", "max"),
        ("val_precision_at_recall", "max"),
        ("val_mean_io_u", "max"),
        ("val_color_accuracy", "max"),
        ("loss", "min"),
        ("val_mean_absolute_error", "min"),
        ("val_root_mean_squared_error_2", "min"),
        ("val_price_mae", "min"),
        ("val_kl_divergence", "min"),
        ("val_accuracy_loss", "min"),  # the loss of an output that is called accuracy
    ],
)
def test_the_name_of_a_metric_says_which_way_is_better(monitor: str, direction: str) -> None:
    assert direction_of(monitor) == direction
