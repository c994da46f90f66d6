"""Names the version before the work begins, so that a tag that moved, or another taxonomy, is other work.

A cache that knows the parameters then knows the version. Source: TFX's launcher takes over the execution
properties that a driver gives, before it looks into its cache (`tfx/orchestration/portable/launcher.py`).
"""

import hashlib
from typing import Any

from tfx.dsl.components.base import base_driver
from tfx.orchestration.portable import base_driver as ir_base_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2

from mlplatform.datasets import DatasetStore

DIGEST, TAXONOMY = "digest", "taxonomy_sha256"


class Driver(base_driver.BaseDriver, ir_base_driver.BaseDriver):
    """Gives the execution properties `digest` and `taxonomy_sha256`."""

    def __init__(self, metadata_handle: Any) -> None:
        base_driver.BaseDriver.__init__(self, metadata_handle)
        ir_base_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        properties = execution_info.exec_properties
        store = DatasetStore(properties["store"])
        manifest = store.show(properties["dataset_name"], properties["version"])
        result = driver_output_pb2.DriverOutput()
        result.exec_properties[DIGEST].string_value = manifest.digest
        taxonomy = hashlib.sha256(manifest.taxonomy.encode()).hexdigest()
        result.exec_properties[TAXONOMY].string_value = taxonomy
        return result
