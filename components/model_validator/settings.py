"""What a model must reach, and what it may cost."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from mlplatform.config import Config, parse_config


class Thresholds(Config):
    """Quality on the evaluation splits; shares are 0 to 1."""

    # Shares of photos whose class is the first, among the first three, among the first five answers.
    top_1: float = Field(default=0.0, ge=0, le=1)
    top_3: float = Field(default=0.0, ge=0, le=1)
    top_5: float = Field(default=0.0, ge=0, le=1)
    # Lowest share of a class's photos that are answered right, for classes with at least min_support photos.
    per_class_recall: float = Field(default=0.0, ge=0, le=1)
    min_support: int = Field(default=20, ge=1)
    # How far top-1 may fall below the baseline model's on the same photos.
    max_top_1_drop: float = Field(default=0.02, ge=0, le=1)


class Budget(Config):
    """Cost of the exported model in a process of its own, on CPU."""

    # 99th percentile of single-photo requests with image bytes.
    p99_latency_ms: float = Field(default=500.0, gt=0)
    # Loading the SavedModel, without the start of Python and TensorFlow.
    load_time_s: float = Field(default=60.0, gt=0)
    # Largest resident memory of the whole process, TensorFlow included.
    peak_memory_mb: float = Field(default=3000.0, gt=0)
    # Files of the SavedModel.
    model_size_mb: float = Field(default=500.0, gt=0)
    # Largest difference of a score between the exported model and its training, and between signatures.
    score_tolerance: float = Field(default=1e-3, gt=0)
    # Where the model carries a TensorFlow Lite form: largest difference of a score from the SavedModel's, and
    # largest share of photos whose first class differs. int8 moves scores; float hardly does.
    tflite_score_tolerance: float = Field(default=0.3, gt=0)
    tflite_disagreement: float = Field(default=0.1, ge=0, le=1)
    # Where the model asks to be served in bfloat16: likewise.
    bfloat16_score_tolerance: float = Field(default=0.15, gt=0)
    bfloat16_disagreement: float = Field(default=0.05, ge=0, le=1)
    # The whole check.
    time_limit_s: float = Field(default=300.0, gt=0)


def parse_thresholds(values: Mapping[str, Any]) -> Thresholds:
    """Return thresholds; ConfigError where a key is unknown or a value does not fit."""
    return parse_config(Thresholds, values, source="ModelValidator's thresholds")


def parse_budget(values: Mapping[str, Any]) -> Budget:
    """Return a budget; ConfigError where a key is unknown or a value does not fit."""
    return parse_config(Budget, values, source="ModelValidator's budget")
