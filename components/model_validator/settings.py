"""What a model may cost, and what its answers are held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from mlplatform.config import Config, parse_config
from mlplatform.evaluation.classification import Classification
from mlplatform.evaluation.find import find_kind
from mlplatform.evaluation.kind import Kind
from mlplatform.evaluation.limits import Limits, parse_limits
from mlplatform.taxonomy import Taxonomy


class Budget(Config):
    """Cost of the exported model in a process of its own, on one thread of the CPU."""

    # 99th percentile of requests with one record.
    p99_latency_ms: float = Field(default=500.0, gt=0)
    # Loading the SavedModel, without the start of Python and TensorFlow.
    load_time_s: float = Field(default=60.0, gt=0)
    # Largest resident memory of the whole process, TensorFlow included.
    peak_memory_mb: float = Field(default=3000.0, gt=0)
    # Files of the SavedModel.
    model_size_mb: float = Field(default=500.0, gt=0)
    # Largest difference of a score between the exported model and its training, and between signatures; of a
    # number beyond 1 the share of it.
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


def parse_budget(values: Mapping[str, Any]) -> Budget:
    """Return a budget; ConfigError where a key is unknown or a value does not fit."""
    return parse_config(Budget, values, source="ModelValidator's budget")


@dataclass(frozen=True)
class Question:
    """What the model is to answer, and where the truth stands.

    Attributes:
        kind: Name or import path of the kind of answer.
        label: Feature with the truth.
        output: Name of the output that is the answer; None finds it by its name and shape.
        slices: Features, or combinations of them, whose values part the records.
        limits: What the figures of all records must reach.
        slice_limits: What those of each slice must reach.
        taxonomy: The design of the classes; None where none is declared, or the answer is not a class.
    """

    kind: str = "classification"
    label: str = "label"
    output: str | None = None
    slices: Sequence[Sequence[str]] = ()
    limits: Limits = field(default_factory=lambda: Limits({}, {}))
    slice_limits: Limits = field(default_factory=lambda: Limits({}, {}))
    taxonomy: Taxonomy | None = None

    @classmethod
    def of(
        cls,
        kind: str = "classification",
        label: str = "label",
        *,
        output: str | None = None,
        slices: Sequence[Sequence[str]] = (),
        thresholds: Mapping[str, Any] | None = None,
        slice_thresholds: Mapping[str, Any] | None = None,
        taxonomy: Taxonomy | None = None,
    ) -> "Question":
        """Return a question with thresholds as they are given to ModelValidator.

        Raises:
            UnknownKindError: There is no such kind.
            ConfigError: A key of the thresholds is unknown or a value does not fit.
        """
        found = find_kind(kind)
        limits = parse_limits(found, thresholds or {})
        of_slices = parse_limits(
            found,
            {"min_support": limits.min_support, **(slice_thresholds or {})},
            source="ModelValidator's slice_thresholds",
        )
        return cls(kind, label, output, slices, limits, of_slices, taxonomy)

    def find_kind(self) -> Kind:
        """Return the kind of answer, of the taxonomy's classes where it answers classes."""
        kind = find_kind(self.kind)
        if self.taxonomy is not None and isinstance(kind, Classification):
            return kind.with_taxonomy(self.taxonomy)
        return kind
