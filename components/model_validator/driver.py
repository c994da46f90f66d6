"""Names the pushed model to compare with before the work begins, so that another one is another question.

A cache that knows the parameters then knows the baseline. Source: TFX's launcher takes over the execution
properties that a driver gives, before it looks into its cache (`tfx/orchestration/portable/launcher.py`).
"""

from pathlib import Path
from typing import Any

from tfx.dsl.components.base import base_driver
from tfx.orchestration.portable import base_driver as ir_base_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2

from mlplatform.components.model_validator.baseline import pushed_model


class Driver(base_driver.BaseDriver, ir_base_driver.BaseDriver):
    """Gives the execution property `baseline`: the pushed model's folder; empty where nothing is pushed."""

    def __init__(self, metadata_handle: Any) -> None:
        base_driver.BaseDriver.__init__(self, metadata_handle)
        ir_base_driver.BaseDriver.__init__(self, metadata_handle)

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        result = driver_output_pb2.DriverOutput()
        properties = execution_info.exec_properties
        models_dir, name = properties.get("models_dir"), properties.get("model_name")
        if models_dir and name and not execution_info.input_dict.get("baseline_model"):
            folder = pushed_model(Path(models_dir), name)
            result.exec_properties["baseline"].string_value = str(folder or "")
        return result
