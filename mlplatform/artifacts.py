"""The artifact types that TFX has no standard type for."""

from tfx.types.artifact import Artifact, Property, PropertyType


class DatasetVersion(Artifact):
    """An immutable version of a dataset in the store: `version.json` at its URI names it."""

    TYPE_NAME = "DatasetVersion"
    PROPERTIES = {  # noqa: RUF012 - TFX reads the class attribute
        "dataset": Property(type=PropertyType.STRING),
        "version": Property(type=PropertyType.STRING),
        "digest": Property(type=PropertyType.STRING),
    }


class DataVerdict(Artifact):
    """What the data gate decided and why: `verdict.json` and `report.html` at its URI."""

    TYPE_NAME = "DataVerdict"
    PROPERTIES = {"accepted": Property(type=PropertyType.INT)}  # noqa: RUF012 - TFX reads the class attribute


class RejectedRecords(Artifact):
    """Records left out of a dataset: `rejects.jsonl` (file, reason) and `summary.json` at its URI."""

    TYPE_NAME = "RejectedRecords"
    PROPERTIES = {"count": Property(type=PropertyType.INT)}  # noqa: RUF012 - TFX reads the class attribute
