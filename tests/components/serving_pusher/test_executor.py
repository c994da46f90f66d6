"""ServingPusher under TFX: blessings are obeyed, and the pushed model says where it went."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from mlplatform.artifacts import DatasetVersion
from mlplatform.components import ServingPusher
from mlplatform.components.serving_pusher.errors import NotBlessedError
from mlplatform.components.serving_pusher.executor import Executor
from mlplatform.config_file import ConfigError
from mlplatform.datasets import DatasetStore
from mlplatform.errors import GateError
from mlplatform.registry import ModelStore
from mlplatform.registry.errors import ModelWithdrawnError
from mlplatform.registry.signing import public_part, verify
from mlplatform.tfx_io.dataset_version import write_version


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


def push(model: Any, tmp_path: Path, parameters: dict[str, Any] | None = None, **inputs: Any) -> Any:
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
            **(parameters or {}),
        },
    )
    return pushed


def test_a_blessed_model_is_pushed_with_its_dataset(model: Any, tmp_path: Path) -> None:
    store = DatasetStore(str(tmp_path / "datasets"))
    committed = store.commit("items", examples_folder(tmp_path / "examples")).manifest
    write_version(str(tmp_path / "dataset"), store, committed)
    dataset = artifact(DatasetVersion, tmp_path / "dataset")
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


@pytest.fixture
def blessings(tmp_path: Path) -> dict[str, Any]:
    return {
        "blessing": artifact(standard_artifacts.ModelBlessing, tmp_path / "b", blessed=1),
        "infra_blessing": artifact(standard_artifacts.InfraBlessing, tmp_path / "i", blessed=1),
    }


def test_what_the_gate_measured_is_kept_with_the_version(model: Any, tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    quality = {
        "photos": 40,
        "top_1": {"value": 0.9, "low": 0.8, "high": 0.95},
        "classes": [{"label": "a"}],
        "unknown_labels": {},
    }
    (tmp_path / "e" / "metrics.json").write_text(json.dumps({"quality": quality}))
    push(model, tmp_path, evaluation=artifact(standard_artifacts.ModelEvaluation, tmp_path / "e"))
    version = ModelStore(tmp_path / "models").version("items", "latest")
    assert version.push is not None
    assert version.push.metrics == {"photos": 40, "top_1": 0.9}


@pytest.mark.parametrize("content", [None, "", "[]", '{"quality": null}', '{"quality": {"top_1": "high"}}'])
def test_an_evaluation_of_another_kind_has_no_metrics(
    model: Any, tmp_path: Path, content: str | None
) -> None:
    (tmp_path / "e").mkdir()
    if content is not None:
        (tmp_path / "e" / "metrics.json").write_text(content)
    push(model, tmp_path, evaluation=artifact(standard_artifacts.ModelEvaluation, tmp_path / "e"))
    version = ModelStore(tmp_path / "models").version("items", "latest")
    assert version.push is not None
    assert version.push.metrics == {}


def test_a_run_after_a_roll_back_is_refused_until_it_is_allowed(model: Any, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "saved_model.pb").write_text("before")
    store.push(tmp_path / "other", "items")
    push(model, tmp_path)
    store.rollback("items", why="bad on shoes")
    with pytest.raises(ModelWithdrawnError, match="bad on shoes") as raised:
        push(model, tmp_path)
    assert isinstance(raised.value, GateError)
    assert push(model, tmp_path, {"allow_withdrawn": 1}).get_string_custom_property("pushed_version") == "3"


def test_a_model_that_both_gates_blessed_is_signed(
    model: Any, tmp_path: Path, blessings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key.pem"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(make, check=True, capture_output=True)
    store = ModelStore(tmp_path / "models")
    monkeypatch.setenv("MLPLATFORM_SIGNING_KEY", key.read_text())
    push(model, tmp_path, blessing=blessings["blessing"])
    assert not store.version("items", "1").is_signed  # one gate is not both
    push(model, tmp_path, **blessings)
    monkeypatch.delenv("MLPLATFORM_SIGNING_KEY")
    push(model, tmp_path, {"signing_key": str(key)}, **blessings)
    assert [v.is_signed for v in store.versions("items")] == [False, True]
    verify(store.version("items", "2").path, public_part(str(key)))


def test_a_model_without_blessings_is_not_to_be_signed() -> None:
    with pytest.raises(ConfigError, match="signing_key needs blessing and infra_blessing"):
        ServingPusher(
            model=Channel(type=standard_artifacts.Model),
            models_dir="models",
            model_name="items",
            signing_key="key.pem",
        )


def test_the_component_declares_standard_artifacts() -> None:
    component = ServingPusher(
        model=Channel(type=standard_artifacts.Model), models_dir="models", model_name="items", servers=["h:1"]
    )
    assert component.outputs["pushed_model"].type is standard_artifacts.PushedModel
    assert json.loads(component.exec_properties["servers"]) == ["h:1"]
