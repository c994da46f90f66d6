"""The metrics of a run: what its gates measured, read from the artifacts that they wrote."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlplatform.orchestration.local.records import RunRecord
from mlplatform.storage.urls import is_local

METRICS_FILE = "metrics.json"  # in a `ModelEvaluation` of ours


def run_metrics(record: RunRecord) -> dict[str, float]:
    """Return the figures of the model that a run evaluated, by name; none where it evaluated none.

    Of more than one model, the last in the order of the nodes counts. An evaluation that is deleted or
    damaged, or that another tool wrote, has none.
    """
    found: dict[str, float] = {}
    for file in _evaluations(record):
        found = _figures(file) or found
    return found


def run_intervals(record: RunRecord) -> dict[str, tuple[float, float]]:
    """Return the confidence intervals of the figures that have one, as `run_metrics` finds the figures."""
    found: dict[str, tuple[float, float]] = {}
    for file in _evaluations(record):
        quality = _quality(file)
        ends = {name: (_number(of.get("low")), _number(of.get("high"))) for name, of in quality.items()
                if isinstance(of, dict)}  # fmt: skip
        whole = {
            name: (low, high) for name, (low, high) in ends.items() if low is not None and high is not None
        }
        found = whole if quality else found
    return found


def _evaluations(record: RunRecord) -> Iterator[Path]:
    for node in record.nodes:
        for artifact in (each for given in node.outputs.values() for each in given):
            if artifact.type == "ModelEvaluation" and is_local(artifact.uri):
                yield Path(artifact.uri.removeprefix("file://")) / METRICS_FILE


def _quality(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    quality = document.get("quality") if isinstance(document, dict) else None
    return quality if isinstance(quality, dict) else {}


def _figures(file: Path) -> dict[str, float]:
    values = _quality(file).items()
    return {name: number for name, value in values if (number := _number(value)) is not None}


def _number(value: Any) -> float | None:
    """Return a figure, also where it comes with its interval."""
    if isinstance(value, dict):
        value = value.get("value")
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
