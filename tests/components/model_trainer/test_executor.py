"""ModelTrainer under TFX: which files are read, and that a dataset version names its models."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tfx.types import standard_artifacts

from mlplatform.artifacts import DatasetVersion
from mlplatform.components.model_trainer.executor import Executor
from mlplatform.datasets import DatasetStore
from mlplatform.home import RemotePathError
from mlplatform.tfx_io.dataset_version import write_version
from mlplatform.tfx_io.examples import split_files
from mlplatform.training.task import TrainingTask


def artifact(kind: Any, uri: Path | str) -> Any:
    made = kind()
    made.uri = str(uri)
    return made


@pytest.fixture
def examples(colours: ModuleType, tmp_path: Path) -> Any:
    """Examples of two splits, with what a killed writer left in one of them."""
    colours.write(tmp_path / "examples" / "Split-train" / "data-00000-of-00001.gz", colours.examples(1))
    colours.write(
        tmp_path / "examples" / "Split-eval" / "data-00000-of-00001.gz", colours.examples(1, ["red"])
    )
    (tmp_path / "examples" / "Split-train" / ".data-00000-of-00001.gz.5f").write_bytes(b"half")
    made = artifact(standard_artifacts.Examples, tmp_path / "examples")
    made.split_names = '["train", "eval"]'
    return made


def write_model(task: TrainingTask) -> None:
    """A model's code: the model is the names of its files."""
    task.model_dir.mkdir(parents=True)
    (task.model_dir / "saved_model.pb").write_text("\n".join(task.train_files))


def test_a_dataset_version_names_the_models_that_were_trained_on_it(
    examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("a_trained_model")
    module.train = write_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_trained_model", module)
    store = DatasetStore(str(tmp_path / "datasets"))
    (tmp_path / "examples" / "Split-train" / ".data-00000-of-00001.gz.5f").unlink()
    committed = store.commit("items", tmp_path / "examples").manifest
    write_version(str(tmp_path / "dataset"), store, committed)
    dataset = artifact(DatasetVersion, tmp_path / "dataset")
    model = artifact(standard_artifacts.Model, tmp_path / "model")

    Executor().Do(
        {"examples": [examples], "dataset": [dataset]},
        {
            "model": [model],
            "model_run": [artifact(standard_artifacts.ModelRun, tmp_path / "out" / "run" / "1")],
        },
        {
            "run_fn": "a_trained_model:train",
            "hyperparameters": "{}",
            "train_splits": '["train"]',
            "eval_splits": '["eval"]',
        },
    )

    assert (tmp_path / "model" / "Format-Serving" / "saved_model.pb").is_file()
    (use,) = store.blame("items", "red-0", key=["item_id"]).uses
    assert (use.kind, use.name, use.detail) == ("model", "model, run unknown", str(tmp_path / "model"))


def test_what_a_killed_writer_left_is_not_read(examples: Any) -> None:
    (file,) = split_files([examples], ["train"])
    assert Path(file).name == "data-00000-of-00001.gz"


def test_examples_on_another_machine_are_told() -> None:
    made = artifact(standard_artifacts.Examples, "gs://bucket/examples")
    made.split_names = '["train"]'
    with pytest.raises(RemotePathError, match="'gs://bucket/examples/Split-train'"):
        split_files([made], ["train"])
