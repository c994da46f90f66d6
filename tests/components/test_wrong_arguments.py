"""What a component cannot work with is told when the pipeline is made, not after the training."""

from typing import Any

import pytest
from tfx.orchestration.data_types import RuntimeParameter
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
from mlplatform.evaluation.errors import UnknownKindError
from mlplatform.registry.errors import InvalidModelNameError
from mlplatform.serving.client import ServerAddressError

EXAMPLES, MODEL = Channel(type=standard_artifacts.Examples), Channel(type=standard_artifacts.Model)


def test_image_example_gen() -> None:
    with pytest.raises(ConfigError, match="max_reject_fraction is 2"):
        ImageExampleGen("photos", splits={"train": 1}, max_reject_fraction=2)


def test_data_validator() -> None:
    with pytest.raises(ConfigError, match="drift_threshold is 7"):
        DataValidator(EXAMPLES, drift_threshold=7)


def test_every_folder_may_be_a_url() -> None:
    url = "s3://bucket/x"
    made = [
        ImageExampleGen(url, splits={"train": 1}, reports_dir=url),
        DataValidator(EXAMPLES, schema_path=url, serving_logs=url, reports_dir=url),
        ModelTrainer(EXAMPLES, run_fn="a.model:train", work_dir=url),
        ModelValidator(MODEL, EXAMPLES, models_dir=url, model_name="items", reports_dir=url),
    ]
    for component in made:
        names = [name for name in component.exec_properties if name.endswith("_dir")]
        assert {component.exec_properties[name] for name in names} == {url}


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"run_fn": "model.py"}, RunFunctionError, "package.module:function"),
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
        ({"kind": "regresion"}, UnknownKindError, "did you mean 'regression'"),
        ({"kind": "regression", "thresholds": {"top_1": 1}}, ConfigError, "unknown key 'top_1'"),
        ({"slice_thresholds": {"top1": 1}}, ConfigError, "slice_thresholds: unknown key 'top1'"),
        ({"model_name": "../x"}, InvalidModelNameError, "cannot be a model's name"),
        ({"models_dir": "models"}, ConfigError, "models_dir is given without model_name"),
    ],
)
def test_validator(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ModelValidator(MODEL, EXAMPLES, **changes)


def test_a_validator_may_be_told_later() -> None:
    late = RuntimeParameter("later", str)
    given = ("eval_splits", "thresholds", "budget", "kind", "label", "slices", "models_dir", "model_name")
    gate = ModelValidator(MODEL, EXAMPLES, **dict.fromkeys(given, late))
    assert {name: gate.exec_properties[name] for name in given} == dict.fromkeys(given, late)


def test_a_validator_may_have_a_name_alone() -> None:
    assert ModelValidator(MODEL, EXAMPLES, model_name="items").exec_properties["model_name"] == "items"


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"servers": ["h:1", "localhost"]}, ServerAddressError, "'localhost' is not HOST:PORT"),
        ({"model_name": "../x"}, InvalidModelNameError, "cannot be a model's name"),
        ({"keep": -1, "timeout_s": 0}, ConfigError, "timeout_s is 0.*keep is -1"),
    ],
)
def test_pusher(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ServingPusher(MODEL, **{"models_dir": "models", "model_name": "items", **changes})
