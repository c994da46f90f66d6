"""`ModelTrainer`: what it takes and gives."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.artifacts import DatasetVersion
from mlplatform.components.model_trainer import executor
from mlplatform.components.model_trainer.train import check_path
from mlplatform.home import local_path
from mlplatform.roles import WRITTEN


class ModelTrainerSpec(component_spec.ComponentSpec):
    """Interface of `ModelTrainer`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "run_fn": component_spec.ExecutionParameter(type=str),
        "hyperparameters": component_spec.ExecutionParameter(type=str),
        "train_splits": component_spec.ExecutionParameter(type=str),
        "eval_splits": component_spec.ExecutionParameter(type=str),
        "work_dir": component_spec.ExecutionParameter(type=str, optional=True),
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
        run_fn: str,
        hyperparameters: Mapping[str, Any] | None = None,
        train_splits: Sequence[str] = ("train",),
        eval_splits: Sequence[str] = ("eval",),
        schema: channel.BaseChannel | None = None,
        transform_graph: channel.BaseChannel | None = None,
        base_model: channel.BaseChannel | None = None,
        dataset: channel.BaseChannel | None = None,
        work_dir: str | None = None,
    ) -> None:
        """Declare the training.

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
            work_dir: Folder of unfinished trainings; default: beside the component's outputs.

        Raises:
            RunFunctionError: `run_fn` is not `package.module:function`.
            RemotePathError: `work_dir` is no local folder.
        """
        check_path(run_fn)
        if work_dir is not None:
            local_path(work_dir, "work_dir of ModelTrainer")
        super().__init__(
            spec=ModelTrainerSpec(
                examples=examples,
                schema=schema,
                transform_graph=transform_graph,
                base_model=base_model,
                dataset=dataset,
                run_fn=run_fn,
                hyperparameters=json.dumps(dict(hyperparameters or {}), sort_keys=True),
                train_splits=json.dumps(list(train_splits)),
                eval_splits=json.dumps(list(eval_splits)),
                work_dir=work_dir,
                model=channel.Channel(type=standard_artifacts.Model),
                model_run=channel.Channel(type=standard_artifacts.ModelRun),
            )
        )
