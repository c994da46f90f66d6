"""Connects training to TFX: from artifacts to files, and back."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from mlplatform.components.model_trainer.train import parse_search, train
from mlplatform.fingerprints.digests import Digests
from mlplatform.storage.urls import is_local
from mlplatform.tfx_io.artifacts import on_this_machine
from mlplatform.tfx_io.dataset_version import note_use, read_taxonomy_of, read_version
from mlplatform.tfx_io.examples import split_files
from mlplatform.tfx_io.runs import note_dataset_used, run_id
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
        train_splits = json.loads(exec_properties["train_splits"])
        eval_splits = json.loads(exec_properties["eval_splits"])
        model = artifact_utils.get_single_instance(output_dict["model"])
        model_run = artifact_utils.get_single_instance(output_dict["model_run"])
        work_root = exec_properties.get("work_dir") or _beside(model_run.uri)
        uris = {name: [one.uri for one in some] for name, some in input_dict.items()}
        with _folder(work_root) as work_dir, on_this_machine(input_dict, output_dict):
            examples = input_dict["examples"]
            train_files = split_files(examples, train_splits)
            if not train_files:
                raise NoExamplesError(f"the training splits ({', '.join(train_splits)})")
            schema, graph, base = (
                _path(input_dict, key) for key in ("schema", "transform_graph", "base_model")
            )
            train(
                exec_properties["run_fn"],
                train_files=train_files,
                eval_files=split_files(examples, eval_splits),
                hyperparameters=json.loads(exec_properties["hyperparameters"]),
                work_root=work_dir,
                model_dir=Path(path_utils.serving_model_dir(model.uri)),
                run_dir=Path(model_run.uri),
                schema_file=schema / _SCHEMA_FILE if schema else None,
                transform_dir=graph,
                base_model_dir=Path(path_utils.serving_model_path(str(base))) if base else None,
                name_of=_names(input_dict, uris) if is_local(work_dir) else _contents(input_dict),
                taxonomy=read_taxonomy_of(str(dataset))
                if (dataset := _path(input_dict, "dataset"))
                else None,
                search=parse_search(json.loads(exec_properties.get("search") or "{}")),
            )
        if input_dict.get("dataset"):
            uri = artifact_utils.get_single_uri(input_dict["dataset"])
            note_use(uri, "model", self._name(), model.uri)
            note_dataset_used(read_version(uri), self._context, "ModelTrainer")

    def _name(self) -> str:
        """Name the model: by its pipeline and run, as it has no version before it is pushed."""
        pipeline = self._context.pipeline_info if self._context else None
        return f"{pipeline.id if pipeline else 'model'}, run {run_id(self._context) or 'unknown'}"


def _path(input_dict: dict[str, list[types.Artifact]], key: str) -> Path | None:
    artifacts = input_dict.get(key)
    return Path(artifact_utils.get_single_uri(artifacts)) if artifacts else None


def _names(input_dict: dict[str, list[types.Artifact]], uris: dict[str, list[str]]) -> Callable[[str], str]:
    """Return what gives the real place of a file within artifacts that may be copies."""
    places = {
        one.uri: uri for key, some in input_dict.items() for one, uri in zip(some, uris[key], strict=True)
    }

    def name_of(path: str) -> str:
        for place, uri in places.items():
            if path.startswith(place):
                return uri + path[len(place) :]
        return path

    return name_of


def _contents(input_dict: dict[str, list[types.Artifact]]) -> Callable[[str], str]:
    """Return what tells inputs by their content: at the same place, another machine may have other ones."""
    places = tuple(one.uri for some in input_dict.values() for one in some)

    def content_of(path: str) -> str:
        if not path.startswith(places):
            return path
        with tempfile.TemporaryDirectory(prefix="mlplatform-") as memory:
            return Digests(Path(memory)).of(path)

    return content_of


def _beside(model_run: str) -> str:
    """Return the folder of unfinished trainings where none is given; empty where outputs are not local."""
    return str(Path(model_run).parents[1] / _UNFINISHED) if is_local(model_run) else ""


@contextmanager
def _folder(work_root: str) -> Iterator[str]:
    """Give the folder of unfinished trainings: a temporary one where there is none."""
    if work_root:
        yield work_root
        return
    with tempfile.TemporaryDirectory(prefix="mlplatform-", ignore_cleanup_errors=True) as folder:
        yield folder
