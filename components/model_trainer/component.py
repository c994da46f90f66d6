"""`ModelTrainer`: what it takes and gives."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.artifacts import DatasetVersion
from mlplatform.components.model_trainer import executor
from mlplatform.components.model_trainer.train import check_path, parse_search
from mlplatform.roles import WRITTEN
from mlplatform.tfx_io.parameters import Late, converted, is_late


class ModelTrainerSpec(component_spec.ComponentSpec):
    """Interface of `ModelTrainer`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "run_fn": component_spec.ExecutionParameter(type=str),
        "hyperparameters": component_spec.ExecutionParameter(type=str),
        "train_splits": component_spec.ExecutionParameter(type=str),
        "eval_splits": component_spec.ExecutionParameter(type=str),
        "work_dir": component_spec.ExecutionParameter(type=str, optional=True),
        "search": component_spec.ExecutionParameter(type=str, optional=True),
    }
    PARAMETER_ROLES = {"work_dir": WRITTEN}  # noqa: RUF012 - the local runner reads it
    INPUTS = {  # noqa: RUF012
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema, optional=True),
        "transform_graph": component_spec.ChannelParameter(
            type=standard_artifacts.TransformGraph, optional=True
        ),
        "base_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "dataset": component_spec.ChannelParameter(type=DatasetVersion, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
    }


class ModelTrainer(base_component.BaseComponent):
    """Trains a model with code that is named by an import path, and can be killed at any time.

    What is already done (features, checkpoints) is kept in `work_dir` under a name made of the input files
    the code and the hyperparameters; the next run of the same training goes on from there.
    """

    SPEC_CLASS = ModelTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        examples: channel.BaseChannel,
        run_fn: str | Late,
        hyperparameters: Mapping[str, Any] | Late | None = None,
        train_splits: Sequence[str] | Late = ("train",),
        eval_splits: Sequence[str] | Late = ("eval",),
        schema: channel.BaseChannel | None = None,
        transform_graph: channel.BaseChannel | None = None,
        base_model: channel.BaseChannel | None = None,
        dataset: channel.BaseChannel | None = None,
        work_dir: str | Late | None = None,
        search: Mapping[str, Any] | Late | None = None,
    ) -> None:
        """Declare the training.

        Each parameter may be a `RuntimeParameter`: `hyperparameters` then is a JSON object, the splits are
        JSON lists.

        Args:
            examples: Examples to learn from.
            run_fn: `package.module:function`; the function takes a `TrainingTask` and writes a SavedModel.
            hyperparameters: The model's own settings; JSON values. The function checks them.
            train_splits: Splits to train on.
            eval_splits: Splits to watch the training with; may be empty.
            schema: Schema of the Examples.
            transform_graph: Transform's output, where the model reads transformed Examples.
            base_model: Model to start from.
            dataset: DatasetVersion that the Examples are; `mlplatform datasets blame` then names the model.
            work_dir: Folder or URL where unfinished trainings are kept, so that one that was killed resumes,
                at a URL also on another machine. Two at one training: locally the second fails; at a URL
                both finish. Default: beside the component's outputs where those are local, else nowhere.
            search: Which hyperparameters are searched, and how (`SearchSettings`): several trainings then
                compete, and the best is the model. `run_fn` has to write a history. None for no search.

        Raises:
            RunFunctionError: `run_fn` is not `package.module:function`.
            ConfigError: `search` has an unknown key, or a value that does not fit.
        """
        if not is_late(run_fn):
            check_path(run_fn)
        if search is not None and not is_late(search):
            parse_search(search)
        super().__init__(
            spec=ModelTrainerSpec(
                examples=examples,
                schema=schema,
                transform_graph=transform_graph,
                base_model=base_model,
                dataset=dataset,
                run_fn=run_fn,
                hyperparameters=converted(
                    {} if hyperparameters is None else hyperparameters,
                    lambda values: json.dumps(dict(values), sort_keys=True),
                ),
                train_splits=converted(train_splits, lambda names: json.dumps(list(names))),
                eval_splits=converted(eval_splits, lambda names: json.dumps(list(names))),
                work_dir=converted(work_dir),
                search=converted(search, lambda values: json.dumps(dict(values), sort_keys=True)),
                model=channel.Channel(type=standard_artifacts.Model),
                model_run=channel.Channel(type=standard_artifacts.ModelRun),
            )
        )
