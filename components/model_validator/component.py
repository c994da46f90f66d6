"""`ModelValidator`: what it takes and gives."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import channel, component_spec, standard_artifacts
from tfx.utils import proto_utils

from mlplatform.artifacts import DatasetVersion
from mlplatform.components.model_validator import driver, executor
from mlplatform.components.model_validator.settings import Question, parse_budget
from mlplatform.components.model_validator.waivers import parse_waivers
from mlplatform.config_file import ConfigError
from mlplatform.registry import check_model_name
from mlplatform.roles import READ, VALUE, WRITTEN
from mlplatform.tfx_io.parameters import Late, converted, is_late, late_names
from mlplatform.waivers import counting_on, today

if TYPE_CHECKING:
    from tensorflow_model_analysis import EvalConfig


class ModelValidatorSpec(component_spec.ComponentSpec):
    """Interface of `ModelValidator`."""

    PARAMETERS = {  # noqa: RUF012 - TFX reads the class attribute
        "eval_splits": component_spec.ExecutionParameter(type=str),
        "thresholds": component_spec.ExecutionParameter(type=str),
        "budget": component_spec.ExecutionParameter(type=str),
        "models_dir": component_spec.ExecutionParameter(type=str, optional=True),
        "model_name": component_spec.ExecutionParameter(type=str, optional=True),
        "reports_dir": component_spec.ExecutionParameter(type=str, optional=True),
        "kind": component_spec.ExecutionParameter(type=str, optional=True),
        "label": component_spec.ExecutionParameter(type=str, optional=True),
        "output": component_spec.ExecutionParameter(type=str, optional=True),
        "slices": component_spec.ExecutionParameter(type=str, optional=True),
        "slice_thresholds": component_spec.ExecutionParameter(type=str, optional=True),
        "eval_config": component_spec.ExecutionParameter(type=str, optional=True),
        "serving_environment": component_spec.ExecutionParameter(type=str, optional=True),
        "waivers": component_spec.ExecutionParameter(type=str, optional=True),
    }
    PARAMETER_ROLES = {  # noqa: RUF012 - the local runner reads it
        "models_dir": VALUE,
        "reports_dir": WRITTEN,
        "serving_environment": VALUE,
        "baseline": READ,  # which the driver adds
    }
    INPUTS = {  # noqa: RUF012
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "baseline_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun, optional=True),
        "transform_graph": component_spec.ChannelParameter(
            type=standard_artifacts.TransformGraph, optional=True
        ),
        "dataset": component_spec.ChannelParameter(type=DatasetVersion, optional=True),
    }
    OUTPUTS = {  # noqa: RUF012
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }


class ModelValidator(base_beam_component.BaseBeamComponent):
    """Blesses a model that is good enough and safe to serve; else fails the run with every reason.

    Safe to serve: loaded in a process of its own on CPU, it answers real and odd requests alike through all
    its signatures and as in its training, refuses broken ones, and stays within the budget. Good enough: its
    figures on the evaluation splits, which depend on the kind of answer, reach the thresholds and do not fall
    behind the baseline's.
    """

    SPEC_CLASS = ModelValidatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)
    DRIVER_CLASS = driver.Driver

    def __init__(
        self,
        model: channel.BaseChannel,
        examples: channel.BaseChannel,
        eval_splits: Sequence[str] | Late = ("eval",),
        thresholds: Mapping[str, float] | Late | None = None,
        budget: Mapping[str, float] | Late | None = None,
        baseline_model: channel.BaseChannel | None = None,
        models_dir: str | Late | None = None,
        model_name: str | Late | None = None,
        reports_dir: str | Late | None = None,
        model_run: channel.BaseChannel | None = None,
        kind: str | Late = "classification",
        label: str | Late = "label",
        output: str | Late | None = None,
        slices: Sequence[Sequence[str]] | Late = (),
        slice_thresholds: Mapping[str, float] | Late | None = None,
        transform_graph: channel.BaseChannel | None = None,
        eval_config: "EvalConfig | None" = None,
        dataset: channel.BaseChannel | None = None,
        serving_environment: str | Late | None = None,
        waivers: Sequence[Mapping[str, Any]] | Late = (),
    ) -> None:
        """Declare the validation.

        Each parameter may be a `RuntimeParameter`: the splits, `slices` and `waivers` then are JSON lists,
        thresholds and budget JSON objects.

        Args:
            model: Model, a SavedModel whose signature `serving_default` takes serialized Examples, or inputs
                named like their features.
            examples: Examples to judge it on, as servers will be asked.
            eval_splits: Their splits, at least one; not those that the model is trained on.
            thresholds: What the model must reach: metrics of the kind (`{"rmse": 4.0}`; the kind knows which
                way is better), `max_<metric>_drop` or `_rise` beside the baseline, `min_support`.
            budget: What it may cost: keys of `settings.Budget`.
            baseline_model: Model to compare with; default: the newest pushed version.
            models_dir: Folder or URL of pushed models, where the newest version of `model_name` is looked up.
            model_name: The model's name there, and the report's title; alone it gives no model to compare
                with.
            reports_dir: Folder or URL that keeps the report also when the model is rejected.
            model_run: ModelTrainer's `model_run`: the report then shows how the training went.
            kind: What the model answers: `classification`, `multi_label`, `regression`, `embedding`, or the
                import path of a class of your own (`package.module:Kind`).
            label: Feature with the truth; the model is asked without it.
            output: Name of the output that is the answer; default: found by its name and shape.
            slices: Features, or combinations of them, for whose values figures are computed, too.
            slice_thresholds: What each slice with at least `min_support` records must reach; keys as in
                `thresholds`.
            transform_graph: Transform's output, where the label or slices are features that it makes.
            eval_config: An EvalConfig of TensorFlow Model Analysis, evaluated as TFX's Evaluator does: its
                metrics are in the evaluation, and its thresholds count, too.
            dataset: DatasetVersioner's `dataset`: where it has a taxonomy, classes are judged by it, at each
                of its levels.
            serving_environment: Folder of a virtual environment, or a Python executable, on the machine that
                judges, with the server's own version of TensorFlow: it is to load the model, too, and give
                the same answers.
            waivers: Thresholds that may be missed until a day, each with `threshold`, `class_name` and
                `slice` where it is of one, `by`, `why` and `until`; see `docs/how-to/validate-models.md`.

        Raises:
            UnknownKindError: There is no such kind.
            ConfigError: `eval_splits` is empty or trained on, a key of `thresholds`, `budget` or `waivers` is
                unknown, a value does not fit, or `models_dir` is given without `model_name`.
            InvalidModelNameError: `model_name` cannot be a pushed model's name.
        """
        if not is_late(eval_splits):
            if not eval_splits:
                raise ConfigError("ModelValidator", ["eval_splits is empty: name at least one split"])
            _check_splits(model, examples, eval_splits)
        question: dict[str, Any] = {
            "kind": kind,
            "label": label,
            "output": output,
            "slices": slices,
            "thresholds": thresholds,
            "slice_thresholds": slice_thresholds,
        }
        if not late_names(question):  # else the run checks it
            Question.of(**question)
        if not is_late(waivers):
            # One that is over is no part of the declaration: results that it let through are not reused.
            counting = counting_on(today(), parse_waivers(None if is_late(kind) else kind, waivers))
            waivers = [each.model_dump(mode="json") for each in counting]
        if not is_late(budget):
            parse_budget(budget or {})
        if model_name is not None and not is_late(model_name):
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
                eval_splits=converted(eval_splits, lambda names: json.dumps(list(names))),
                thresholds=_json_object(thresholds),
                budget=_json_object(budget),
                models_dir=converted(models_dir),
                model_name=model_name,
                reports_dir=converted(reports_dir),
                transform_graph=transform_graph,
                dataset=dataset,
                kind=kind,
                label=label,
                output=output,
                serving_environment=converted(serving_environment),
                waivers=converted(waivers, lambda some: json.dumps(some) if some else None),
                slices=converted(slices, lambda some: json.dumps([list(names) for names in some])),
                slice_thresholds=_json_object(slice_thresholds),
                eval_config=None if eval_config is None else proto_utils.proto_to_json(eval_config),
                blessing=channel.Channel(type=standard_artifacts.ModelBlessing),
                infra_blessing=channel.Channel(type=standard_artifacts.InfraBlessing),
                evaluation=channel.Channel(type=standard_artifacts.ModelEvaluation),
            )
        )


def _json_object(values: Mapping[str, Any] | Late | None) -> Any:
    return values if is_late(values) else json.dumps(dict(values or {}), sort_keys=True)


def _check_splits(
    model: channel.BaseChannel, examples: channel.BaseChannel, eval_splits: Sequence[str]
) -> None:
    """See, as far as the pipeline's own graph says, that no split both trains and judges the model.

    Raises:
        ConfigError: One does.
    """
    trainer: Any = getattr(model, "producer_component", None)
    given = getattr(trainer, "exec_properties", {}).get("train_splits")
    if not isinstance(given, str):
        return
    both = sorted({*json.loads(given)} & {*eval_splits})
    learned = trainer.inputs.get("examples")
    if both and learned is not None and {*_sources(learned)} & {*_sources(examples)}:
        raise ConfigError(
            "ModelValidator",
            [
                f"eval_splits names {both[0]!r}, which {trainer.id} trains on: judge by a split that it "
                "does not see"
            ],
        )


def _sources(examples: channel.BaseChannel) -> Iterator[int]:
    """Yield where Examples come from: the channel, and those that its component makes them of."""
    waiting = [examples]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop()
        node: Any = getattr(found, "producer_component", None)
        identity = id(found) if node is None else id(node)
        if identity in seen:
            continue
        seen.add(identity)
        yield identity
        if node is not None:
            waiting += [given for given in node.inputs.values() if given.type is standard_artifacts.Examples]
