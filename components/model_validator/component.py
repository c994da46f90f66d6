"""`ModelValidator`: what it takes and gives."""

import json
from collections.abc import Mapping, Sequence

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.components.model_validator import driver, executor
from mlplatform.components.model_validator.settings import parse_budget, parse_thresholds
from mlplatform.config_file import ConfigError
from mlplatform.home import local_path
from mlplatform.registry import check_model_name
from mlplatform.roles import VALUE, WRITTEN


class ModelValidatorSpec(component_spec.ComponentSpec):
    """Interface of `ModelValidator`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "eval_splits": component_spec.ExecutionParameter(type=str),
        "thresholds": component_spec.ExecutionParameter(type=str),
        "budget": component_spec.ExecutionParameter(type=str),
        "models_dir": component_spec.ExecutionParameter(type=str, optional=True),
        "model_name": component_spec.ExecutionParameter(type=str, optional=True),
        "reports_dir": component_spec.ExecutionParameter(type=str, optional=True),
    }
    PARAMETER_ROLES = {"models_dir": VALUE, "reports_dir": WRITTEN}  # noqa: RUF012 - the local runner reads it
    INPUTS = {  # noqa: RUF012
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "baseline_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }


class ModelValidator(base_component.BaseComponent):
    """Blesses an image classifier that is good enough and safe to serve; else fails the run, saying why.

    Safe to serve: loaded in a process of its own on CPU, it answers real and odd requests alike through all
    signatures and as in its training, refuses broken ones, and stays within the budget. Good enough: its
    accuracies on the evaluation splits reach the thresholds and do not fall behind the baseline's.
    """

    SPEC_CLASS = ModelValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)
    DRIVER_CLASS = driver.Driver

    def __init__(
        self,
        model: channel.BaseChannel,
        examples: channel.BaseChannel,
        eval_splits: Sequence[str] = ("eval",),
        thresholds: Mapping[str, float] | None = None,
        budget: Mapping[str, float] | None = None,
        baseline_model: channel.BaseChannel | None = None,
        models_dir: str | None = None,
        model_name: str | None = None,
        reports_dir: str | None = None,
    ) -> None:
        """Declare the validation.

        Args:
            model: Model, a SavedModel with the signatures of an image model.
            examples: Examples to judge it on.
            eval_splits: Their splits, at least one.
            thresholds: What the model must reach: keys of `settings.Thresholds`.
            budget: What it may cost: keys of `settings.Budget`.
            baseline_model: Model to compare with; default: the newest pushed version.
            models_dir: Folder of pushed models, where the newest version of `model_name` is looked up.
            model_name: The model's name there, and the report's title; alone it gives no model to compare
                with.
            reports_dir: Folder that keeps the report also when the model is rejected.

        Raises:
            ConfigError: `eval_splits` is empty, a key of `thresholds` or `budget` is unknown, a value does
                not fit, or `models_dir` is given without `model_name`.
            InvalidModelNameError: `model_name` cannot be a pushed model's name.
            RemotePathError: `models_dir` or `reports_dir` is no local folder.
        """
        if not eval_splits:
            raise ConfigError("ModelValidator", ["eval_splits is empty: name at least one split"])
        parse_thresholds(thresholds or {})
        parse_budget(budget or {})
        if model_name is not None:
            check_model_name(model_name)
        for name, folder in (("models_dir", models_dir), ("reports_dir", reports_dir)):
            if folder is not None:
                local_path(folder, f"{name} of ModelValidator")
        if models_dir is not None and model_name is None:
            problem = "models_dir is given without model_name: name the pushed model to compare with"
            raise ConfigError("ModelValidator", [problem])
        super().__init__(
            spec=ModelValidatorSpec(
                model=model,
                examples=examples,
                baseline_model=baseline_model,
                eval_splits=json.dumps(list(eval_splits)),
                thresholds=json.dumps(dict(thresholds or {}), sort_keys=True),
                budget=json.dumps(dict(budget or {}), sort_keys=True),
                models_dir=models_dir,
                model_name=model_name,
                reports_dir=reports_dir,
                blessing=channel.Channel(type=standard_artifacts.ModelBlessing),
                infra_blessing=channel.Channel(type=standard_artifacts.InfraBlessing),
                evaluation=channel.Channel(type=standard_artifacts.ModelEvaluation),
            )
        )
