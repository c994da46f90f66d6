"""What a component cannot work with is told when the pipeline is made, not after the training."""

from typing import Any

import pytest
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from mlplatform.components import (
    DataValidator,
    ImageExampleGen,
    ModelTrainer,
    ModelValidator,
    ServingPusher,
)
from mlplatform.components.model_trainer.errors import RunFunctionError
from mlplatform.config_file import ConfigError
from mlplatform.home import RemotePathError
from mlplatform.registry.errors import InvalidModelNameError
from mlplatform.serving.client import ServerAddressError

EXAMPLES, MODEL = Channel(type=standard_artifacts.Examples), Channel(type=standard_artifacts.Model)


def test_image_example_gen() -> None:
    with pytest.raises(RemotePathError, match="reports_dir of ImageExampleGen is 'gs://bucket/reports'"):
        ImageExampleGen("photos", splits={"train": 1}, reports_dir="gs://bucket/reports")


@pytest.mark.parametrize("name", ["reports_dir", "serving_logs"])
def test_data_validator(name: str) -> None:
    with pytest.raises(RemotePathError, match=f"{name} of DataValidator is 's3://bucket/x'"):
        DataValidator(EXAMPLES, **{name: "s3://bucket/x"})


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"run_fn": "model.py"}, RunFunctionError, "package.module:function"),
        ({"work_dir": "gs://bucket/work"}, RemotePathError, "no folder of this machine"),
    ],
)
def test_trainer(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ModelTrainer(EXAMPLES, **{"run_fn": "a.model:train", **changes})


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"thresholds": {"top_11": 0.5}}, ConfigError, "did you mean 'top_1'"),
        ({"thresholds": {"top_1": 50}}, ConfigError, "top_1 is 50"),
        ({"budget": {"p99_latency_ms": 0}}, ConfigError, "ModelValidator's budget"),
        ({"eval_splits": []}, ConfigError, "eval_splits is empty"),
        ({"model_name": "../x"}, InvalidModelNameError, "cannot be a model's name"),
        ({"models_dir": "s3://bucket/models"}, RemotePathError, "models_dir of ModelValidator"),
        ({"models_dir": "models"}, ConfigError, "models_dir is given without model_name"),
        ({"reports_dir": "s3://bucket/reports"}, RemotePathError, "reports_dir of ModelValidator"),
    ],
)
def test_validator(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ModelValidator(MODEL, EXAMPLES, **changes)


def test_a_validator_may_have_a_name_alone() -> None:
    assert ModelValidator(MODEL, EXAMPLES, model_name="items").exec_properties["model_name"] == "items"


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"servers": ["h:1", "localhost"]}, ServerAddressError, "'localhost' is not HOST:PORT"),
        ({"model_name": "../x"}, InvalidModelNameError, "cannot be a model's name"),
        ({"keep": -1, "timeout_s": 0}, ConfigError, "timeout_s is 0.*keep is -1"),
        ({"models_dir": "gs://bucket/models"}, RemotePathError, "models_dir of ServingPusher"),
    ],
)
def test_pusher(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ServingPusher(MODEL, **{"models_dir": "models", "model_name": "items", **changes})
