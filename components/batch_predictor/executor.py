"""Connects predictions to TFX: artifacts to files."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfx import types
from tfx.types import artifact_utils
from tfx.utils import path_utils

from mlplatform import progress
from mlplatform.beam.runners import is_one_process
from mlplatform.prediction.predict import Model, predict
from mlplatform.tfx_io.artifacts import on_this_machine
from mlplatform.tfx_io.beam_executor import BeamExecutor

REJECTS_FILE = "rejects.json"
_VERSION = "dataset_version"


class Executor(BeamExecutor):
    """Predicts for each split, and accounts for every record."""

    def Do(  # noqa: N802 - TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        arguments: list[str] = self._beam_pipeline_args or []
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        model_artifact = artifact_utils.get_single_instance(input_dict["model"])
        with on_this_machine(input_dict, output_dict):
            folder = path_utils.serving_model_path(
                model_artifact.uri, path_utils.is_old_model_artifact(model_artifact)
            )
            model = Model(
                folder=folder,
                name=exec_properties["model_name"],
                dataset=examples.get_string_custom_property(_VERSION),
                signature=exec_properties["signature"],
            )
            out = Path(artifact_utils.get_single_uri(output_dict["predictions"]))
            counts = {}
            for split in json.loads(exec_properties["splits"]):
                found = predict(
                    model,
                    artifact_utils.get_split_uri([examples], split),
                    out / f"{split}.{exec_properties['form']}",
                    beam_arguments=[] if is_one_process(arguments) else arguments,
                )
                counts[split] = asdict(found)
                if found.rejected:
                    reasons = ", ".join(f"{count} {reason}" for reason, count in found.rejected.items())
                    progress.report_line(f"split {split}: {reasons} of {found.records} records")
            (out / REJECTS_FILE).write_text(json.dumps(counts, indent=2), "utf-8")
