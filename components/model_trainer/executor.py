"""Connects training to TFX: from artifacts to files, and back."""

import json
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from mlplatform.components.model_trainer.train import train
from mlplatform.home import local_path
from mlplatform.tfx_io.dataset_version import note_use
from mlplatform.tfx_io.examples import split_files
from mlplatform.training.errors import NoExamplesError

_UNFINISHED = "unfinished"  # beside the folders of the component's outputs, where no work_dir is given
_SCHEMA_FILE = "schema.pbtxt"


class Executor(base_executor.BaseExecutor):
    """Trains a model with the code that `run_fn` names."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        examples = input_dict["examples"]
        train_splits = json.loads(exec_properties["train_splits"])
        model = artifact_utils.get_single_instance(output_dict["model"])
        model_run = artifact_utils.get_single_instance(output_dict["model_run"])
        schema, graph, base, dataset = (
            _uri(input_dict, key) for key in ("schema", "transform_graph", "base_model", "dataset")
        )
        train_files = split_files(examples, train_splits)
        if not train_files:
            raise NoExamplesError(f"the training splits ({', '.join(train_splits)})")
        train(
            exec_properties["run_fn"],
            train_files=train_files,
            eval_files=split_files(examples, json.loads(exec_properties["eval_splits"])),
            hyperparameters=json.loads(exec_properties["hyperparameters"]),
            work_root=_work_root(exec_properties, model_run),
            model_dir=local_path(path_utils.serving_model_dir(model.uri), "the model's folder"),
            run_dir=Path(model_run.uri),
            schema_file=schema / _SCHEMA_FILE if schema else None,
            transform_dir=graph,
            base_model_dir=Path(path_utils.serving_model_path(str(base))) if base else None,
        )
        if dataset is not None:
            note_use(str(dataset), "model", self._name(), model.uri)

    def _name(self) -> str:
        """Name the model: by its pipeline and run, as it has no version before it is pushed."""
        pipeline = self._context.pipeline_info if self._context else None
        run = self._context.pipeline_run_id if self._context else None
        return f"{pipeline.id if pipeline else 'model'}, run {run or 'unknown'}"


def _uri(input_dict: dict[str, list[types.Artifact]], key: str) -> Path | None:
    artifacts = input_dict.get(key)
    return local_path(artifact_utils.get_single_uri(artifacts), f"the input {key!r}") if artifacts else None


def _work_root(exec_properties: dict[str, Any], model_run: types.Artifact) -> Path:
    given = exec_properties.get("work_dir")
    return Path(given) if given else Path(model_run.uri).parents[1] / _UNFINISHED
