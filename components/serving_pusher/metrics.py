"""What an evaluation measured, as a few figures that are kept with the pushed version."""

import json
import math
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.json"  # written by ModelValidator


def evaluated_metrics(evaluation: Path) -> dict[str, float]:
    """Return the figures of a ModelValidator's evaluation, by name.

    Of its `quality`, what is a number, or a share with a `value`, is a figure; the rest (classes, confused
    pairs) is not. An evaluation of something else, such as TFX's Evaluator, has none.

    Args:
        evaluation: Folder of the ModelEvaluation.
    """
    try:
        quality = json.loads((evaluation / METRICS_FILE).read_text("utf-8"))["quality"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    figures = {name: _figure(value) for name, value in quality.items()} if isinstance(quality, dict) else {}
    return {name: value for name, value in figures.items() if value is not None}


def _figure(value: Any) -> float | None:
    if isinstance(value, dict):
        value = value.get("value")
    is_number = type(value) in (int, float) and math.isfinite(value)
    return value if is_number else None
