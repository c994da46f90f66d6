"""Fit a Keras model with checkpoints: killed at any moment, it resumes from the last one.

A checkpoint is a folder that appears in one step. It holds every number of the training: weights, optimizer
state, the best weights so far, history, and the place in the data (epoch and step), whose order is a function
of the epoch, so a resumed training sees the same batches as one that was never stopped.
"""

import json
import logging
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mlplatform.progress import Task, track
from mlplatform.training.monitoring import (
    Direction,
    Mode,
    direction_of,
    is_better,
    monitored,
    worst,
)

CHECKPOINT_EVERY_S = 120.0
MONITOR = "val_accuracy"

# Of files that are missing, cut, zeros or not what a checkpoint holds; any other error of the disk may pass.
_UNREADABLE = (FileNotFoundError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


@dataclass
class FitState:
    """How far a training is.

    Attributes:
        epoch: Epochs that are done.
        step: Batches of the next epoch that are done.
        history: One entry per epoch: Keras's metric names to their values.
        best_epoch: Epoch (from 0) of the best weights, -1 before there are any better than at the start.
        seconds: Time spent in fitting, over all processes.
        monitor: The metric that the epochs are judged by.
        direction: `max` where a higher value of it is better, `min` where a lower one is.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    seconds: float = 0.0
    monitor: str = MONITOR
    direction: Direction = "max"

    @property
    def best(self) -> float:
        """The monitored value of the best epoch; worse than any value before there is one."""
        before = worst(self.direction)
        return self.history[self.best_epoch].get(self.monitor, before) if self.best_epoch >= 0 else before


def fit(
    model: keras.Model,
    batches: Callable[[int], tf.data.Dataset],
    validation: tf.data.Dataset | None,
    *,
    epochs: int,
    steps: int,
    folder: Path,
    logs: Path,
    description: str,
    patience: int = 0,
    class_weights: Mapping[int, float] | None = None,
    monitor: str = MONITOR,
    mode: Mode = "auto",
    to_beat: float | None = None,
    on_checkpoint: Callable[[], None] | None = None,
) -> FitState:
    """Fit `model`, starting from what `folder` holds of the same fit; leaves the best weights in the model.

    Args:
        model: A compiled Keras model; its weights are the start where `folder` holds nothing.
        batches: Epoch number (from 0) to the batches of that epoch, always the same for the same number.
        validation: Batches to judge each epoch by; without them the last weights are the best.
        epochs: How many passes, at most.
        steps: Batches per epoch, for the progress line.
        folder: Where checkpoints are kept.
        logs: Folder of TensorBoard logs.
        description: What the progress line says.
        patience: Epochs without a better `monitor` before the fit ends; 0 for never.
        class_weights: Class number to the weight of its photos.
        monitor: Name of the metric to judge epochs by, as Keras reports it (`val_accuracy`, `val_loss`).
        mode: Which value of it is better: `max` the higher, `min` the lower; `auto` derives it from the
            name: higher for accuracy, AUC, precision, recall and the like, lower for losses and errors.
        to_beat: What `monitor` is before the fit: where no epoch is better, the model keeps the weights that
            it started with. Of no account without `validation`.
        on_checkpoint: Called after each checkpoint, such as a task's `save`.

    Raises:
        UnknownDirectionError: `mode` is `auto` and the name of the metric does not say which is better.
        MonitorNotFoundError: There is `validation`, and an epoch has no such metric.
    """
    direction = direction_of(monitor, mode) if validation is not None or mode != "auto" else "max"
    model.optimizer.build(model.trainable_variables)
    checkpoints = _Checkpoints(folder, model, on_checkpoint)
    progress = checkpoints.restore(monitor, direction)
    start = worst(direction) if to_beat is None else to_beat
    if to_beat is not None and checkpoints.is_empty():
        checkpoints.save(progress, is_best=True)
    writers = {name: tf.summary.create_file_writer(str(logs / name)) for name in ("train", "validation")}
    with track(description, total=epochs * steps, unit="batches") as bar:
        bar.advance(progress.epoch * steps + progress.step)
        while progress.epoch < epochs and not _is_over(progress, patience):
            epoch = progress.epoch
            started, spent = time.monotonic(), progress.seconds
            history = model.fit(
                batches(epoch).skip(progress.step),
                initial_epoch=epoch,
                epochs=epoch + 1,
                validation_data=validation,
                class_weight=dict(class_weights) if class_weights else None,
                callbacks=[_Steps(bar, progress, checkpoints)],
                verbose=0,
            ).history
            figures = {name: float(values[-1]) for name, values in history.items()}
            progress.history.append(figures)
            is_best = validation is None or (
                is_better(monitored(figures, monitor), progress.best, direction)
                and is_better(figures[monitor], start, direction)
            )
            if is_best:
                progress.best_epoch = epoch
            progress.epoch, progress.step = epoch + 1, 0
            progress.seconds = spent + time.monotonic() - started
            checkpoints.save(progress, is_best=is_best)
            _log(writers, epoch, figures)
            bar.note = f"{monitor} {figures.get(monitor, math.nan):.3f}"
    checkpoints.load_best()
    return progress


class _Steps(keras.callbacks.Callback):
    """Shows each batch, and keeps a checkpoint within long epochs."""

    def __init__(self, bar: Task, progress: FitState, checkpoints: "_Checkpoints") -> None:
        super().__init__()
        self._bar, self._progress, self._checkpoints = bar, progress, checkpoints
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._progress.step += 1
        self._bar.advance(1)
        if time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S:
            self._checkpoints.save(self._progress, is_best=False)
            self._saved_at = time.monotonic()


class _Checkpoints:
    """The newest checkpoint of one fit, as the folder `checkpoint-<epoch>-<step>`."""

    def __init__(
        self, folder: Path, model: keras.Model, on_checkpoint: Callable[[], None] | None = None
    ) -> None:
        self._folder, self._model, self._on_checkpoint = folder, model, on_checkpoint
        folder.mkdir(parents=True, exist_ok=True)

    def restore(self, monitor: str, direction: Direction) -> FitState:
        """Set the model to the newest checkpoint and return its progress.

        Where there is none, or only that of another network or of epochs judged by another metric, the fit
        begins anew. One that cannot be read, as a power cut leaves it, is as none.
        """
        anew = FitState(monitor=monitor, direction=direction)
        found = self._readable()
        if not found:
            return anew
        progress = _progress(found[-1])
        other = "" if _fits(self._variables(), found[-1] / "last.npz") else "another network"
        # Its best weights are the best by that metric: they cannot be compared with what comes now.
        if not other and (progress.monitor, progress.direction) != (monitor, direction):
            other = f"a fit judged by {progress.monitor} ({progress.direction})"
        if other:
            logging.getLogger(__name__).warning(
                "%s is the checkpoint of %s: the fit begins anew", found[-1], other
            )
            for checkpoint in found:
                shutil.rmtree(checkpoint)
            return anew
        _set(self._variables(), found[-1] / "last.npz")
        return progress

    def save(self, progress: FitState, *, is_best: bool) -> None:
        """Write a checkpoint and remove the one before."""
        older = self._found()
        partial = self._folder / ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        np.savez(partial / "last.npz", *[np.asarray(value) for value in self._variables()])
        if is_best:
            np.savez(partial / "best.npz", *[np.asarray(value) for value in self._model.variables])
        elif older and (older[-1] / "best.npz").exists():
            _copy(older[-1] / "best.npz", partial / "best.npz")
        (partial / "progress.json").write_text(json.dumps(asdict(progress)), "utf-8")
        target = self._folder / f"checkpoint-{progress.epoch:06d}-{progress.step:09d}"
        partial.rename(target)
        for checkpoint in older:
            if checkpoint != target:
                shutil.rmtree(checkpoint)
        if self._on_checkpoint is not None:
            self._on_checkpoint()

    def is_empty(self) -> bool:
        """Say whether there is no checkpoint yet."""
        return not self._found()

    def load_best(self) -> None:
        """Set the model to its best weights."""
        found = self._found()
        if found and (found[-1] / "best.npz").exists():
            _set(self._model.variables, found[-1] / "best.npz")

    def _readable(self) -> list[Path]:
        """Return the checkpoints, oldest first; removes those that cannot be read."""
        for checkpoint in self._found():
            try:
                _read_all(checkpoint)
            except _UNREADABLE as error:
                logging.getLogger(__name__).warning(
                    "%s cannot be read: the fit begins without it (%s)", checkpoint, error
                )
                shutil.rmtree(checkpoint)
        return self._found()

    def _found(self) -> list[Path]:
        return sorted(self._folder.glob("checkpoint-*"))

    def _variables(self) -> list[Any]:
        return [*self._model.variables, *self._model.optimizer.variables]


def _copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _read_all(checkpoint: Path) -> None:
    """Read every number of a checkpoint, checksums included, so that no later reading of it fails."""
    has_best = _progress(checkpoint).best_epoch >= 0 or (checkpoint / "best.npz").exists()
    for name in ("last.npz", "best.npz") if has_best else ("last.npz",):
        with np.load(checkpoint / name) as arrays:
            for array in arrays.files:
                arrays[array]


def _progress(checkpoint: Path) -> FitState:
    return FitState(**json.loads((checkpoint / "progress.json").read_text("utf-8")))


def _fits(variables: Sequence[Any], file: Path) -> bool:
    with np.load(file) as arrays:
        return [tuple(v.shape) for v in variables] == [arrays[name].shape for name in arrays.files]


def _set(variables: Sequence[Any], file: Path) -> None:
    with np.load(file) as arrays:
        for variable, name in zip(variables, arrays.files, strict=True):
            variable.assign(arrays[name])


def _is_over(progress: FitState, patience: int) -> bool:
    return 0 < patience <= progress.epoch - 1 - progress.best_epoch


def _log(writers: Mapping[str, Any], epoch: int, figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
        kind = "validation" if name.startswith("val_") else "train"
        with writers[kind].as_default(step=epoch):
            tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value)
    for writer in writers.values():
        writer.flush()
