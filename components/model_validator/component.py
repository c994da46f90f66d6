"""`ModelValidator`: what it takes and gives."""

import json
from collections.abc import Mapping, Sequence

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts

from mlplatform.components.model_validator import driver, executor
from mlplatform.components.model_validator.errors import UnsupportedExamplesError
from mlplatform.components.model_validator.settings import parse_budget, parse_thresholds
from mlplatform.config_file import ConfigError
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
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun, optional=True),
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
        model_run: channel.BaseChannel | None = None,
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
            reports_dir: Folder or URL that keeps the report also when the model is rejected.
            model_run: ModelTrainer's `model_run`: the report then shows how the training went.

        Raises:
            UnsupportedExamplesError: `examples` come from a component that reads tables.
            ConfigError: `eval_splits` is empty, a key of `thresholds` or `budget` is unknown, a value does
                not fit, or `models_dir` is given without `model_name`.
            InvalidModelNameError: `model_name` cannot be a pushed model's name.
        """
        if not eval_splits:
            raise ConfigError("ModelValidator", ["eval_splits is empty: name at least one split"])
        check_source(examples)
        parse_thresholds(thresholds or {})
        parse_budget(budget or {})
        if model_name is not None:
            check_model_name(model_name)
        if models_dir is not None and model_name is None:
            problem = "models_dir is given without model_name: name the pushed model to compare with"
            raise ConfigError("ModelValidator", [problem])
        super().__init__(
            spec=ModelValidatorSpec(
                model=model,
                examples=examples,
                baseline_model=baseline_model,
                model_run=model_run,
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


# Components of TFX whose Examples are rows of tables: nothing in them is an encoded photo.
_READ_TABLES = frozenset({"CsvExampleGen", "BigQueryExampleGen", "PrestoExampleGen"})


def check_source(examples: channel.BaseChannel) -> None:
    """See, as far as the pipeline's own graph says, that the Examples can be photos.

    What a component downstream of the ingest gives (a version of a dataset, for instance) is followed back to
    it. Examples of other sources are looked at when the gate runs.

    Raises:
        UnsupportedExamplesError: They are made by a component that reads tables.
    """
    seen: set[int] = set()
    waiting = [examples]
    while waiting:
        node = getattr(waiting.pop(), "producer_component", None)
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        kinds = _READ_TABLES & {kind.__name__ for kind in type(node).__mro__}
        if kinds:
            raise UnsupportedExamplesError(f"those of {node.id}, which are rows of a table")
        waiting += [given for given in node.inputs.values() if given.type is standard_artifacts.Examples]
