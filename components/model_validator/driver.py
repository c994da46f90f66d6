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
from tfx.types import Artifact, artifact_utils
from tfx.utils import path_utils

from mlplatform.components.model_validator.baseline import pushed_model
from mlplatform.home import local_path
from mlplatform.tfx_io.artifacts import fetched


def saved_model(model: Artifact) -> Path:
    """Return the folder of the SavedModel of a model artifact on this machine. Raises RemotePathError."""
    return local_path(_saved_model(model, model.uri), "the model")


def _saved_model(model: Artifact, uri: str) -> str:
    return str(path_utils.serving_model_path(uri, path_utils.is_old_model_artifact(model)))


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
            with fetched(judged.uri) as folder:
                baseline = pushed_model(models_dir, name, Path(_saved_model(judged, str(folder))))
            result.exec_properties["baseline"].string_value = baseline
        return result
