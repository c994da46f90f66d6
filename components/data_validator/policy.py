"""What each kind of problem does: block, warn or ignore; and which ones are let through for a while."""

from collections.abc import Sequence
from datetime import date
from typing import Literal, get_args

from pydantic import Field

from mlplatform.config import Config
from mlplatform.waivers import Waiver, counting_on

Action = Literal["block", "warn", "ignore"]
Kind = Literal[
    "type_change",
    "missing_column",
    "missing_values",
    "missing_label",
    "unknown_value",
    "unknown_label",
    "out_of_range",
    "shape",
    "new_column",
    "distribution",
    "drift",
    "skew",
    "too_few_examples",
    "bad_schema",
    "custom",
    "untrained_label",
    "retired_label",
    "unlisted_label",
    "leak",
    "label_conflict",
    "duplicate",
    "near_leak",
    "near_duplicate",
    "other",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

Actions = dict[Kind, Action]


class DataWaiver(Waiver):
    """A problem that would block and is let through until a day.

    Attributes:
        kind: The kind of problem.
        feature: The feature; empty for a problem of the whole split.
        split: The split, or several as the verdict names them (`train, eval`); empty for any.
    """

    kind: Kind
    feature: str = ""
    split: str = ""

    def covers(self, kind: Kind, feature: str, split: str) -> bool:
        """Say whether it is about such a problem."""
        return (self.kind, self.feature) == (kind, feature) and self.split in ("", split)


class Policy(Config):
    """The action for each kind of problem, with exceptions for single features.

    Attributes:
        type_change: A feature has another type than the schema says.
        missing_column: A feature that the schema requires is in no record of a split.
        missing_values: A feature that the schema requires is missing in some records; where the schema is
            inferred, any feature.
        missing_label: The class is missing in some records.
        unknown_value: A value is not in the feature's domain.
        unknown_label: A class is not in the schema.
        out_of_range: A number is outside of the feature's domain, or is NaN or infinite.
        shape: A record has more or fewer values of a feature than the schema allows.
        new_column: A feature is not in the schema.
        distribution: How many different values there are is not what the schema asks.
        drift: A feature's distribution moved away from the baseline's.
        skew: Requests lack a feature that the training has, or have one that it lacks, or its distribution
            is another in what the model is asked in service.
        too_few_examples: A split has fewer or more records than the schema allows, or none.
        bad_schema: The schema contradicts itself, or asks for what cannot be checked.
        custom: A validation of the user's own, in the schema, says no.
        untrained_label: A class is in an evaluation split and not in the training split.
        retired_label: Records have a class under a name that the dataset's taxonomy gave up.
        unlisted_label: A class is not in the tree of the dataset's taxonomy.
        leak: The same photo, byte by byte, or the same key is in two splits.
        label_conflict: The same photo has two labels.
        duplicate: The same photo is in one split twice.
        near_leak: Photos that look alike, but differ in their bytes, are in two splits.
        near_duplicate: Photos that look alike, but differ in their bytes, are in one split.
        other: Anything else that TensorFlow Data Validation reports.
        features: Per feature, the actions that differ for it.
        waivers: Problems that would block and are let through for a while; see `on`.
    """

    type_change: Action = "block"
    missing_column: Action = "block"
    missing_values: Action = "warn"
    missing_label: Action = "block"
    unknown_value: Action = "warn"
    unknown_label: Action = "block"
    out_of_range: Action = "block"
    shape: Action = "block"
    new_column: Action = "warn"
    distribution: Action = "warn"
    drift: Action = "warn"
    skew: Action = "warn"
    too_few_examples: Action = "block"
    bad_schema: Action = "block"
    custom: Action = "block"
    untrained_label: Action = "warn"
    retired_label: Action = "warn"
    unlisted_label: Action = "warn"
    leak: Action = "block"
    label_conflict: Action = "warn"
    duplicate: Action = "warn"
    near_leak: Action = "warn"
    near_duplicate: Action = "warn"
    other: Action = "warn"
    features: dict[str, Actions] = Field(default={})
    waivers: Sequence[DataWaiver] = Field(default=())

    def action(self, kind: Kind, feature: str) -> Action:
        """Return what a problem of `feature` does; an empty name means the whole split."""
        by_kind: Action = getattr(self, kind)
        return self.features.get(feature, {}).get(kind, by_kind)

    def on(self, day: date) -> "Policy":
        """Return the policy without the waivers that are over on a day."""
        return self.model_copy(update={"waivers": counting_on(day, self.waivers)})

    def waiver(self, kind: Kind, feature: str, split: str) -> DataWaiver | None:
        """Return the waiver of a problem; None where there is none."""
        return next((each for each in self.waivers if each.covers(kind, feature, split)), None)


# The kinds of TensorFlow Data Validation's anomalies; one that a later release adds is `other`.
# Source: tensorflow_metadata/proto/v0/anomalies.proto
_ANOMALIES: dict[Kind, str] = {
    "type_change": """
        BOOL_TYPE_BYTES_NOT_INT BOOL_TYPE_BYTES_NOT_STRING BOOL_TYPE_FLOAT_NOT_INT
        BOOL_TYPE_FLOAT_NOT_STRING BOOL_TYPE_INT_NOT_STRING BOOL_TYPE_STRING_NOT_INT
        ENUM_TYPE_BYTES_NOT_STRING ENUM_TYPE_FLOAT_NOT_STRING ENUM_TYPE_INT_NOT_STRING
        ENUM_TYPE_INVALID_UTF8 FLOAT_TYPE_NOT_FLOAT FLOAT_TYPE_STRING_NOT_FLOAT
        FLOAT_TYPE_NON_STRING FLOAT_TYPE_UNKNOWN_TYPE_NUMBER INT_TYPE_INT_EXPECTED
        INT_TYPE_NOT_INT_STRING INT_TYPE_NOT_STRING INT_TYPE_STRING_EXPECTED
        INT_TYPE_UNKNOWN_TYPE_NUMBER STRING_TYPE_NOW_FLOAT STRING_TYPE_NOW_INT UNEXPECTED_DATA_TYPE
        VALUE_NESTEDNESS_MISMATCH""",
    "missing_column": "SCHEMA_MISSING_COLUMN FEATURE_TYPE_NOT_PRESENT",
    "missing_values": """
        FEATURE_TYPE_LOW_FRACTION_PRESENT FEATURE_TYPE_LOW_NUMBER_PRESENT FEATURE_TYPE_NO_VALUES
        SPARSE_FEATURE_MISSING_INDEX SPARSE_FEATURE_MISSING_VALUE WEIGHTED_FEATURE_MISSING_VALUE
        WEIGHTED_FEATURE_MISSING_WEIGHT""",
    "unknown_value": """
        BOOL_TYPE_UNEXPECTED_STRING BOOL_TYPE_UNEXPECTED_FLOAT ENUM_TYPE_UNEXPECTED_STRING_VALUES""",
    "out_of_range": """
        BOOL_TYPE_BIG_INT BOOL_TYPE_SMALL_INT FLOAT_TYPE_BIG_FLOAT FLOAT_TYPE_SMALL_FLOAT FLOAT_TYPE_HAS_NAN
        FLOAT_TYPE_HAS_INF INT_TYPE_BIG_INT INT_TYPE_SMALL_INT MAX_IMAGE_BYTE_SIZE_EXCEEDED""",
    "shape": """
        FEATURE_TYPE_HIGH_NUMBER_VALUES FEATURE_TYPE_LOW_NUMBER_VALUES FEATURE_TYPE_UNEXPECTED_REPEATED
        INVALID_FEATURE_SHAPE EMBEDDING_SHAPE_INVALID SPARSE_FEATURE_LENGTH_MISMATCH
        WEIGHTED_FEATURE_LENGTH_MISMATCH""",
    "new_column": "SCHEMA_NEW_COLUMN",
    "distribution": """
        FEATURE_TYPE_HIGH_UNIQUE FEATURE_TYPE_LOW_UNIQUE FEATURE_TYPE_NO_UNIQUE
        LOW_SUPPORTED_IMAGE_FRACTION FEATURE_COVERAGE_TOO_LOW FEATURE_COVERAGE_TOO_SHORT_AVG_TOKEN_LENGTH
        NLP_WRONG_LOCATION SEMANTIC_DOMAIN_UPDATE SEQUENCE_VALUE_TOO_FEW_OCCURRENCES
        SEQUENCE_VALUE_TOO_LARGE_FRACTION SEQUENCE_VALUE_TOO_MANY_OCCURRENCES
        SEQUENCE_VALUE_TOO_SMALL_FRACTION""",
    "drift": """
        COMPARATOR_L_INFTY_HIGH COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH COMPARATOR_CONTROL_DATA_MISSING
        COMPARATOR_TREATMENT_DATA_MISSING COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH
        SCHEMA_TRAINING_SERVING_SKEW COMPARATOR_LOW_NUM_EXAMPLES COMPARATOR_HIGH_NUM_EXAMPLES""",
    "too_few_examples": "DATASET_LOW_NUM_EXAMPLES DATASET_HIGH_NUM_EXAMPLES NO_DATA_IN_SPAN",
    "bad_schema": """
        BOOL_TYPE_INVALID_CONFIG DOMAIN_INVALID_FOR_TYPE FEATURE_MISSING_NAME FEATURE_MISSING_TYPE
        INVALID_SCHEMA_SPECIFICATION INVALID_DOMAIN_SPECIFICATION DERIVED_FEATURE_BAD_LIFECYCLE
        DERIVED_FEATURE_INVALID_SOURCE SPARSE_FEATURE_NAME_COLLISION WEIGHTED_FEATURE_NAME_COLLISION
        STATS_NOT_AVAILABLE""",
    "custom": "CUSTOM_VALIDATION",
}
# What is wrong with the class is a kind of its own.
KIND_FOR_LABEL: dict[Kind, Kind] = {"missing_values": "missing_label", "unknown_value": "unknown_label"}
KIND_OF_ANOMALY: dict[str, Kind] = {
    name: kind for kind, names in _ANOMALIES.items() for name in names.split()
}
