"""The model to compare with is the newest one that servers see."""

from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.types.standard_artifacts import Model

from mlplatform.components.model_validator.baseline import pushed_model
from mlplatform.components.model_validator.driver import Driver
from mlplatform.registry import ModelStore


def saved_model(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "saved_model.pb").write_text(content)
    return folder


def test_the_newest_version_that_is_not_withdrawn(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    judged = saved_model(tmp_path / "judged", "new")
    assert pushed_model(str(tmp_path / "models"), "colours", judged) == ""

    store.push(saved_model(tmp_path / "a", "a"), "colours")
    store.push(saved_model(tmp_path / "b", "b"), "colours")
    assert pushed_model(str(tmp_path / "models"), "colours", judged) == str(
        tmp_path / "models" / "colours" / "2"
    )

    store.rollback("colours")
    assert pushed_model(str(tmp_path / "models"), "colours", judged) == str(
        tmp_path / "models" / "colours" / "1"
    )
    assert pushed_model(str(tmp_path / "models"), "others", judged) == ""


def test_a_model_that_is_pushed_is_compared_with_the_one_before_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    first, second = saved_model(tmp_path / "a", "a"), saved_model(tmp_path / "b", "b")
    store.push(first, "colours")
    assert pushed_model(str(tmp_path / "models"), "colours", first) == ""
    assert pushed_model(str(tmp_path / "models"), "colours", second) == str(tmp_path / "models/colours/1")
    store.push(second, "colours")
    assert pushed_model(str(tmp_path / "models"), "colours", second) == str(tmp_path / "models/colours/1")
    assert pushed_model(str(tmp_path / "models"), "colours", first) == str(tmp_path / "models/colours/2")


@pytest.fixture
def driver() -> Driver:
    connection = metadata_store_pb2.ConnectionConfig()
    connection.fake_database.SetInParent()
    return Driver(metadata.Metadata(connection))


def test_the_driver_makes_the_pushed_model_an_execution_property(tmp_path: Path, driver: Driver) -> None:
    properties = {"models_dir": str(tmp_path / "models"), "model_name": "colours"}

    judged = Model()
    judged.uri = str(tmp_path / "judged")
    saved_model(tmp_path / "judged", "new")
    judged.set_string_custom_property("tfx_version", "1.16.0")

    def baseline(**inputs: list[Model]) -> str | None:
        inputs["model"] = [judged]
        given = driver.run(ExecutionInfo(input_dict=inputs, exec_properties=properties)).exec_properties
        return given["baseline"].string_value if "baseline" in given else None

    assert baseline() == ""
    ModelStore(tmp_path / "models").push(saved_model(tmp_path / "a", "a"), "colours")
    assert baseline() == str(tmp_path / "models/colours/1")
    assert baseline(baseline_model=[Model()]) is None
