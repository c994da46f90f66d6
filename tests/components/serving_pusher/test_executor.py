"""ServingPusher under TFX: blessings are obeyed, and the pushed model says where it went."""

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from mlplatform.artifacts import DatasetVersion
from mlplatform.components import ServingPusher
from mlplatform.components.dataset_versioner.versioning import write_version
from mlplatform.components.serving_pusher.errors import NotBlessedError
from mlplatform.components.serving_pusher.executor import Executor
from mlplatform.datasets import DatasetStore
from mlplatform.registry import ModelStore


def artifact(kind: Any, uri: Path, **properties: int) -> Any:
    made = kind()
    made.uri = str(uri)
    for name, value in properties.items():
        made.set_int_custom_property(name, value)
    return made


@pytest.fixture
def model(tmp_path: Path) -> Any:
    serving = tmp_path / "model" / "Format-Serving"
    serving.mkdir(parents=True)
    (serving / "saved_model.pb").write_text("a model")
    return artifact(standard_artifacts.Model, tmp_path / "model")


def examples_folder(folder: Path) -> Path:
    """One Example, as TFX writes them."""
    example = tf.train.Example()
    example.features.feature["item_id"].bytes_list.value.append(b"item-1")
    (folder / "Split-train").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "Split-train" / "data_tfrecord-00000-of-00001")) as writer:
        writer.write(example.SerializeToString())
    return folder


def push(model: Any, tmp_path: Path, **inputs: Any) -> Any:
    """Run the executor as a TFX launcher would; returns the pushed model's artifact."""
    pushed = artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
    Executor().Do(
        {"model": [model], **{key: [value] for key, value in inputs.items()}},
        {"pushed_model": [pushed]},
        {
            "models_dir": str(tmp_path / "models"),
            "model_name": "items",
            "servers": "[]",
            "timeout_s": 1.0,
            "keep": 0,
        },
    )
    return pushed


def test_a_blessed_model_is_pushed_with_its_dataset(model: Any, tmp_path: Path) -> None:
    store = DatasetStore(str(tmp_path / "datasets"))
    committed = store.commit("items", examples_folder(tmp_path / "examples")).manifest
    write_version(str(tmp_path / "dataset"), store, committed)
    dataset = artifact(DatasetVersion, tmp_path / "dataset")
    dataset.dataset, dataset.version = "items", committed.version
    blessed = artifact(standard_artifacts.ModelBlessing, tmp_path / "b", blessed=1)
    safe = artifact(standard_artifacts.InfraBlessing, tmp_path / "i", blessed=1)
    pushed = push(model, tmp_path, blessing=blessed, infra_blessing=safe, dataset=dataset)
    version = ModelStore(tmp_path / "models").version("items", "latest")
    assert pushed.get_string_custom_property("pushed_destination") == str(version.path)
    assert pushed.get_string_custom_property("pushed_version") == "1"
    assert version.push is not None
    assert version.push.dataset == "items@v1"
    uses = store.blame("items", "item-1", key=["item_id"]).uses
    assert [(use.kind, use.name) for use in uses] == [("push", "items@1")]
    facts = json.loads((tmp_path / "pushed" / "pushed.json").read_text())
    assert (facts["version"], facts["is_new"]) == (1, True)


def test_a_model_that_is_not_blessed_fails_the_run_and_is_not_pushed(model: Any, tmp_path: Path) -> None:
    refused = artifact(standard_artifacts.ModelBlessing, tmp_path / "b", blessed=0)
    with pytest.raises(NotBlessedError, match="blessing say no"):
        push(model, tmp_path, blessing=refused)
    assert ModelStore(tmp_path / "models").names() == []


def test_a_model_that_is_not_safe_fails_the_run_and_is_not_pushed(model: Any, tmp_path: Path) -> None:
    blessed = artifact(standard_artifacts.ModelBlessing, tmp_path / "b", blessed=1)
    unsafe = artifact(standard_artifacts.InfraBlessing, tmp_path / "i", blessed=0)
    with pytest.raises(NotBlessedError, match="infra_blessing"):
        push(model, tmp_path, blessing=blessed, infra_blessing=unsafe)
    assert ModelStore(tmp_path / "models").names() == []


def test_the_component_declares_standard_artifacts() -> None:
    from tfx.types.channel import Channel

    component = ServingPusher(
        model=Channel(type=standard_artifacts.Model), models_dir="models", model_name="items", servers=["h:1"]
    )
    assert component.outputs["pushed_model"].type is standard_artifacts.PushedModel
    assert json.loads(component.exec_properties["servers"]) == ["h:1"]
