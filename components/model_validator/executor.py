"""Connects the judgement to TFX: artifacts to files, the verdict to blessings."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from mlplatform import progress
from mlplatform.components.model_validator.baseline import Baseline, pushed_model
from mlplatform.components.model_validator.driver import saved_model
from mlplatform.components.model_validator.settings import parse_budget, parse_thresholds
from mlplatform.home import local_path
from mlplatform.storage.urls import name as last_name
from mlplatform.tfx_io.artifacts import fetched, on_this_machine
from mlplatform.tfx_io.examples import split_files
from mlplatform.tfx_io.runs import note_verdict, run_id

# What TFX's Evaluator and InfraValidator write, and its Pusher reads
# (tfx/components/evaluator/constants.py, whose import would load every component).
_BLESSED, _INFRA_BLESSED = "BLESSED", "INFRA_BLESSED"
_IS_BLESSED, _MODEL_URI, _MODEL_ID = "blessed", "current_model", "current_model_id"


class Executor(base_executor.BaseExecutor):
    """Judges a model, blesses it or fails the run."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        with ExitStack() as places:
            baseline = _baseline(input_dict, exec_properties, places)
            places.enter_context(on_this_machine(input_dict, output_dict))
            self._judge(input_dict, output_dict, exec_properties, baseline)

    def _judge(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
        baseline: Baseline | None,
    ) -> None:
        # Here, as TensorFlow Model Analysis is heavy and who composes a pipeline does not need it.
        from mlplatform.components.model_validator.validate import Terms, validate_model

        model = artifact_utils.get_single_instance(input_dict["model"])
        splits = json.loads(exec_properties["eval_splits"])
        reports_dir = exec_properties.get("reports_dir")
        model_run = input_dict.get("model_run")
        terms = Terms(
            splits=splits,
            thresholds=parse_thresholds(json.loads(exec_properties["thresholds"])),
            budget=parse_budget(json.loads(exec_properties["budget"])),
            baseline=baseline,
            title=exec_properties.get("model_name") or "model",
            run_dir=local_path(artifact_utils.get_single_uri(model_run), "model_run") if model_run else None,
            run=run_id(self._context),
        )
        verdict = validate_model(
            saved_model(model),
            split_files(input_dict["examples"], splits),
            terms,
            output_dir=local_path(
                artifact_utils.get_single_uri(output_dict["evaluation"]), "the evaluation's folder"
            ),
            reports_dir=reports_dir or None,
        )
        if verdict.report:
            note_verdict(
                exec_properties["reports_dir"],
                self._context,
                "ModelValidator",
                is_accepted=not verdict.reasons,
                reasons=verdict.reasons,
                report=str(verdict.report),
            )
        verdict.raise_if_rejected()
        for note in verdict.notes:
            progress.say(f"accepted, but note: {note}")
        _bless(artifact_utils.get_single_instance(output_dict["blessing"]), _BLESSED, model)
        _bless(artifact_utils.get_single_instance(output_dict["infra_blessing"]), _INFRA_BLESSED, model)


def _baseline(
    input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any], places: ExitStack
) -> Baseline | None:
    """Return the model to compare with, on this machine until `places` closes."""
    given = input_dict.get("baseline_model")
    if given:
        model = artifact_utils.get_single_instance(given)
        folder = str(places.enter_context(fetched(model.uri)))
        saved = path_utils.serving_model_path(folder, path_utils.is_old_model_artifact(model))
        return Baseline(Path(saved), f"the given baseline model ({model.uri})", is_pushed=False)
    models_dir, name = exec_properties.get("models_dir"), exec_properties.get("model_name")
    if not models_dir or not name:
        return None
    place = exec_properties.get("baseline")  # the driver's answer, where there is a driver
    if place is None:
        judged = artifact_utils.get_single_instance(input_dict["model"])
        with fetched(judged.uri) as copy:
            saved = path_utils.serving_model_path(str(copy), path_utils.is_old_model_artifact(judged))
            place = pushed_model(models_dir, name, Path(saved))
    if not place:
        return None
    version = f"version {last_name(place)} of {name}, pushed before"
    return Baseline(places.enter_context(fetched(place)), version)


def _bless(blessing: types.Artifact, file_name: str, model: types.Artifact) -> None:
    io_utils.write_string_file(str(Path(blessing.uri) / file_name), "")
    blessing.set_int_custom_property(_IS_BLESSED, 1)
    blessing.set_string_custom_property(_MODEL_URI, model.uri)
    blessing.set_int_custom_property(_MODEL_ID, model.id)
