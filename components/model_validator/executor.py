"""Connects the judgement to TFX: artifacts to files, the verdict to blessings."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfx import types
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils, proto_utils

from mlplatform import progress
from mlplatform.beam.runners import is_one_process, runs_in_process
from mlplatform.components.model_validator.baseline import BaselineModel, pushed_model
from mlplatform.components.model_validator.driver import saved_model
from mlplatform.components.model_validator.settings import Question, parse_budget
from mlplatform.components.model_validator.waivers import ThresholdWaiver, parse_waivers
from mlplatform.storage import open_storage
from mlplatform.storage.urls import is_local, join
from mlplatform.storage.urls import name as name_of
from mlplatform.tfx_io.artifacts import fetched, on_this_machine
from mlplatform.tfx_io.beam_executor import BeamExecutor
from mlplatform.tfx_io.dataset_version import read_taxonomy_of
from mlplatform.tfx_io.examples import split_files
from mlplatform.tfx_io.runs import note_verdict, run_id
from mlplatform.waivers import counting_on, today

# What TFX's Evaluator and InfraValidator write, and its Pusher reads
# (tfx/components/evaluator/constants.py, whose import would load every component).
_WORK = "work"
_BLESSED, _INFRA_BLESSED = "BLESSED", "INFRA_BLESSED"
_IS_BLESSED, _MODEL_URI, _MODEL_ID = "blessed", "current_model", "current_model_id"


class Executor(BeamExecutor):
    """Judges a model, blesses it or fails the run."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        # Here, as TensorFlow Model Analysis is heavy and who composes a pipeline does not need it.
        from mlplatform.components.model_validator.validate import ScoringEngine, Terms, validate_model

        model = artifact_utils.get_single_instance(input_dict["model"])
        splits = json.loads(exec_properties["eval_splits"])
        reports_dir = exec_properties.get("reports_dir")
        own = ("model", "baseline_model")  # fetched by themselves, under their own URIs
        others = {name: given for name, given in input_dict.items() if name not in own}
        arguments: list[str] = self._beam_pipeline_args or []
        is_alone = is_one_process(arguments)
        if not runs_in_process(arguments):
            del others["examples"]  # the workers read them where they lie
        with (
            saved_model(model) as folder,
            _baseline(input_dict, exec_properties, folder) as baseline,
            _work_dir(artifact_utils.get_single_uri(output_dict["evaluation"])) as work_dir,
            on_this_machine(others, output_dict),
        ):
            terms = Terms(
                splits=splits,
                question=_question(exec_properties, _folder(input_dict.get("dataset"))),
                budget=parse_budget(json.loads(exec_properties["budget"])),
                baseline=baseline,
                title=exec_properties.get("model_name") or "model",
                run_dir=_folder(input_dict.get("model_run")),
                transform_dir=_folder(input_dict.get("transform_graph")),
                eval_config=_eval_config(exec_properties.get("eval_config")),
                run=run_id(self._context),
                model_uri="" if is_local(model.uri) else model.uri,
                serving_environment=exec_properties.get("serving_environment") or "",
                waivers=_waivers(exec_properties),
                engine=None
                if is_alone
                else ScoringEngine(arguments, _where_it_lies(model, folder), work_dir),
            )
            verdict = validate_model(
                folder,
                split_files(input_dict["examples"], splits, may_be_remote=True),
                terms,
                output_dir=Path(artifact_utils.get_single_uri(output_dict["evaluation"])),
                reports_dir=reports_dir or None,
            )
            if reports_dir and verdict.report:
                note_verdict(
                    reports_dir,
                    self._context,
                    "ModelValidator",
                    is_accepted=not verdict.reasons,
                    reasons=verdict.reasons,
                    report=verdict.report,
                    waivers=verdict.waivers,
                )
            verdict.raise_if_rejected()
            for note in verdict.notes:
                progress.report_line(f"accepted, but note: {note}")
            _bless(artifact_utils.get_single_instance(output_dict["blessing"]), _BLESSED, model)
            _bless(artifact_utils.get_single_instance(output_dict["infra_blessing"]), _INFRA_BLESSED, model)


def _where_it_lies(model: types.Artifact, folder: Path) -> str:
    """Return where a model's SavedModel lies that is in `folder` on this machine."""
    if is_local(model.uri):
        return str(folder)
    return str(path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)))


@contextmanager
def _work_dir(evaluation: str) -> Iterator[str]:
    """Give a folder or URL that an engine's workers write to, and delete what they wrote."""
    try:
        yield join(evaluation, _WORK)
    finally:
        open_storage(evaluation).delete_tree(_WORK)


def _question(exec_properties: dict[str, Any], dataset: Path | None) -> Question:
    return Question.of(
        exec_properties.get("kind") or "classification",
        exec_properties.get("label") or "label",
        output=exec_properties.get("output") or None,
        slices=json.loads(exec_properties.get("slices") or "[]"),
        thresholds=json.loads(exec_properties["thresholds"]),
        slice_thresholds=json.loads(exec_properties.get("slice_thresholds") or "{}"),
        taxonomy=read_taxonomy_of(str(dataset)) if dataset else None,
    )


def _waivers(exec_properties: dict[str, Any]) -> list[ThresholdWaiver]:
    """Return the waivers of today: one may be over since the pipeline was composed."""
    given = json.loads(exec_properties.get("waivers") or "[]")
    return counting_on(today(), parse_waivers(exec_properties.get("kind") or "classification", given))


def _eval_config(given: str | None) -> Any:
    """Return the EvalConfig that the component was given, None for none."""
    if not given:
        return None
    from tensorflow_model_analysis.proto import config_pb2

    config = config_pb2.EvalConfig()
    proto_utils.json_to_proto(given, config)
    return config


def _folder(artifacts: list[types.Artifact] | None) -> Path | None:
    return Path(artifact_utils.get_single_uri(artifacts)) if artifacts else None


@contextmanager
def _baseline(
    input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any], judged: Path
) -> Iterator[BaselineModel | None]:
    given = input_dict.get("baseline_model")
    if given:
        model = artifact_utils.get_single_instance(given)
        with saved_model(model) as folder:
            yield BaselineModel(
                folder,
                f"the given baseline model ({model.uri})",
                is_pushed=False,
                url=_where_it_lies(model, folder),
            )
        return
    models_dir, name = exec_properties.get("models_dir"), exec_properties.get("model_name")
    if "baseline" in exec_properties:  # the driver's choice
        url = exec_properties["baseline"]
    else:  # an orchestrator without drivers
        url = pushed_model(models_dir, name, judged) if models_dir and name else None
    if not url:
        yield None
        return
    with fetched(url) as folder:
        yield BaselineModel(folder, f"version {name_of(url)} of {name}, pushed before", url=url)


def _bless(blessing: types.Artifact, file_name: str, model: types.Artifact) -> None:
    io_utils.write_string_file(str(Path(blessing.uri) / file_name), "")
    blessing.set_int_custom_property(_IS_BLESSED, 1)
    blessing.set_string_custom_property(_MODEL_URI, model.uri)
    blessing.set_int_custom_property(_MODEL_ID, model.id)
