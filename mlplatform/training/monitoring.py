"""Which way a monitored metric gets better: up as an accuracy does, or down as a loss does."""

import math
import re
from collections.abc import Sequence
from typing import Literal

from mlplatform.training.errors import MonitorNotFoundError, UnknownDirectionError

Mode = Literal["auto", "max", "min"]
Direction = Literal["max", "min"]

# Names of Keras's metrics, or how they end; with several outputs Keras writes `<output>_<metric>`.
_HIGHER = (
    "accuracy",
    "acc",
    "auc",
    "prc",
    "precision",
    "recall",
    "f1",
    "f1_score",
    "fbeta_score",
    "iou",
    "io_u",
    "r2",
    "r2_score",
    "cosine_similarity",
    "ndcg",
    "map",
    "mrr",
    "pearson_correlation",
    "concordance_correlation",
    "true_positives",
    "true_negatives",
)
_LOWER = (
    "loss",
    "error",
    "mae",
    "mse",
    "rmse",
    "msle",
    "mape",
    "crossentropy",
    "cross_entropy",
    "divergence",
    "hinge",
    "logcosh",
    "log_cosh",
    "poisson",
    "perplexity",
    "false_positives",
    "false_negatives",
)


def direction_of(monitor: str, mode: Mode = "auto") -> Direction:
    """Return `max` where a higher value of the metric is better, `min` where a lower one is.

    Args:
        monitor: The metric's name as Keras reports it, such as `val_accuracy` or `val_loss`.
        mode: `max` or `min` state it; `auto` derives it from the name.

    Raises:
        UnknownDirectionError: `mode` is `auto` and the name says nothing, or `mode` is another word.
    """
    if mode in ("max", "min"):
        return mode
    name = re.sub(r"_\d+$", "", monitor.removeprefix("val_").lower())  # Keras numbers equal names
    if mode == "auto" and _ends(name, _HIGHER):
        return "max"
    if mode == "auto" and _ends(name, _LOWER):
        return "min"
    raise UnknownDirectionError(monitor, mode)


def is_better(value: float, best: float, direction: Direction) -> bool:
    """Whether `value` improves on `best`; a value that is not a number improves on nothing."""
    return value > best if direction == "max" else value < best


def worst(direction: Direction) -> float:
    """Return what every finite value is better than."""
    return -math.inf if direction == "max" else math.inf


def monitored(figures: dict[str, float], monitor: str) -> float:
    """Return the monitored value of an epoch.

    Raises:
        MonitorNotFoundError: The epoch has no such metric.
    """
    if monitor not in figures:
        raise MonitorNotFoundError(monitor, sorted(figures))
    return figures[monitor]


def _ends(name: str, words: Sequence[str]) -> bool:
    return any(name == word or name.endswith(f"_{word}") for word in words)
