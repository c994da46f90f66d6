"""The history of a training, as `history.json` in `model_run`: what reports and comparisons read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlplatform.training.fit import FitState

HISTORY_FILE = "history.json"


@dataclass(frozen=True)
class FitHistory:
    """One fit of a training.

    Attributes:
        best_epoch: Epoch (from 0) whose weights were kept; -1 where the start was better than all.
        epochs: Per epoch, Keras's metric names to their values.
    """

    best_epoch: int
    epochs: list[dict[str, float]]


def write_history(run_dir: Path, fits: "Mapping[str, FitState]", **facts: Any) -> None:
    """Write `history.json`: ModelValidator draws the training curve from it.

    Args:
        run_dir: The task's `run_dir`.
        fits: Name of each fit, in order, to what `fit` returned.
        facts: Anything else worth keeping; JSON values.
    """
    described = {
        name: {
            "best_epoch": fit.best_epoch,
            "monitor": fit.monitor,
            "direction": fit.direction,
            "seconds": round(fit.seconds, 1),
            "epochs": fit.history,
        }
        for name, fit in fits.items()
    }
    (run_dir / HISTORY_FILE).write_text(json.dumps({**facts, "fits": described}, indent=2), "utf-8")


def read_history(run_dir: Path) -> dict[str, FitHistory]:
    """Return the fits of a training by name; empty where its code wrote no history of this form."""
    file = run_dir / HISTORY_FILE
    if not file.is_file():
        return {}
    try:
        fits = json.loads(file.read_text("utf-8"))["fits"]
        return {
            name: FitHistory(
                int(fit["best_epoch"]),
                [{metric: float(value) for metric, value in epoch.items()} for epoch in fit["epochs"]],
            )
            for name, fit in fits.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):  # a training program may write what it likes
        return {}
