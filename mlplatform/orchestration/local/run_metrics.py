"""The metrics of a run: what its gates measured, read from the artifacts that they wrote."""

import json
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
    for node in record.nodes:
        for artifact in (each for given in node.outputs.values() for each in given):
            if artifact.type == "ModelEvaluation" and is_local(artifact.uri):
                found = _figures(Path(artifact.uri.removeprefix("file://")) / METRICS_FILE) or found
    return found


def _figures(file: Path) -> dict[str, float]:
    try:
        document = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    quality = document.get("quality") if isinstance(document, dict) else None
    values = quality.items() if isinstance(quality, dict) else ()
    return {name: number for name, value in values if (number := _number(value)) is not None}


def _number(value: Any) -> float | None:
    """Return a figure, also where it comes with its interval."""
    if isinstance(value, dict):
        value = value.get("value")
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
