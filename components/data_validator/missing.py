"""Empty lists become missing values, before anything is counted.

An ExampleGen writes an empty cell as a feature without values. TensorFlow Data Validation counts only a
feature that is absent as missing, so a column of empty cells would be complete.
"""

import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2

from mlplatform.arrow import pa, pc


def may_be_empty(schema: schema_pb2.Schema) -> frozenset[str]:
    """Return the features that have a value when they have none: the schema says `value_count { min: 0 }`."""
    return frozenset(
        feature.name
        for feature in schema.feature
        if feature.WhichOneof("shape_type") == "value_count"
        and feature.value_count.HasField("min")
        and feature.value_count.min == 0
    )


def with_missing(batch: pa.RecordBatch, may_be_empty: frozenset[str]) -> pa.RecordBatch:
    """Return a batch of Examples in which empty lists are nulls.

    Args:
        batch: A column per feature, lists of values.
        may_be_empty: Features whose empty lists stay.
    """
    columns = [
        column if name in may_be_empty else _with_nulls(column)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _with_nulls(column: pa.Array) -> pa.Array:
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return column
    is_empty = pc.fill_null(pc.equal(pc.list_value_length(column), 0), False)
    if not pc.any(is_empty).as_py():
        return column
    place = pa.array(np.arange(len(column)))
    return column.take(pc.if_else(is_empty, pa.scalar(None, pa.int64()), place))
