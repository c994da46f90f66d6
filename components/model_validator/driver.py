"""Names the pushed model to compare with before the work begins, so that another one is another question.

A cache that knows the parameters then knows the baseline. Source: TFX's launcher takes over the execution
properties that a driver gives, before it looks into its cache (`tfx/orchestration/portable/launcher.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfx.dsl.components.base import base_driver
from tfx.orchestration.portable import base_driver as ir_base_driver
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import Artifact, artifact_utils
from tfx.utils import path_utils

from mlplatform.components.model_validator.baseline import pushed_model
from mlplatform.tfx_io.artifacts import fetched


@contextmanager
def saved_model(model: Artifact) -> Iterator[Path]:
    """Give the folder of a model artifact's SavedModel on this machine; a copy of what lies at a URL."""
    with fetched(model.uri) as folder:
        yield Path(path_utils.serving_model_path(str(folder), path_utils.is_old_model_artifact(model)))


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
            judged = artifact_utils.get_single_instance(execution_info.input_dict["model"])
            with saved_model(judged) as folder:
                result.exec_properties["baseline"].string_value = pushed_model(models_dir, name, folder) or ""
        return result
